"""What the gateway reads out of `Prefer` (RFC 7240), and what of it the function still sees."""

import pytest
from kappa_auth_world import request


@pytest.mark.parametrize(
    ("sent", "later", "wait", "passed"),
    [
        ("respond-async", True, 0, ""),
        ("Respond-Async", True, 0, ""),
        ("respond-async; x=1", True, 0, ""),
        ("respond-async, wait=10", True, 10, "wait=10"),
        ('return=minimal, respond-async, foo="a, b"', True, 0, 'return=minimal, foo="a, b"'),
        ('foo="x, respond-async"', False, 0, 'foo="x, respond-async"'),
        ("wait=5", False, 5, "wait=5"),
        ('wait="5"', False, 5, 'wait="5"'),
        ("wait=-5", False, 0, "wait=-5"),
        ("wait=9999999", False, 0, "wait=9999999"),
        ("respond-asynchronously", False, 0, "respond-asynchronously"),
        ("", False, 0, ""),
        (",,", False, 0, ""),
        ('"', False, 0, ""),
    ],
)
def test_preferences(sent: str, later: bool, wait: float, passed: str) -> None:
    found = request(f"Prefer: {sent}")
    assert (found.later, found.wait) == (later, wait)
    lines = [line for line in found.lines if line.lower().startswith(b"prefer")]
    assert b"".join(lines) == (f"Prefer: {passed}\r\n".encode() if passed else b"")


def test_two_fields() -> None:
    found = request("prefer: wait=3", "Prefer: respond-async")
    assert (found.later, found.wait) == (True, 3)


def test_a_websocket_cannot_be_had_later() -> None:
    assert not request("prefer: respond-async", "connection: upgrade", "upgrade: websocket").later


def test_the_pod_is_the_gateways_to_know() -> None:
    found = request("kappa-pod: default/p", "kappa_pod: default/q")
    assert found.pod == b"default/p"
    assert not any(b"pod" in line for line in found.lines)
