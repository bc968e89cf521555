"""The Trigger resource as frozen dataclasses: which events invoke which Function, and how they are delivered.

The same rules stand in the chart's CRD. `filter` is an event pattern as Amazon EventBridge has them: its leaves are
lists of exact values or of `prefix`, `suffix`, `anything-but`, `numeric` and `exists`; keys are CloudEvents attributes,
and below `data` the keys of the data.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api.delivery import DEFAULT_DELIVERY, FUNCTION_NAME, Delivery, read_delivery
from kappa_api.errors import Problem, SpecError
from kappa_api.fields import Reader
from kappa_api.names import TRIGGER_KIND
from kappa_api.patterns import PatternError, compile_pattern
from kappa_api.sources import READERS

Json = Any
MAX_BATCH = 10_000
MAX_WINDOW_SECONDS = 300
#: A CloudEvents attribute, or a path below the data, such as data.customer.id
KEY_PATTERN = r"[a-z0-9]{1,40}|data(\.[^.\s]{1,100}){1,10}"
#: Secrets that sources use are of this type, so that the gateway can watch them and no others.
SOURCE_SECRET_TYPE = "kappa.dev/source"


@dataclass(frozen=True, slots=True)
class Batch:
    """Up to `size` events in one invocation; a smaller batch waits `window_seconds` for more."""

    size: int = 1
    window_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Trigger:
    """One Trigger as the API server holds it. `source` is the dataclass of `kind`.

    `ordered`: path of the key whose events are delivered one after the other, empty for any order.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    function: str
    kind: str
    source: Any
    filter: Mapping[str, Json] | None = None
    batch: Batch = Batch()
    ordered: str = ""
    delivery: Delivery = DEFAULT_DELIVERY

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def function_key(self) -> str:
        return f"{self.namespace}/{self.function}"


def parse_trigger(resource: Mapping[str, Json]) -> Trigger:
    """Reads a Trigger. Raises SpecError with every fault found, each with its field path and remedy."""
    problems: list[Problem] = []
    meta = resource.get("metadata") or {}
    name, namespace = str(meta.get("name", "")), str(meta.get("namespace", ""))
    if not re.fullmatch(FUNCTION_NAME, name):
        problems.append(
            Problem("metadata.name", "must be at most 52 characters of a-z, 0-9 and -, and begin with a letter")
        )
    reader = Reader(resource.get("spec"), "spec", problems)
    function = reader.string("function", required=True, pattern=FUNCTION_NAME, hint="a Function in this namespace")
    kind, source = _source(reader)
    batch = _batch(reader.child("batch"))
    ordered = _ordered(reader)
    if ordered and batch.size > 1:
        reader.fault("batch.size", "must be 1 with ordered: events of one key are delivered one after the other")
    delivery = read_delivery(reader, results=False)
    found = Trigger(
        namespace=namespace,
        name=name,
        uid=str(meta.get("uid", "")),
        generation=int(meta.get("generation", 0)),
        function=function,
        kind=kind,
        source=source,
        filter=_filter(reader),
        batch=batch,
        ordered=ordered,
        delivery=delivery,
    )
    reader.unknown()
    if problems:
        raise SpecError(TRIGGER_KIND, namespace, name, tuple(problems))
    return found


def _source(parent: Reader) -> tuple[str, Any]:
    reader = parent.child("source")
    chosen = [kind for kind in READERS if kind in reader]
    if len(chosen) != 1:
        found = f"found {' and '.join(chosen)}" if chosen else "found none"
        parent.fault("source", f"must have exactly one of {', '.join(READERS)}; {found}")
    source = None
    for kind in READERS:
        below = reader.child(kind)
        if kind in reader:
            source = READERS[kind](below)
    reader.unknown()
    return (chosen[0] if chosen else ""), source


def _filter(reader: Reader) -> Mapping[str, Json] | None:
    if "filter" not in reader:
        reader.mapping("filter")
        return None
    found = reader.mapping("filter")
    try:
        compile_pattern(found)
    except PatternError as error:
        reader.fault(f"filter.{error.path}" if error.path else "filter", error.message)
    return found


def _batch(reader: Reader) -> Batch:
    batch = Batch(
        size=reader.integer("size", 1, 1, MAX_BATCH),
        window_seconds=reader.integer("windowSeconds", 0, 0, MAX_WINDOW_SECONDS),
    )
    reader.unknown()
    return batch


def _ordered(parent: Reader) -> str:
    reader = parent.child("ordered")
    if "ordered" not in parent:
        return ""
    key = reader.string("key", required=True, pattern=KEY_PATTERN, hint="an attribute such as subject, or data.a.b")
    reader.unknown()
    return key
