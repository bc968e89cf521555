"""The chart's CRDs as schemas, and what tests that compare them with `kappa_api` need."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from kappa_api.errors import SpecError

Json = Any

REPOSITORY = Path(__file__).resolve().parents[2]
CRDS = REPOSITORY / "charts" / "kappa" / "crds"


def crd(plural: str) -> Json:
    return yaml.safe_load((CRDS / f"{plural}.yaml").read_text())


def schema_of(plural: str) -> Json:
    return crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def examples(kind: str) -> list[Json]:
    """Every object of a kind in the examples, with where it stands."""
    files = sorted((REPOSITORY / "examples").glob("*/*.yaml"))
    documents = ((path, item) for path in files for item in yaml.safe_load_all(path.read_text()))
    return [(f"{path.parent.name}/{path.name}", item) for path, item in documents if item and item["kind"] == kind]


def at(schema: Json, path: str) -> Json:
    """The schema of a field by its path; `[]` is a list's item."""
    for piece in path.split("."):
        name, _, item = piece.partition("[")
        schema = schema["properties"][name]
        if item:
            schema = schema["items"]
    return schema


def fill(value: Json, schema: Json) -> Json:
    """`value` with the schema's defaults, as the API server fills them in."""
    if isinstance(value, dict):
        value = dict(value)
        for name, child in (schema.get("properties") or {}).items():
            if name not in value and "default" in child:
                value[name] = copy.deepcopy(child["default"])
            if name in value:
                value[name] = fill(value[name], child)
    elif isinstance(value, list) and "items" in schema:
        value = [fill(item, schema["items"]) for item in value]
    return value


def takes(schema: Json, resource: Json) -> bool:
    """Whether an API server with this schema takes the resource."""
    return jsonschema.Draft202012Validator(schema).is_valid(fill(resource, schema))


def integers(schema: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Every whole number below `schema`, with its path; not those in lists."""
    for name, child in (schema.get("properties") or {}).items():
        if child.get("type") == "integer":
            yield (*path, name), child
        yield from integers(child, (*path, name))


def known_fields(parse: Any, resource: Json, path: str) -> set[str]:
    """What the code knows at `path`, from what it says about a field that it does not know."""
    target: Json = (resource := copy.deepcopy(resource))
    for piece in path.split("."):
        name, _, item = piece.partition("[")
        target = target[name][0] if item else target[name]
    target["zzz"] = 1
    try:
        parse(resource)
    except SpecError as error:
        problems = error.problems
    else:
        raise AssertionError(f"an unknown field of {path} was taken")
    where = path.replace("[]", "[0]") + ".zzz"
    messages = [problem.message for problem in problems if problem.field == where]
    assert len(messages) == 1, problems
    return set(messages[0].partition("known here: ")[2].split(", "))
