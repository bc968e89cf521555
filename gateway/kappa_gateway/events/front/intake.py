"""Bodies of requests that are for no function: read whole, up to a limit, on the account of a namespace.

So that what one namespace is sent takes no more of the gateway's memory than the bodies of one function may.
"""

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from kappa_gateway.errors import GatewayError
from kappa_gateway.events.json_text import SMALL_BYTES

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call


class Account:
    """What a namespace holds, in bytes."""

    __slots__ = ("__weakref__", "held")

    def __init__(self) -> None:
        self.held = 0


class Intake:
    """`most`: bytes of one body."""

    def __init__(self, gateway: "Gateway", most: int) -> None:
        self._gateway, self._most = gateway, most
        self._accounts: WeakValueDictionary[str, Account] = WeakValueDictionary()

    async def read(self, call: "Call", payload: StreamReader, namespace: str) -> bytes:
        """The whole body. Raises GatewayError: 413 for a larger one, 408 for one that does not come, 503 while there is
        no room for it."""
        if payload is EMPTY_PAYLOAD:
            return b""
        account = self._accounts.get(namespace)
        if account is None:
            account = self._accounts[namespace] = Account()
        bodies = self._gateway.bodies
        call.body = bodies.make(call.request, payload, self._most, account)
        await bodies.hold(call.body, call.client, call.request, self._most)
        more = call.body.size if call.body.size > SMALL_BYTES else 0  # for what is made of it
        if call.body.purse is not None and not call.body.purse.take(more):
            raise GatewayError("overloaded", f"the gateway holds too many large bodies for the namespace {namespace}")
        return call.body.held
