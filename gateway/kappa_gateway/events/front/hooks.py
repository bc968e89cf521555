"""`/hooks/<namespace>/<trigger>[/rest]`: what other systems post. The Trigger's kind of source checks who it is from
and understands it; here it is read, and its events are put into JetStream before it is answered."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aiohttp.streams import StreamReader

from kappa_gateway.errors import GatewayError
from kappa_gateway.events.front.binding import headers_of
from kappa_gateway.events.front.intake import Intake
from kappa_gateway.events.front.replies import answer
from kappa_gateway.events.source import Inbound, Receiver

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call
    from kappa_gateway.events.engine import Events

MAX_BYTES: Final = 1024 * 1024


class Hooks:
    """`wall`: epoch seconds, as signatures with a time in them need."""

    def __init__(self, gateway: "Gateway", wall: Callable[[], float] = time.time) -> None:
        self._gateway, self._wall = gateway, wall
        self._intake = Intake(gateway, MAX_BYTES)

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
        body = await self._intake.read(call, payload, namespace)
        inbound = Inbound(
            method=request.method,
            path=slash + tail,
            query=request.target.partition("?")[2],
            headers=headers_of(request.lines),
            body=body,
            now=self._wall(),
        )
        reply = receive(trigger, inbound, host.secret(trigger))
        if reply.events:
            await host.sink(key).emit(reply.events)
        return answer(self._gateway, call, reply.status, reply.body, content_type=reply.content_type)
