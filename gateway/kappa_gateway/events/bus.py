"""The connection to NATS: one for the whole gateway, which comes back by itself, and says at once when it is away.

Everything in `events/` that talks to JetStream goes through here, so that an outage is one kind of error.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from kappa_gateway.events.settings import EventSettings

log = logging.getLogger(__name__)

#: A leader of a stream is elected within a few seconds; longer than that is an outage.
PUBLISH_SECONDS: Final = 3.0
RECONNECT_SECONDS: Final = 0.5
MSG_ID: Final = "Nats-Msg-Id"


class UnavailableError(Exception):
    """JetStream did not take or give it: nothing was lost, nothing was accepted. Try again later."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What JetStream says of a message that it has. `duplicate`: it had one with this id already, `seq` is its."""

    seq: int
    duplicate: bool = False


class Bus:
    """`connect` does not wait for NATS: a gateway serves synchronous calls without it."""

    def __init__(self, settings: EventSettings) -> None:
        self.settings = settings
        self.nc = Client()
        self.js: JetStreamContext = self.nc.jetstream(timeout=PUBLISH_SECONDS)

    @property
    def up(self) -> bool:
        return self.nc.is_connected

    async def publish(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, *, msg_id: str = ""
    ) -> Receipt:
        """Returns when the stream has the message. Raises UnavailableError at once while NATS is away."""
        if not self.nc.is_connected:
            raise UnavailableError("NATS is away")
        given = dict(headers or {})
        if msg_id:
            given[MSG_ID] = msg_id
        try:
            ack = await self.js.publish(subject, body, headers=given or None, timeout=PUBLISH_SECONDS)
        except (NatsError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"JetStream did not take it: {error!r}") from error
        return Receipt(ack.seq, bool(ack.duplicate))

    async def close(self) -> None:
        if not self.nc.is_closed:
            await self.nc.close()
