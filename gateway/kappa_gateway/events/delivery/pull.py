"""Fetching work: one inbox for the whole gateway, one durable pull consumer per lane, requests sent ahead.

nats-py's `fetch` costs two to three times as much per message (measured: 22 against 8 microseconds) and sends two
requests where a lane is quiet. Here a lane asks for as many messages as it can take, and they come by themselves.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from kappa_gateway.events.bus import API, MOST_REPLIES, Bus, UnavailableError
from kappa_gateway.events.streams import WORK
from kappa_gateway.events.work import Lane

log = logging.getLogger(__name__)

ACK: Final = b"+ACK"
IN_PROGRESS: Final = b"+WPI"
NAK: Final = b"-NAK"
#: A consumer that nobody asks for so long is forgotten by JetStream, with what it knew of deliveries.
INACTIVE_SECONDS: Final = 600
#: How long a request stands at the server. A gateway that dies takes its requests with it.
EXPIRES_SECONDS: Final = 30.0
#: How often JetStream says that a request still stands, and after how long a silence it does not: its leader died, and
#: the next one knows nothing of it.
HEARTBEAT_SECONDS: Final = 1.5
SILENT_SECONDS: Final = 3.5
#: What one request may bring at most, in bytes: that much a lane may hold beyond what it needs.
MOST_BYTES: Final = 16 * 1024 * 1024
#: Deliveries of one lane under way at all gateways together.
MOST_PENDING: Final = 20_000
_SECOND: Final = 1_000_000_000


@dataclass(slots=True, eq=False)
class Delivery:
    """One message as it was handed to this gateway. `reply`: where it is acknowledged; `delivered`: how often it was
    given out; `stamp`: epoch seconds at which the stream got it."""

    seq: int
    delivered: int
    stamp: float
    reply: str
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Msg) -> "Delivery":
        tokens = message.reply.split(".")
        at = 4 if len(tokens) == 9 else 6  # later servers put their domain and account before the stream
        return cls(
            seq=int(tokens[at + 1]),
            delivered=int(tokens[at]),
            stamp=int(tokens[at + 3]) / _SECOND,
            reply=message.reply,
            data=message.data,
            headers=message.headers or {},
        )


@dataclass(slots=True)
class _Request:
    """`left`: still to come. `until`, `heard`: when it ends, and when JetStream spoke of it last; the loop's clock."""

    left: int
    until: float
    heard: float


