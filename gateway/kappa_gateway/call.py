"""One invocation on its way through the gateway: what it is, what it holds, and when it must end."""

import asyncio

from kappa_gateway import states
from kappa_gateway.auth.identity import Identity
from kappa_gateway.bodies import NO_BODY, Body
from kappa_gateway.catalog import State
from kappa_gateway.dispatch import Instance
from kappa_gateway.request import Request
from kappa_gateway.routes import Entry
from kappa_gateway.server import Client


class Call:
    """Waits in a `dispatch.Queue`, expires through `deadlines.Deadlines`. Times are of the monotonic clock, in seconds.

    `replied`: the caller has had a first byte of a reply. `cold`: it found the function without any instance.
    """

    __slots__ = (
        "arrived",
        "body",
        "client",
        "cold",
        "cors",
        "deadline",
        "entry",
        "expired",
        "extra",
        "failed",
        "grant",
        "identity",
        "instance",
        "order",
        "path",
        "place",
        "replied",
        "request",
        "request_id",
        "since",
        "state",
        "status",
    )

    def __init__(self, client: Client, request: Request, request_id: bytes, arrived: float) -> None:
        self.client, self.request, self.request_id, self.arrived = client, request, request_id, arrived
        self.deadline = 0.0
        self.place = states.INVOCATION.first  # only the queue moves it
        self.order = 0
        self.since = 0.0
        self.state: State | None = None
        self.entry: Entry | None = None
        self.path = ""  # what the instance sees
        self.extra = b""  # header lines that tell the function how it was reached, and by whom
        self.identity: Identity | None = None  # who calls, where the function asks
        self.cors = b""  # header lines for the reply; empty where the function sets its own
        self.body: Body = NO_BODY
        self.instance: Instance | None = None  # a slot of it is ours
        self.grant: asyncio.Future[None] | None = None
        self.cold = self.expired = self.replied = self.failed = False
        self.status = 0

    def granted(self, now: float) -> None:
        if self.grant is not None and not self.grant.done():
            self.grant.set_result(None)

    def rejected(self, error: Exception) -> None:
        """Waiting is over without an instance."""
        if self.grant is not None and not self.grant.done():
            self.grant.set_exception(error)

    def again(self) -> None:
        """An instance would not have it: it is about to go back to its place in the queue."""

    def expire(self) -> None:
        self.expired = True
        task = self.client.task
        if task is not None:
            task.cancel()

    def __repr__(self) -> str:
        where = f"at {self.instance.key}" if self.instance else self.place
        return f"<Call {self.request_id.decode('latin-1')} {self.request.method} {self.path} {where}>"
