"""`POST /events/<namespace>`: CloudEvents for the namespace's Triggers with `source.event` (HTTP binding 1.0.2).

What is wrong with one event of a batch refuses the whole. What JetStream did not take is to be posted again: events
that it has are known by their source and id, and dropped. The rates of one Trigger refuse the whole, too: an event is
accepted for all who want it or for nobody, so that who posts it again does so for all of them.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from aiohttp.streams import StreamReader

from kappa_api.cloudevents import CloudEvent, CloudEventError
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.front import binding
from kappa_gateway.events.front.gate import Door, Gate
from kappa_gateway.events.front.intake import Intake
from kappa_gateway.events.front.quota import Quota
from kappa_gateway.events.front.replies import answer_json
from kappa_gateway.events.json_text import MOST_BYTES, Aside, TooManyError
from kappa_gateway.events.rates import Claim

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call
    from kappa_gateway.events.engine import Events

NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
KIND: Final = "event"


class Publish:
    """See the module."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._gate = Gate(gateway)
        self._intake = Intake(gateway, MOST_BYTES)
        self._aside = Aside()
        self._quota = Quota(gateway)

    async def serve(self, events: "Events", call: "Call", payload: StreamReader, namespace: str) -> bool:
        """Returns whether the connection may be kept. Raises GatewayError and UnavailableError."""
        request = call.request
        if not NAMESPACE.fullmatch(namespace):
            raise GatewayError("not_found", "events are posted to /events/<namespace>")
        if request.method != "POST":
            raise GatewayError("method_not_allowed", "events are posted", allow="POST")
        host = events.host
        triggers = host.triggers.of_kind(namespace, KIND)
        doors = await self._gate.admitted(call, namespace, triggers)
        headers = binding.headers_of(request.lines)
        self._quota.early(events, [Claim(door.trigger.key, door.caller) for door in _likely(headers, doors)])
        body = await self._intake.read(call, payload, namespace)
        found = await self._aside.run(len(body), lambda: _parse(headers, body))
        claims, offers, taken = [], [], set()
        for door in doors:
            fit = [event for event in found if door.trigger.source.matches(event)]
            known = host.triggers.find(door.trigger.key)
            if not fit or known is None:
                continue
            offers.append((door.trigger.key, fit))
            if kept := [event for event in fit if known.filter.passes(event)]:
                claims.append(Claim(door.trigger.key, door.caller, len(kept)))
                taken |= {(event.source, event.id) for event in kept}
        self._quota.take(events, claims)
        await asyncio.gather(*(host.sink(key, request.hops).emit(fit) for key, fit in offers))
        return answer_json(self._gateway, call, 202, {"accepted": len(found), "matched": len(taken)})


def _likely(headers: Mapping[str, str], doors: Sequence[Door]) -> Sequence[Door]:
    """Those that may want what comes. In binary mode the headers tell, before the body; otherwise it may be all."""
    type_, source = headers.get("ce-type"), headers.get("ce-source")
    if not type_ or not source or headers.get("content-type", "").strip().lower().startswith("application/cloudevents"):
        return doors
    try:
        told = CloudEvent("", binding.decoded("ce-source", source), binding.decoded("ce-type", type_))
    except CloudEventError:
        return ()  # it is told so with the rest of what is wrong
    return [door for door in doors if door.trigger.source.matches(told)]


def _parse(headers: dict[str, str], body: bytes) -> tuple[CloudEvent, ...]:
    """Raises GatewayError that says what is wrong with which event."""
    try:
        return binding.parse(headers, body)
    except TooManyError as error:
        raise GatewayError("body_too_large", str(error)) from error
    except binding.MediaTypeError as error:
        raise GatewayError("unsupported_media_type", str(error)) from error
    except CloudEventError as error:
        raise GatewayError("bad_request", str(error)) from error
