"""Triggers and their filters: accepted, or refused with the field; a filter says yes or no to any event, as an
evaluation says that shares nothing with it."""

import fnmatch
import ipaddress
from typing import Any

from fuzz_forms import document
from fuzz_target import Target
from fuzz_values import is_resource, near
from hypothesis import strategies as st

from kappa_api.errors import SpecError
from kappa_api.patterns import PatternError, compile_pattern
from kappa_api.sources import READERS
from kappa_api.trigger import parse_trigger

Json = Any
GONE = object()


# --- Triggers ---------------------------------------------------------------------------------------------------------
SOURCES: list[Json] = [
    {"schedule": {"cron": "*/5 * * * *", "timeZone": "Europe/Berlin"}},
    {"subject": {"subjects": ["a.*", "b.>"]}},
    {"stream": {"name": "S", "subjects": ["a.>"]}},
    {"mqtt": {"topics": ["a/+/b", "c/#"], "qos": 1}},
    {"webhook": {"preset": "hmac", "secretRef": {"name": "s"}, "header": "x-sig"}},
    {"s3": {"secretRef": {"name": "s"}, "buckets": ["a*"], "events": ["s3:ObjectCreated:*"]}},
    {"postgres": {"secretRef": {"name": "s"}, "tables": ["public.t"], "operations": ["insert"]}},
    {"redis": {"secretRef": {"name": "s"}, "stream": "s"}},
    {"kubernetes": {"apiVersion": "v1", "kind": "ConfigMap"}},
    {"kv": {"bucket": "b", "keys": ["a.*"]}},
    {"object": {"bucket": "b"}},
    {"event": {"types": ["a.*"], "sources": ["/s*"]}},
]
GOOD: Json = {
    "function": "f",
    "filter": {"type": [{"prefix": "a"}], "data": {"a": [1, {"numeric": [">", 0]}], "$or": [{"b": [1]}, {"c": [2]}]}},
    "batch": {"size": 10, "windowSeconds": 5},
    "delivery": {"maxAttempts": 3, "maxAgeSeconds": 60},
}


@st.composite
def triggers(draw: st.DrawFn) -> Json:
    spec = GOOD | {"source": draw(st.sampled_from(SOURCES))}
    return {"metadata": {"name": "t", "namespace": "ns", "uid": "u", "generation": 1}, "spec": draw(near(spec))}


def check_trigger(resource: Json) -> None:
    try:
        trigger = parse_trigger(resource)
    except SpecError as error:
        assert error.problems  # noqa: PT017
        for problem in error.problems:
            assert problem.field.startswith(("spec", "metadata")), problem
            assert 0 < len(problem.message) < 4000, problem
        return
    assert trigger.kind in READERS
    assert trigger.source is not None
    hash(trigger.source)
    repr(trigger).encode("utf-8", "backslashreplace")


# --- filters ----------------------------------------------------------------------------------------------------------
def check_filter(case: list[Json]) -> None:
    """[pattern, event]"""
    pattern, event = case
    try:
        compiled = compile_pattern(pattern)
    except PatternError as error:
        assert 0 < len(error.message) < 500  # noqa: PT017
        return
    assert compiled.matches(event) is naive(pattern, event)


def naive(pattern: Json, value: Json) -> bool:
    """Whether an event matches, after the description in `kappa_api.patterns` and nothing else."""
    if isinstance(value, list) and value:
        return any(naive(pattern, item) for item in value)
    value = value if isinstance(value, dict) else {}
    for key, below in pattern.items():
        if key == "$or":
            if not any(naive(branch, value) for branch in below):
                return False
        elif isinstance(below, dict):
            if not naive(below, value.get(key, GONE)):
                return False
        elif not any(_item(item, value.get(key, GONE)) for item in below):
            return False
    return True


def _item(item: Json, found: Json) -> bool:
    if isinstance(item, dict) and "exists" in item:
        return (found is not GONE) is item["exists"]
    return any(_single(item, value) for value in _flat(found))


