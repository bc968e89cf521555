"""The end of the process, and calls that are on their way to it at that very moment: none is lost without a word.

The process is stopped (SIGSTOP), so that everything that happens meanwhile comes to it at once, in any order.
"""

from collections.abc import Callable
from typing import Any

import pytest
from kappa_processes import freeze, thaw

HELLO = "def handler(event, context):\n    return 'hello'\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
WAITS = """
def handler(event, context):
    wait_at_gate()
    return "done"
"""


def refused(text: bytes) -> bool:
    """The first answer is a refusal, and the last one ends the connection. (Both may be the same.)"""
    last = text.rpartition(b"HTTP/1.1 ")[2]
    return text.startswith(b"HTTP/1.1 503 ") and b"kappa-refused: draining\r\n" in text and b"connection: close" in last


def frozen(pod: Any, meanwhile: Callable[[], None]) -> None:
    """Does that while the process stands still and has a SIGTERM to find when it goes on."""
    freeze(pod.process.pid)
    meanwhile()
    pod.terminate()
    thaw(pod.process.pid)


def answered(text: bytes) -> bool:
    """A whole answer; if that let the client keep the connection, the end of it is told behind."""
    head, _, rest = text.partition(b'"hello"')
    return head.startswith(b"HTTP/1.1 200 ") and (refused(rest) if rest else b"connection: close" in head)


@pytest.mark.parametrize("drained", [True, False])
@pytest.mark.parametrize("size", [len(POST), 40, len(POST) - 1], ids=["whole", "half a head", "half a body"])
def test_a_call_on_a_kept_connection_is_refused_or_answered(pod, everything, until, size, drained):
    pod.load(HELLO)
    with pod.connect() as kept:
        kept.sendall(POST)
        until(kept, b'"hello"')
        if drained:
            pod.drain()
        frozen(pod, lambda: kept.sendall(POST[:size]))
        kept.sendall(POST[size:])
        text = everything(kept)
    assert refused(text) or (answered(text) and not drained), text
    assert pod.wait() == 0


@pytest.mark.parametrize("drained", [True, False])
def test_calls_on_connections_that_nobody_has_accepted_yet_are_refused_or_answered(pod, everything, drained):
    pod.load(HELLO)
    clients = []

    def call() -> None:
        for _ in range(20):
            clients.append(pod.connect())
            clients[-1].sendall(POST)

    if drained:
        pod.drain()
    frozen(pod, call)
    for client in clients:
        with client:
            text = everything(client)
        assert refused(text) or (answered(text) and not drained), text
    assert pod.wait() == 0


def test_an_idle_connection_is_told_why_it_ends(pod, everything):
    """So a call that crosses with the end finds an answer."""
    pod.load(HELLO)
    with pod.connect() as idle:
        pod.health()
        pod.terminate()
        assert refused(everything(idle))
    assert pod.wait() == 0


def test_a_call_behind_one_that_was_promised_a_kept_connection_is_refused(
    pod, gate, wait_at_gate, background, everything, until
):
    """The head of the reply says keep-alive; then the process is told to end; then the reply ends."""
    stream = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"ab", "more_body": True})
    await wait_at_gate_async()
    await send({"type": "http.response.body", "body": b"cd"})
"""
    pod.load(wait_at_gate + stream, "main.app", signature="asgi", env=gate.env)
    with pod.connect() as client:
        client.sendall(POST)
        assert b"connection: close" not in until(client, b"ab")
        gate.arrived()
        pod.terminate()
        while pod.health()["state"] != "draining":
            pass
        gate.open()
        text = everything(client)
    assert text.startswith(b"cd")
    assert refused(text[2:]), text
    assert pod.wait() == 0
