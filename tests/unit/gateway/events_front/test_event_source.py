"""`source.event`: which events a Trigger takes, and what its spec may say."""

from typing import Any

import pytest

from kappa_api.cloudevents import CloudEvent
from kappa_api.errors import SpecError
from kappa_api.sources.event import EventSource
from kappa_api.trigger import parse_trigger


def parse(**source: Any) -> EventSource:
    meta = {"namespace": "ns", "name": "t", "uid": "u", "generation": 1}
    found = parse_trigger({"metadata": meta, "spec": {"function": "f", "source": {"event": source}}}).source
    assert isinstance(found, EventSource)
    return found


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.bc", False),
        ("a.*", "a.", True),
        ("a.*", "a.b.c", True),
        ("a.*", "b.a.", False),
        ("*.created", "order.created", True),
        ("*.created", "created", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "ac", False),
        ("a*b*c", "axxbyyc", True),
        ("ab*ba", "aba", False),  # the ends must not overlap
        ("*", "", True),
        ("a[b]?", "a[b]?", True),
        ("a[b]?", "abx", False),
    ],
)
def test_patterns(pattern: str, value: str, fits: bool) -> None:
    assert EventSource(types=(pattern,)).matches(CloudEvent("1", "/s", value)) is fits
    assert EventSource(sources=(pattern,)).matches(CloudEvent("1", value, "t")) is fits


def test_types_and_sources_must_both_fit() -> None:
    source = EventSource(types=("a", "b"), sources=("/x",))
    assert source.matches(CloudEvent("1", "/x", "b"))
    assert not source.matches(CloudEvent("1", "/y", "b"))
    assert not source.matches(CloudEvent("1", "/x", "c"))
    assert EventSource().matches(CloudEvent("1", "/y", "c"))


def test_the_spec() -> None:
    assert parse() == EventSource()
    found = parse(types=["a.*"], sources=["/x"], auth={"type": "none"})
    assert found.types == ("a.*",)
    assert found.sources == ("/x",)
    assert found.auth is not None
    assert found.auth.type == "none"


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"types": [""]}, "types[0]"),
        ({"types": ["a" * 300]}, "types[0]"),
        ({"sources": ["*a*b*c*d*"]}, "sources[0]"),
        ({"types": ["a"] * 65}, "types"),
        ({"auth": {"type": "magic"}}, "auth.type"),
        ({"filter": {}}, "filter"),
    ],
)
def test_faults_name_the_field(source: Any, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse(**source)
    assert [problem.field for problem in refused.value.problems] == [f"spec.source.event.{field}"]
