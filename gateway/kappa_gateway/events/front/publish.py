"""`POST /events/<namespace>`: CloudEvents for the namespace's Triggers with `source.event` (HTTP binding 1.0.2).

What is wrong with one event of a batch refuses the whole. What JetStream did not take is to be posted again: events
that it has are known by their source and id, and dropped.
"""

import asyncio
import json
import re
from typing import TYPE_CHECKING, Final

from aiohttp.streams import StreamReader

from kappa_api.cloudevents import CloudEvent, CloudEventError
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.front import binding
from kappa_gateway.events.front.gate import Gate
from kappa_gateway.events.front.intake import Intake
from kappa_gateway.events.front.replies import answer_json
from kappa_gateway.events.triggers import Known

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call
    from kappa_gateway.events.engine import Events

#: Of one request: all of it is parsed at once, and calls wait so long. An event must fit into a message
#: (`EventSettings.message_bytes`).
MAX_BYTES: Final = 1024 * 1024
NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
KIND: Final = "event"


class Publish:
    """See the module."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._gate = Gate(gateway)
        self._intake = Intake(gateway, MAX_BYTES)

    async def serve(self, events: "Events", call: "Call", payload: StreamReader, namespace: str) -> bool:
        """Returns whether the connection may be kept. Raises GatewayError and UnavailableError."""
        request = call.request
        if not NAMESPACE.fullmatch(namespace):
            raise GatewayError("not_found", "events are posted to /events/<namespace>")
        if request.method != "POST":
            raise GatewayError("method_not_allowed", "events are posted", allow="POST")
        host = events.host
        triggers = host.triggers.of_kind(namespace, KIND)
        admitted = await self._gate.admitted(call, namespace, triggers)
        body = await self._intake.read(call, payload, namespace)
        found = _parse(binding.headers_of(request.lines), body, events.settings.message_bytes)
        chosen = [(trigger, [event for event in found if trigger.source.matches(event)]) for trigger in admitted]
        await asyncio.gather(*(host.sink(trigger.key).emit(fit) for trigger, fit in chosen if fit))
        taken = {
            (event.source, event.id)
            for trigger, fit in chosen
            for event in fit
            if _passes(host.triggers.find(trigger.key), event)
        }
        return answer_json(self._gateway, call, 202, {"accepted": len(found), "matched": len(taken)})


def _passes(known: Known | None, event: CloudEvent) -> bool:
    return known is not None and known.filter.passes(event)


def _parse(headers: dict[str, str], body: bytes, most: int) -> tuple[CloudEvent, ...]:
    """Raises GatewayError that says what is wrong with which event."""
    try:
        found = binding.parse(headers, body)
    except binding.MediaTypeError as error:
        raise GatewayError("unsupported_media_type", str(error)) from error
    except CloudEventError as error:
        raise GatewayError("bad_request", str(error)) from error
    for index, event in enumerate(found):
        if len(body) > most // 6 and _size(event) > most:  # a control character takes six bytes in JSON
            raise GatewayError("body_too_large", f"event {index} is larger than {most} bytes")
    return found


def _size(event: CloudEvent) -> int:
    """As it stands in the stream."""
    return len(json.dumps(event.to_json(), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"))
