"""Label and field selectors: text -> a predicate on objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kappa_local.errors import bad_request
from kappa_local.types import Obj

Predicate = Callable[[Obj], bool]

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_SET = re.compile(rf"^\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*$")
_EQUAL = re.compile(rf"^\s*({_KEY})\s*(==|=|!=)\s*([-A-Za-z0-9_.]*)\s*$")
_EXISTS = re.compile(rf"^\s*(!?)\s*({_KEY})\s*$")
_SPLIT = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True)
class Requirement:
    """One term of a label selector. `values` is empty for `exists` and `missing`."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case _:
                return value is None


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """`a=b,c!=d,e in (f,g),h,!i` as requirements. Raises the server's 400 for anything else."""
    if not text.strip():
        return ()
    return tuple(_requirement(term) for term in _SPLIT.split(text))


def _requirement(term: str) -> Requirement:
    if found := _EQUAL.match(term):
        key, operator, value = found.groups()
        return Requirement(key, "notin" if operator == "!=" else "in", frozenset([value]))
    if found := _SET.match(term):
        key, operator, listed = found.groups()
        return Requirement(key, operator, frozenset(value.strip() for value in listed.split(",")))
    if found := _EXISTS.match(term):
        negated, key = found.groups()
        return Requirement(key, "missing" if negated else "exists")
    raise bad_request(f"unable to parse requirement: found '{term.strip()}', expected: a label selector")


def field_value(obj: Obj, path: str) -> str:
    """The value at a dotted path as text, '' when absent (as the real server compares it)."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@dataclass(frozen=True)
class FieldTerm:
    path: str
    equal: bool
    value: str

    def matches(self, obj: Obj) -> bool:
        return (field_value(obj, self.path) == self.value) is self.equal


def parse_fields(text: str, supported: Iterable[str]) -> tuple[FieldTerm, ...]:
    """`metadata.name=x,status.phase!=Failed` as terms; a field outside `supported` is refused."""
    allowed = {"metadata.name", "metadata.namespace", *supported}
    terms = []
    for part in filter(None, text.split(",")):
        found = re.match(r"^\s*([^=!\s]+)\s*(==|=|!=)\s*(.*?)\s*$", part)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, operator, value = found.groups()
        if path not in allowed:
            raise bad_request(f"field label not supported: {path}")
        terms.append(FieldTerm(path, operator != "!=", value))
    return tuple(terms)


@dataclass(frozen=True)
class Selector:
    """A label selector and a field selector together; both empty matches everything."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldTerm, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, obj: Obj) -> bool:
        if self.labels:
            labels = obj["metadata"].get("labels") or {}
            if not all(term.matches(labels) for term in self.labels):
                return False
        return all(term.matches(obj) for term in self.fields)

    def exact(self, path: str) -> str | None:
        """The one value that `path` must have, or None: lets a list or watch of one name skip everything else."""
        return next((term.value for term in self.fields if term.path == path and term.equal), None)


def parse(label_selector: str, field_selector: str, supported_fields: Iterable[str]) -> Selector:
    return Selector(parse_labels(label_selector), parse_fields(field_selector, supported_fields))
