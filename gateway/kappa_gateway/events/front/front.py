"""Which of the platform's own paths a request is for, and what they share: whether there is a JetStream to speak to.

A route of a Function that names its host wins over these paths; one for any host does not.
"""

from typing import TYPE_CHECKING, Final

from aiohttp.streams import StreamReader

from kappa_api import names
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.bus import TooLargeError, UnavailableError
from kappa_gateway.events.front.acceptance import accept
from kappa_gateway.events.front.hooks import Hooks
from kappa_gateway.events.front.invocations import Invocations
from kappa_gateway.events.front.publish import Publish
from kappa_gateway.routes import check_path, split_function_path

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call
    from kappa_gateway.events.engine import Events

PATHS: Final = (names.ASYNC_PATH, names.EVENTS_PATH, names.HOOKS_PATH)


class Front:
    """One per gateway."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._invocations = Invocations(gateway)
        self._publish = Publish(gateway)
        self._hooks = Hooks(gateway)

    def route(self, call: "Call", path: str) -> bool:
        """Whether a request whose path begins with one of PATHS is for the platform. `path` is without the query.

        `/async/<namespace>/<name>` is a call of the function: its entry is found. Raises GatewayError.
        """
        request = call.request
        if self._gateway.catalog.routes.names_host(request.host_name, request.method, path):
            return False
        if path.startswith(names.ASYNC_PATH) and path.find("/", len(names.ASYNC_PATH)) >= 0:
            if request.websocket:
                raise GatewayError("bad_request", "a WebSocket cannot be had later: use /fn/", close=True)
            key, call.path = split_function_path(request.target, names.ASYNC_PATH)
            check_path(call.path)
            call.state, call.entry = self._gateway.known(key)
            call.extra = call.entry.prefix_line
            call.deadline = call.arrived + call.entry.timeout
            request.later = True
        return True

    async def accept(self, call: "Call", payload: StreamReader) -> bool:
        """Puts the call into JetStream and answers 202. Returns whether the connection may be kept."""
        try:
            return await accept(self._gateway, self._events(), call, payload)
        except UnavailableError as error:
            raise _away() from error
        except TooLargeError as error:
            raise _too_large() from error

    async def serve(self, call: "Call", payload: StreamReader) -> bool:
        """A request to one of PATHS that is no call of a function. Returns whether the connection may be kept."""
        path = call.request.target.partition("?")[0]
        events = self._events()
        try:
            if path.startswith(names.ASYNC_PATH):
                return await self._invocations.serve(events, call, payload, path[len(names.ASYNC_PATH) :])
            if path.startswith(names.EVENTS_PATH):
                return await self._publish.serve(events, call, payload, path[len(names.EVENTS_PATH) :])
            return await self._hooks.serve(events, call, payload, path[len(names.HOOKS_PATH) :])
        except UnavailableError as error:
            raise _away() from error
        except TooLargeError as error:
            raise _too_large() from error
        finally:
            call.body.close()

    def _events(self) -> "Events":
        events = self._gateway.events
        if events is None:
            raise GatewayError(
                "events_off", f"this installation has no NATS: set {names.ENV_NATS_URL} (chart value nats.enabled)"
            )
        if not events.bus.up:
            raise GatewayError("events_away", "NATS is away: nothing was accepted")
        return events


def _away() -> GatewayError:
    """What an error says of JetStream is for whoever runs it, not for callers."""
    return GatewayError("events_away", "JetStream does not take it now: nothing was accepted")


def _too_large() -> GatewayError:
    return GatewayError("body_too_large", "this installation's NATS takes no message of this size")
