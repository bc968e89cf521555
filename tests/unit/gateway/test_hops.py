"""The number of hops: what is read as one, where it stands on messages of NATS, and when it is too large."""

import json

import pytest

from kappa_api.cloudevents import CloudEvent
from kappa_gateway import hops
from kappa_gateway.events import settings
from kappa_gateway.events.delivery.circle import circle
from kappa_gateway.events.delivery.target import Target
from kappa_gateway.events.sources.nats_messages import cloud_event, plain_event
from kappa_gateway.events.work import EVENT_CALL, HttpCall, Work


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("0", 0),
        ("7", 7),
        ("007", 7),
        ("-1", 0),
        ("+1", 0),
        (" 1", 0),
        ("1.5", 0),
        ("one", 0),
        ("²", 0),
        ("٣", 0),
        ("1_0", 0),
        ("9" * 5000, 999999),
    ],
)
def test_reading(text: str, number: int) -> None:
    assert hops.read(text) == number
    assert hops.read(text.encode()) == number


def test_an_instance_is_told_what_it_causes() -> None:
    assert (hops.line(0), hops.line(16)) == (b"kappa-hops: 1\r\n", b"kappa-hops: 17\r\n")


def test_what_is_too_far() -> None:
    assert [hops.looped(n, 3) for n in range(8)] == [False, False, False, False, True, False, True, True]
    assert not any(hops.looped(n, 0) for n in range(100))
    assert [hops.may_tell(n, 3) for n in range(8)] == [n == 4 for n in range(8)]


def test_a_chain_that_tells_of_its_end_ends() -> None:
    """Whatever work does when it is stopped or has run, each thing that it causes is one farther: from some number on
    nothing runs and nothing is told."""
    for most in (1, 2, 16):
        assert all(hops.looped(n, most) and not hops.may_tell(n, most) for n in range(most + 3, most + 100))


TEMPLATE = CloudEvent(id="1", source="/nats/x", type="m", extensions={"sequence": "5"})


@pytest.mark.parametrize(
    ("headers", "number"), [({}, 0), ({"kappa-hops": "4"}, 4), ({"Kappa-Hops": "4"}, 4), ({"kappa-hops": "x"}, 0)]
)
def test_messages_of_nats(headers: dict[str, str], number: int) -> None:
    event = plain_event(TEMPLATE, headers, b"text")
    assert hops.of_event(event) == number
    assert event.extensions["sequence"] == "5"
    whole = {"content-type": "application/cloudevents+json"}
    body = json.dumps({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}).encode()
    found = cloud_event({**headers, **whole}, body)
    assert found is not None
    assert hops.of_event(found) == number
    found = cloud_event({**headers, "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}, b"")
    assert found is not None
    assert hops.of_event(found) == number


def test_an_outcome_is_one_farther() -> None:
    event = CloudEvent(id="1", source="/s", type="t", extensions=hops.caused(3))
    assert hops.of_event(CloudEvent.from_json(event.to_json())) == 4


def test_it_stands_in_the_works_headers() -> None:
    work = Work("w", 1, b"{}", hops=3)
    assert Work.read(work.headers(), b"{}") == work
    assert Work("w", 1, b"{}").headers() == {"Kappa-Work": "1 w"}  # nothing for the most of it


def test_who_caused_it_is_named_where_that_is_known() -> None:
    target = Target("default/f")
    body = json.dumps({"source": "/fn/default/g\n"}).encode()
    for call in (None, EVENT_CALL):
        outcome = circle(Work("w", 1, body, call, hops=17), target, 16)
        assert (outcome.code, outcome.reason) == ("loop", "loop")
        assert "default/f was not called" in outcome.message
        assert "caused by /fn/default/g\\n;" in outcome.message
    for work in (
        Work("w", 1, body, HttpCall("POST", "/", b""), hops=17),  # its body is the caller's own
        Work("w", 1, b"[]", hops=17),
        Work("w", 1, b'{"source": 1}', hops=17),
        Work("w", 1, b"\xff", hops=17),
    ):
        assert "caused by" not in circle(work, target, 16).message


def test_the_setting() -> None:
    assert settings.load({}).max_hops == 16
    assert settings.load({"KAPPA_MAX_HOPS": "0"}).max_hops == 0
    with pytest.raises(ValueError, match="KAPPA_MAX_HOPS"):
        settings.load({"KAPPA_MAX_HOPS": "-1"})
