"""`/hooks/<namespace>/<trigger>[/rest]`: what other systems post. The Trigger's kind of source checks who it is from
and understands it; here it is read, and its events are put into JetStream before it is answered."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp.streams import StreamReader

from kappa_gateway.errors import GatewayError
from kappa_gateway.events.front.binding import headers_of
from kappa_gateway.events.front.intake import Intake
from kappa_gateway.events.front.quota import Quota
from kappa_gateway.events.front.replies import answer
from kappa_gateway.events.json_text import MOST_BYTES, Aside, TooManyError
from kappa_gateway.events.rates import Claim
from kappa_gateway.events.source import Inbound, Receiver
from kappa_gateway.events.triggers import Counts

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call
    from kappa_gateway.events.engine import Events

_ASCII: Final = "".join(map(chr, range(128)))

log = logging.getLogger(__name__)

#: So long a notice stands in the Trigger's status.
NOTICE_SECONDS: Final = 3600.0


class Hooks:
    """`wall`: epoch seconds, as signatures with a time in them need."""

    def __init__(self, gateway: "Gateway", wall: Callable[[], float] = time.time) -> None:
        self._gateway, self._wall = gateway, wall
        self._intake = Intake(gateway, MOST_BYTES)
        self._aside = Aside()
        self._quota = Quota(gateway)

    async def serve(self, events: "Events", call: "Call", payload: StreamReader, rest: str) -> bool:
        """Returns whether the connection may be kept. Raises GatewayError and UnavailableError."""
        request = call.request
        namespace, _, after = rest.partition("/")
        name, slash, tail = after.partition("/")
        key = f"{namespace}/{name}"
        host = events.host
        trigger = host.triggers.get(key)
        receive: Receiver | None = getattr(host.module(trigger.kind), "receive", None) if trigger is not None else None
        if trigger is None or receive is None:
            raise GatewayError("not_found", f"no Trigger {key[:120]} is called here")
        if request.websocket:
            raise GatewayError("bad_request", "this is no WebSocket", close=True)
        claim = Claim(key, self._gateway.admission.caller(call, None))
        self._quota.early(events, [claim], brings=request.method not in ("GET", "HEAD"))
        body = await self._intake.read(call, payload, namespace)
        inbound = Inbound(
            method=request.method,
            path=in_ascii(slash + tail),
            query=in_ascii(request.target.partition("?")[2]),
            headers=headers_of(request.lines),
            body=body,
            now=self._wall(),
        )
        secret = host.secret(trigger)
        try:
            reply = await self._aside.run(len(body), lambda: receive(trigger, inbound, secret))
        except TooManyError as error:
            raise GatewayError("body_too_large", str(error)) from error
        known = host.triggers.find(key)
        if kept := sum(known.filter.passes(event) for event in reply.events) if known is not None else 0:
            self._quota.take(events, [replace(claim, count=kept)])
        else:
            self._quota.blame(events, claim)
        if reply.events:
            await host.sink(key, request.hops).emit(reply.events)
        if reply.notice is not None:
            self._note(host.triggers.counts(key), key, reply.notice)
        asked = f"www-authenticate: {reply.challenge}\r\n" if reply.challenge else ""
        return answer(self._gateway, call, reply.status, reply.body, content_type=reply.content_type, lines=asked)

    def _note(self, counts: Counts, key: str, notice: str) -> None:
        """Other gateways do not hear when it has been seen to: so it is not said for ever."""
        if notice and counts.message != notice:
            log.warning("Trigger %s: %s", key, notice)
            asyncio.get_running_loop().call_later(NOTICE_SECONDS, _unless_changed, counts, notice)
        counts.message = notice


def _unless_changed(counts: Counts, notice: str) -> None:
    if counts.message == notice:
        counts.message = ""


def in_ascii(target: str) -> str:
    """A piece of a request's target. Bytes that some clients send as they are become percent-encoded: those that are no
    UTF-8 are half characters here, which cannot be written into an event, nor sent on."""
    return target if target.isascii() else quote(target.encode("utf-8", "surrogateescape"), safe=_ASCII)
