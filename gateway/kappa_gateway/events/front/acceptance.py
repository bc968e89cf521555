"""An asynchronous call: its body goes into JetStream, then its caller has 202 with the id to ask with (RFC 7240).

Route, caller and rates were checked as for any call. The queue's length was not: that is what JetStream is for.
"""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from kappa_api import names
from kappa_gateway.admission import HELD_BODIES, QUEUE_FULL
from kappa_gateway.bodies import Body
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.front.quota import CROWDED_SECONDS
from kappa_gateway.events.front.replies import answer
from kappa_gateway.events.submit import MismatchError, Submission
from kappa_gateway.events.work import ASYNC, HttpCall

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call
    from kappa_gateway.events.engine import Events

#: How long a body may take to come. The function's own timeout is for running it, later.
UPLOAD_SECONDS: Final = 600.0
KEY_HEADER: Final = b"idempotency-key"
MAX_KEY: Final = 255
#: Of path and header lines, as JSON.
MAX_HEAD: Final = 60_000


async def accept(gateway: "Gateway", events: "Events", call: "Call", payload: StreamReader) -> bool:
    """Returns whether the connection may be kept. Raises GatewayError and UnavailableError."""
    request = call.request
    if request.preflight:
        raise GatewayError("cors_refused", "pages may call this function asynchronously only by spec.http.cors")
    assert call.state is not None
    if crowd := events.shares.crowded(ASYNC, call.state.queue.key):
        call.state.counters.reject(QUEUE_FULL)
        raise GatewayError("queue_full", crowd, retry_after=CROWDED_SECONDS)
    call.deadline = call.arrived + UPLOAD_SECONDS
    gateway.deadlines.add(call)
    key = _key(request.lines)
    if payload is not EMPTY_PAYLOAD:
        await _read(gateway, events, call, payload)
    _check_same(gateway, call)
    identity = call.identity
    lines = b"".join((*request.lines, call.extra, gateway.proxy.forwarded(call)))
    assert call.entry is not None
    _check_head(call.path, lines)
    fits = call.body.whole and call.body.size <= events.settings.message_bytes
    submission = Submission(
        function=call.entry.key,
        call=HttpCall(request.method, call.path, lines),
        body=call.body.held if fits else b"",
        pieces=None if fits else _pieces(call.body),
        key=key,
        caller=f"{identity.type}/{identity.principal}" if identity is not None else "",
        hops=request.hops,
    )
    try:
        accepted = await events.submit.accept(submission)
    except MismatchError as error:
        raise GatewayError("key_reused", str(error)) from error
    url = names.ASYNC_PATH + accepted.id
    told = f"location: {url}\r\n"
    if not request.target.startswith(names.ASYNC_PATH):
        told += "preference-applied: respond-async\r\n"
    if accepted.replayed:
        told += "idempotent-replayed: true\r\n"
    # Hexadecimal digits and a number: nothing in it needs what json.dumps costs
    body = f'{{"id": "{accepted.id}", "state": "queued", "url": "{url}"}}'
    return answer(gateway, call, 202, body.encode(), lines=told)


async def _read(gateway: "Gateway", events: "Events", call: "Call", payload: StreamReader) -> None:
    """Takes the body, all of it if it fits into a message."""
    settings, request, entry, state = events.settings, call.request, call.entry, call.state
    assert entry is not None
    assert state is not None
    most = min(entry.max_body or settings.stored_bytes, settings.stored_bytes)
    call.body = gateway.bodies.make(request, payload, most, state)
    try:
        large = request.length > settings.message_bytes  # it flows anyway: little of it is to be in memory
        await gateway.bodies.hold(call.body, call.client, request, 0 if large else settings.message_bytes)
    except GatewayError as failure:
        if failure.code == "overloaded":
            state.counters.reject(HELD_BODIES)
        raise


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    """The whole body. Raises GatewayError when the rest does not come, or is too much."""
    yield body.held
    body.started = True
    while not body.whole:
        piece = await body.read()
        if not piece:
            body.whole = True
            return
        yield piece


def _check_head(path: str, lines: bytes) -> None:
    """JetStream takes no more than 64 KiB of a message's headers; there path and lines stand as JSON. Raises
    GatewayError."""
    if len(path) + len(lines) > MAX_HEAD // 8 and len(json.dumps([path, lines.decode("latin-1")])) > MAX_HEAD:
        raise GatewayError("headers_too_large", f"an asynchronous call has at most {MAX_HEAD} bytes of headers")


def _check_same(gateway: "Gateway", call: "Call") -> None:
    """The function may have been deleted or replaced while the body came; another one's rules never let this caller in.
    Raises GatewayError."""
    assert call.state is not None
    before = call.entry
    if call.state.entry is before:
        return
    call.state, call.entry = gateway.known(call.state.queue.key)
    if before is None or call.entry.version[0] != before.version[0]:
        raise GatewayError("not_ready", "the function was replaced while the body came")


def _key(lines: list[bytes]) -> str:
    """The Idempotency-Key, or an empty string. Raises GatewayError."""
    found = ""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == KEY_HEADER:
            if found:
                raise GatewayError("bad_request", "more than one Idempotency-Key header")
            found = value.strip().decode("latin-1")
            if not 0 < len(found) <= MAX_KEY:
                raise GatewayError("bad_request", f"an Idempotency-Key has 1 to {MAX_KEY} characters")
    return found
