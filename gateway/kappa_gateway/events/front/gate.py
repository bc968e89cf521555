"""Who may post events to a namespace: its own pods, and besides whom a Trigger's `source.event.auth` lets in.

A pod says which one it is in `kappa-pod` and sends the token that its runtime was given; it must still be there
(`pods.py`). Everybody else is asked by each Trigger that is open to others; whoever opens none is turned away, whether
there are Triggers or not.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kappa_api import names
from kappa_api.keyring import Keyring
from kappa_api.tokens import accepts
from kappa_api.trigger import Trigger
from kappa_gateway import caller_keys
from kappa_gateway.auth import refusals
from kappa_gateway.auth.failures import DENIED
from kappa_gateway.auth.guard import Access
from kappa_gateway.auth.identity import Identity
from kappa_gateway.errors import GatewayError
from kappa_gateway.events.front.pods import Pods
from kappa_gateway.headers import Field
from kappa_gateway.request import Request
from kappa_gateway.routes import Entry

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call

MOST_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Door:
    """A Trigger that a request may feed; `caller`: on whose account it does (`caller_keys`)."""

    trigger: Trigger
    caller: bytes


class Gate:
    """Keeps what verifiers remember, per Trigger."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._accesses: dict[str, tuple[int, Access]] = {}
        self._pods = Pods(gateway.catalog.has_pod, self._kube, gateway.clock)

    async def admitted(self, call: "Call", namespace: str, triggers: Sequence[Trigger]) -> Sequence[Door]:
        """Those that the caller may feed: at least one, or for a pod of the namespace all. Raises GatewayError."""
        realm = f"{namespace}/events"
        call.entry = Entry(key=realm, created="", timeout=0.0, concurrency=1)
        now = self._gateway.clock()
        attempt = self._gateway.failures.begin(call, now)
        failed: bool | None = True  # also whoever leaves before the answer
        try:
            found = await self._ask(call, namespace, triggers)
            failed = False
            return found
        except GatewayError as failure:
            failed = True if failure.code in DENIED and call.request.credentials else None
            raise
        finally:
            self._gateway.failures.end(attempt, self._gateway.clock(), failed)

    async def _ask(self, call: "Call", namespace: str, triggers: Sequence[Trigger]) -> Sequence[Door]:
        realm, request = f"{namespace}/events", call.request
        if request.pod:
            if not is_pod(self._gateway.settings.keys, request, namespace):
                raise refusals.invalid(realm, f"this is not the token of a pod of the namespace {namespace}")
            if not await self._pods.there(request.pod.decode("latin-1")):
                raise refusals.invalid(realm, "the pod of this token is gone")
            pod = caller_keys.by_identity(f"pod/{request.pod.decode('latin-1')}")
            return [Door(trigger, pod) for trigger in triggers]
        refused: GatewayError | None = None
        found = []
        for trigger in triggers:
            if trigger.source.auth is None:
                continue
            try:
                identity = await self._verify(request, trigger)
                found.append(Door(trigger, self._gateway.admission.caller(call, identity)))
            except GatewayError as failure:
                if refused is None or failure.code not in DENIED:
                    refused = failure
        if found:
            return found
        wanted = "the token of one of its pods, or what source.event.auth of a Trigger asks for"
        raise refused or refusals.missing(realm, wanted, "this namespace")

    def _kube(self) -> Any:
        return self._gateway.events.host.kube if self._gateway.events is not None else None

    async def _verify(self, request: Request, trigger: Trigger) -> Identity | None:
        """Who it is; None where everybody may post."""
        access = self._access(trigger)
        if access.auth.type == "none":
            return None
        verifier = access.verifier or self._gateway.guard.bind(trigger.key, access, names.TRIGGER_PLURAL)
        if (known := verifier.known(request)) is not None:
            return known
        try:
            async with asyncio.timeout(self._gateway.settings.auth.wait_seconds):
                return await verifier.verify(request)
        except TimeoutError as error:
            raise refusals.unavailable("who you are could not be checked in time") from error

    def _access(self, trigger: Trigger) -> Access:
        known = self._accesses.get(trigger.uid)
        if known is not None and known[0] == trigger.generation:
            return known[1]
        if len(self._accesses) >= MOST_REMEMBERED:
            self._accesses.clear()  # Triggers come and go: what verifiers remember is soon found out again
        access = Access(trigger.source.auth, None)
        self._accesses[trigger.uid] = (trigger.generation, access)
        return access


def is_pod(keys: Keyring, request: Request, namespace: str) -> bool:
    """Whether the request carries the token of the pod that it names, and that is one of the namespace."""
    where, _, pod = request.pod.decode("latin-1").partition("/")
    sent = [value for kind, value, _ in request.credentials if kind is Field.AUTHORIZATION]
    if len(sent) != 1 or not pod or where != namespace:
        return False
    found = [accepts(token, sent[0].decode("latin-1")) for token in keys.for_pod(where, pod)]
    return any(found)
