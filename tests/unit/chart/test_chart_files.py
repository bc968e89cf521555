"""What can be checked of the chart without helm: values against their schema, CRDs against the rules of Kubernetes.

What helm renders is checked in tests/e2e/test_chart.py.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kappa_gateway.events.settings import EventSettings
from kappa_gateway.events.streams import wanted

Json = Any

CHART = Path(__file__).resolve().parents[3] / "charts" / "kappa"
CRD_FILES = sorted((CHART / "crds").glob("*.yaml"))
#: Keywords that Kubernetes 1.20 does not know in a schema.
TOO_NEW = {"x-kubernetes-validations"}
#: Keywords of JSON Schema that a structural schema must not have below anyOf, oneOf, allOf and not.
FORBIDDEN_IN_LOGIC = {"type", "default", "additionalProperties", "nullable", "title", "description"}


def load(path: Path) -> Json:
    return yaml.safe_load(path.read_text())


def schemas(node: Json, path: str = "", logic: bool = False) -> Iterator[tuple[str, Json, bool]]:
    """Every schema below `node`: its path, itself, and whether it stands inside anyOf, oneOf, allOf or not."""
    yield path, node, logic
    for name, child in (node.get("properties") or {}).items():
        yield from schemas(child, f"{path}.{name}", logic)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from schemas(node[key], f"{path}.{key}", logic)
    for key in ("anyOf", "oneOf", "allOf"):
        for index, child in enumerate(node.get(key) or ()):
            yield from schemas(child, f"{path}.{key}[{index}]", True)
    if "not" in node:
        yield from schemas(node["not"], f"{path}.not", True)


def root_schema(crd: Json) -> Json:
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_values_pass_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(load(CHART / "values.yaml"))


def test_every_value_stands_in_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Json, node: Json, path: str) -> None:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        if isinstance(values, dict) and "properties" in node:
            known = set(node["properties"]) - {"global"}
            assert set(values) == known, path
            for name in known:
                compare(values[name], node["properties"][name], f"{path}.{name}")

    compare(load(CHART / "values.yaml"), schema, "values")


@pytest.mark.parametrize(
    "wrong",
    [
        {"gatway": {}},
        {"gateway": {"service": {"type": "External"}}},
        {"gateway": {"autoscaling": {"minReplicas": 0}}},
        {"operator": {"replicas": 0}},
        {"operator": {"maxInstancesPerNamespace": -1}},
        {"operator": {"idleMemoryLimit": "4 GB"}},
        {"runtimes": {"Python": {"image": {"repository": "x"}}}},
        {"runtimes": {"python": {"pool": {"min": 1}}}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"namespace": {"podSecurity": "strict"}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(wrong: Json) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(jsonschema.Draft7Validator(schema).iter_errors(wrong))


def test_versions_agree() -> None:
    chart = load(CHART / "Chart.yaml")
    project = (CHART.parents[1] / "operator" / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project


@pytest.mark.parametrize("path", CRD_FILES, ids=lambda path: path.stem)
def test_digest_of_crd(path: Path) -> None:
    crd = load(path)
    text = json.dumps(crd["spec"], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    have = crd["metadata"]["annotations"]["kappa.dev/schema-digest"]
    assert have == digest, f'{path.name} changed: write kappa.dev/schema-digest: "{digest}" into it'


@pytest.mark.parametrize("path", CRD_FILES, ids=lambda path: path.stem)
def test_schema_is_structural(path: Path) -> None:
    """The rules of apiextensions' ValidateStructural that are easily broken."""
    root = root_schema(load(path))
    assert set(root["properties"]["metadata"]) == {"type", "properties"}
    assert set(root["properties"]["metadata"]["properties"]) <= {"name", "generateName"}
    assert "default" not in root
    for where, node, logic in schemas(root):
        assert not TOO_NEW & node.keys(), where
        assert not ("properties" in node and "additionalProperties" in node), where
        int_or_string = re.search(r"\.anyOf\[[01]\]$", where) and node.keys() == {"type"}
        if logic and not int_or_string:
            assert not FORBIDDEN_IN_LOGIC & node.keys(), where
        if not logic:
            assert "type" in node or "x-kubernetes-int-or-string" in node, where


@pytest.mark.parametrize("path", CRD_FILES, ids=lambda path: path.stem)
def test_every_field_is_explained(path: Path) -> None:
    for where, node, logic in schemas(root_schema(load(path))):
        name = where.rpartition(".")[2]
        if logic or name in ("items", "additionalProperties") or where.startswith(".metadata"):
            continue
        assert node.get("description"), f"{where} has no description for `kubectl explain`"


def defaults(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every schema with a default, anywhere in another one."""
    if "default" in schema:
        yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from defaults(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from defaults(schema[key], f"{path}[]")


@pytest.mark.parametrize("path", CRD_FILES, ids=lambda path: path.stem)
def test_defaults_are_valid_before_their_own_defaults(path: Path) -> None:
    """An API server refuses the whole CRD otherwise: it checks each default as it stands."""
    root = load(path)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    checked = [where for where, schema in defaults(root) if not _refused(schema)]
    assert checked == [where for where, _ in defaults(root)]
    assert checked


def _refused(schema: Json) -> bool:
    return bool(list(jsonschema.Draft7Validator(schema).iter_errors(schema["default"])))


def test_the_volumes_of_nats_hold_what_its_streams_may_take() -> None:
    values = load(CHART / "values.yaml")
    most = EventSettings(urls=("nats://nats",), work_bytes=values["gateway"]["events"]["workBytes"])
    needed = sum(max(0, stream["max_bytes"]) for stream in wanted(most))
    size = re.fullmatch(r"(\d+)Gi", values["nats"]["storage"]["size"])
    assert size is not None
    assert needed < int(size[1]) * 2**30