class Pull:
    """The requests of one lane. `took`: gets each message. `asked`: how many may still come."""

    def __init__(self, pulls: "Pulls", lane: Lane, took: Callable[[Delivery], None]) -> None:
        self._pulls, self.lane, self._took = pulls, lane, took
        self._requests: dict[str, _Request] = {}
        self._numbers = itertools.count(1)
        self._came = 0.0  # when the last message came, by the loop's clock
        self.created = 0.0  # of the consumer, epoch seconds; 0: it is not known to be there
        self.news: Callable[[], None] = lambda: None

    @property
    def asked(self) -> int:
        if not self._requests:
            return 0
        now = asyncio.get_running_loop().time()
        for number, request in list(self._requests.items()):
            silent = now - max(request.heard, self._came) > SILENT_SECONDS
            if silent or request.until < now:
                del self._requests[number]
                self.created = 0.0 if silent else self.created  # to be looked at again
        return self.left

    @property
    def left(self) -> int:
        """As `asked`, without a look at the clock: some may not come any more."""
        return sum(request.left for request in self._requests.values())

    async def ensure(self) -> None:
        """The consumer is there. Raises UnavailableError."""
        if self.created:
            return
        name, settings = consumer_name(self.lane), self._pulls.bus.settings
        config = {
            "durable_name": name,
            "name": name,
            "filter_subject": self.lane.subject,
            "ack_policy": "explicit",
            "ack_wait": int(settings.ack_seconds * _SECOND),
            "max_deliver": -1,
            "max_ack_pending": 1 if self.lane.partition else MOST_PENDING,
            "max_waiting": 512,
            "inactive_threshold": INACTIVE_SECONDS * _SECOND,
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        request = {"stream_name": WORK, "config": config}
        found = await self._pulls.bus.api(f"CONSUMER.CREATE.{WORK}.{name}.{self.lane.subject}", request)
        self.created = datetime.fromisoformat(found["created"]).timestamp()

    async def ask(self, count: int) -> None:
        """Asks for that many more. Raises UnavailableError."""
        number = str(next(self._numbers))
        now = asyncio.get_running_loop().time()
        self._requests[number] = _Request(count, now + EXPIRES_SECONDS + 2, now)
        request = {"batch": count, "expires": int(EXPIRES_SECONDS * _SECOND), "max_bytes": MOST_BYTES}
        request["idle_heartbeat"] = int(HEARTBEAT_SECONDS * _SECOND)
        subject = f"{API}CONSUMER.MSG.NEXT.{WORK}.{consumer_name(self.lane)}"
        reply = f"{self._pulls.inbox}{number}.{self.lane.subject}"
        try:
            await self._pulls.bus.nc.publish(subject, json.dumps(request).encode(), reply=reply)
        except (NatsError, ConnectionError) as error:
            self._requests.pop(number, None)
            raise UnavailableError(f"NATS is away: {error!r}") from error

    def forget(self) -> None:
        """The connection was lost: what was asked for may never come."""
        self._requests.clear()
        self.created = 0.0

    def close(self) -> None:
        self._pulls.drop(self)

    def came(self, message: Msg) -> None:
        """Work. It does not say which request brought it: the oldest is served first."""
        self._came = asyncio.get_running_loop().time()
        for number, request in self._requests.items():
            request.left -= 1
            if not request.left:
                del self._requests[number]
            break
        self._took(Delivery.of(message))

    def told(self, number: str, headers: Mapping[str, str]) -> None:
        """Something about a request."""
        status, words = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            if (request := self._requests.get(number)) is not None:
                request.heard = asyncio.get_running_loop().time()
            return
        self._requests.pop(number, None)
        if status in ("404", "503") or (status == "409" and "Consumer" in words):
            self.created = 0.0  # the consumer was deleted, or has no leader
        self.news()


class Pulls:
    """The inbox of all lanes. `listen` must be called after each connect of the bus. `strays`: told a lane for which
    something came that nobody feeds."""

    def __init__(self, bus: Bus, strays: Callable[[Lane], None]) -> None:
        self.bus, self.strays = bus, strays
        self.inbox = ""
        self._pulls: dict[str, Pull] = {}  # by the lane's subject, which is what messages come under
        self._client: object = None
        self._subscription: Subscription | None = None

    def make(self, lane: Lane, took: Callable[[Delivery], None]) -> Pull:
        pull = self._pulls[lane.subject] = Pull(self, lane, took)
        return pull

    def drop(self, pull: Pull) -> None:
        if self._pulls.get(pull.lane.subject) is pull:
            del self._pulls[pull.lane.subject]

    async def listen(self) -> None:
        """Makes the inbox of this connection; a reconnect keeps it. Raises what nats-py raises."""
        for pull in self._pulls.values():
            pull.forget()
        if self._client is self.bus.nc:
            return
        client = self.bus.nc
        self.inbox = client.new_inbox() + "."
        self._subscription = await client.subscribe(
            self.inbox + "*.>", cb=self._heard, pending_msgs_limit=MOST_REPLIES, pending_bytes_limit=0
        )
        self._client = client

    async def deafen(self) -> None:
        """What was asked for shall go to other gateways: JetStream sees that nobody listens any more."""
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except NatsError:
                log.debug("NATS is away: its requests end with the connection")
            self._subscription = None

    async def _heard(self, message: Msg) -> None:
        subject = message.subject
        if subject.startswith(self.inbox):
            number, _, lane = subject[len(self.inbox) :].partition(".")
            if (asked := self._pulls.get(lane)) is not None:
                asked.told(number, message.headers or {})
        elif (pull := self._pulls.get(subject)) is not None:
            pull.came(message)
        elif message.reply:  # a request still stood of a lane that was quiet for long
            self.strays(Lane.of(subject))
            if (pull := self._pulls.get(subject)) is not None:
                pull.came(message)
            else:
                await self.bus.tell(message.reply, NAK)


def consumer_name(lane: Lane) -> str:
    """Names of Kubernetes hold no underscore."""
    return "_".join(filter(None, (lane.kind, lane.namespace, lane.name, lane.partition)))


def nak(seconds: float) -> bytes:
    """Not now: again after so long."""
    return NAK if seconds <= 0 else NAK + b' {"delay": %d}' % int(seconds * _SECOND)