def _flat(found: Json) -> list[Json]:
    if isinstance(found, list):
        return [value for item in found for value in _flat(item)]
    return [] if found is GONE else [found]


def _single(item: Json, value: Json) -> bool:
    if not isinstance(item, dict):
        return item == value and (type(item) is type(value) or _numbers(item, value))
    ((name, wanted),) = item.items()
    if name == "anything-but":
        return not isinstance(value, dict) and not any(_single(one, value) for one in _wanted(wanted))
    if name == "numeric":
        return _numbers(value, value) and all(_compare(value, *wanted[at : at + 2]) for at in range(0, len(wanted), 2))
    if not isinstance(value, str):
        return False
    if name == "cidr":
        try:
            return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
        except ValueError:
            return False
    if name == "equals-ignore-case":
        return value.casefold() == wanted.casefold()
    if name == "wildcard":
        # fnmatch knows ? and [ too: they are put into brackets
        return fnmatch.fnmatchcase(value, "".join(f"[{c}]" if c in "?[" else c for c in wanted))
    if isinstance(wanted, dict):
        wanted, value = wanted["equals-ignore-case"].casefold(), value.casefold()
    return value.startswith(wanted) if name == "prefix" else value.endswith(wanted)


def _wanted(wanted: Json) -> list[Json]:
    if not isinstance(wanted, dict):
        return wanted if isinstance(wanted, list) else [wanted]
    ((name, below),) = wanted.items()
    return [{name: one} for one in (below if isinstance(below, list) else [below])]


def _numbers(*values: Json) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _compare(value: float, sign: str, bound: float) -> bool:
    if sign == "=":
        return value == bound
    return (value > bound if sign[0] == ">" else value < bound) or (sign.endswith("=") and value == bound)


_TEXT = st.sampled_from(["a", "b", "ab", "A", "ß", "SS", "a*b", "*", "a?", "10.0.0.1", "10.0.0.0/8", "::1", "x" * 50])
_SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.5, 1.0, 1e300, 1 << 70]), _TEXT)
_EVENT = st.recursive(
    _SCALAR, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("ab"), below, max_size=2)
)
_NAMES = st.sampled_from(["prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "cidr", "exists"])
_ITEM = st.one_of(
    _SCALAR,
    st.dictionaries(_NAMES, st.one_of(_SCALAR, st.lists(_SCALAR, max_size=2)), min_size=1, max_size=1),
    st.dictionaries(
        _NAMES,
        st.dictionaries(_NAMES, _TEXT | st.lists(_TEXT, min_size=1, max_size=2), min_size=1, max_size=1),
        min_size=1,
        max_size=1,
    ),
    st.builds(lambda low, size: {"numeric": [">=", low, "<", low + size]}, st.integers(-2, 2), st.integers(0, 2)),
)
_LEAF = st.lists(_ITEM, min_size=1, max_size=3)
_PATTERN = st.recursive(
    st.dictionaries(st.sampled_from("ab"), _LEAF, min_size=1, max_size=2),
    lambda below: st.one_of(
        st.dictionaries(st.sampled_from("ab"), _LEAF | below, min_size=1, max_size=2),
        st.lists(below, min_size=1, max_size=2).map(lambda branches: {"$or": branches}),
    ),
    max_leaves=5,
)
TARGETS = (
    Target(
        "spec-trigger",
        "Triggers: accepted, or refused with fields",
        triggers(),
        check_trigger,
        document(
            *READERS,
            *GOOD,
            "source",
            "secretRef",
            "name",
            "topics",
            "cron",
            "ordered",
            "key",
            fits=is_resource,
        ),
    ),
    Target(
        "filters",
        "filters and events, beside a naive evaluation",
        st.tuples(_PATTERN, st.dictionaries(st.sampled_from("ab"), _EVENT, max_size=2)).map(list),
        check_filter,
        document(
            "prefix",
            "suffix",
            "equals-ignore-case",
            "wildcard",
            "anything-but",
            "numeric",
            "exists",
            "cidr",
            "$or",
            "data",
            fits=lambda value: isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict),
        ),
    ),
)
