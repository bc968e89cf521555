"""JetStream in memory and virtual time, as far as the delivery uses it: pull consumers, acknowledgement, redelivery.

`FakeNats` is the server, `FakeBus` one gateway's connection to it. Whatever the delivery asks for that a real server
would refuse is an error here.
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.errors import OutboundBufferLimitError

from kappa_gateway.events.bus import API, Receipt, Stored, UnavailableError
from kappa_gateway.events.settings import EventSettings

Json = Any
ACK_PREFIX = "$JS.ACK.KAPPA_WORK."


@dataclass
class FakeMessage:
    """What nats-py hands to callbacks."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str]


@dataclass
class Kept:
    """A message of the work stream."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]
    stamp: float


@dataclass
class Consumer:
    """`out`: until when each message is somebody's; `given`: how often it was handed out."""

    name: str
    subject: str
    created: float
    most_pending: int
    out: dict[int, float] = field(default_factory=dict)
    given: dict[int, int] = field(default_factory=dict)
    requests: list[list[Any]] = field(default_factory=list)  # [left, until, bus, reply]


class FakeNats:
    """`away`: nobody can reach it. Time is the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ack_seconds: float = 15.0) -> None:
        self.loop, self.ack_seconds, self.away = loop, ack_seconds, False
        self.work: dict[int, Kept] = {}
        self.results: dict[str, bytes] = {}
        self.dead: dict[str, Kept] = {}
        self.consumers: dict[str, Consumer] = {}
        self._seq = itertools.count(1)
        self._known: dict[str, int] = {}

    # --- what a gateway does ------------------------------------------------------------------------------------------
    def publish(self, subject: str, body: bytes, headers: dict[str, str], msg_id: str) -> Receipt:
        if subject.startswith("kappa.work."):
            if msg_id in self._known:
                return Receipt(self._known[msg_id], True)
            seq = next(self._seq)
            self._known[msg_id] = seq
            self.work[seq] = Kept(seq, subject, body, headers, self.loop.time())
            self.loop.call_soon(self.serve)
            return Receipt(seq)
        if subject.startswith("kappa.result."):
            self.results[subject] = body
            return Receipt(1)
        assert subject.startswith("kappa.dead."), subject
        duplicate = msg_id in self.dead
        self.dead.setdefault(msg_id, Kept(len(self.dead) + 1, subject, body, headers, self.loop.time()))
        return Receipt(1, duplicate)

    def acknowledge(self, subject: str, body: bytes) -> None:
        name, given, seq = subject.removeprefix(ACK_PREFIX).split(".")[:3]
        consumer, number = self.consumers.get(name), int(seq)
        if consumer is None or number not in consumer.out:
            return
        if body == b"+ACK":
            consumer.out.pop(number)
            self.work.pop(number, None)
        elif body == b"+WPI":
            consumer.out[number] = self.loop.time() + self.ack_seconds
        elif body.startswith(b"-NAK") and int(given) == consumer.given[number]:
            delay = json.loads(body[5:])["delay"] / 1e9 if len(body) > 4 else 0.0
            consumer.out[number] = self.loop.time() + delay
        else:
            assert body.startswith(b"-NAK"), body
        self.loop.call_soon(self.serve)

    def create(self, name: str, config: Json) -> Json:
        known = self.consumers.get(name)
        if known is None:
            known = Consumer(name, config["filter_subject"], self.loop.time(), config["max_ack_pending"])
            self.consumers[name] = known
        return {"created": datetime.fromtimestamp(known.created, UTC).isoformat()}

    def ask(self, name: str, request: Json, bus: "FakeBus", reply: str) -> None:
        consumer = self.consumers[name]
        consumer.requests.append([request["batch"], self.loop.time() + request["expires"] / 1e9, bus, reply])
        self.loop.call_soon(self.serve)

    def forget(self, bus: "FakeBus") -> None:
        """The connection of a gateway is gone, and its requests with it."""
        for consumer in self.consumers.values():
            consumer.requests = [request for request in consumer.requests if request[2] is not bus]

    # --- what the server does -----------------------------------------------------------------------------------------
    def serve(self) -> None:
        """Hands out what is nobody's. To be called when time has passed."""
        if self.away:
            return
        now = self.loop.time()
        for consumer in self.consumers.values():
            consumer.requests = [request for request in consumer.requests if request[1] > now]
            pending = sum(1 for seq, until in consumer.out.items() if until > now or seq in consumer.out)
            for kept in list(self.work.values()):
                if not consumer.requests:
                    break
                if kept.subject != consumer.subject or consumer.out.get(kept.seq, now) > now:
                    continue
                if kept.seq not in consumer.out and pending >= consumer.most_pending:
                    continue
                pending += kept.seq not in consumer.out
                self._hand(consumer, kept, now)

    def _hand(self, consumer: Consumer, kept: Kept, now: float) -> None:
        request = consumer.requests[0]
        request[0] -= 1
        if not request[0]:
            consumer.requests.pop(0)
        consumer.requests.append(consumer.requests.pop(0)) if consumer.requests else None
        given = consumer.given[kept.seq] = consumer.given.get(kept.seq, 0) + 1
        consumer.out[kept.seq] = now + self.ack_seconds
        reply = f"{ACK_PREFIX}{consumer.name}.{given}.{kept.seq}.1.{int(kept.stamp * 1e9)}.0"
        message = FakeMessage(kept.subject, reply, kept.data, dict(kept.headers))
        self.loop.create_task(request[2].callback(message))


class FakeBus:
    """What `Bus` offers the delivery. It is also its own `nc`."""

    def __init__(self, server: FakeNats) -> None:
        self.server, self.settings = server, EventSettings(ack_seconds=server.ack_seconds)
        self.callback: Callable[[Any], Awaitable[None]] = _nobody
        self.nc = self

    @property
    def up(self) -> bool:
        return not self.server.away

    def _reach(self) -> None:
        if self.server.away:
            raise UnavailableError("away")

    # --- as Bus -------------------------------------------------------------------------------------------------------
    async def publish(  # type: ignore[no-untyped-def]
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, *, msg_id: str = "", reply: str = ""
    ):
        if reply:  # as nats-py's: a request for messages
            name = subject.removeprefix(f"{API}CONSUMER.MSG.NEXT.KAPPA_WORK.")
            if self.server.away:
                raise OutboundBufferLimitError
            self.server.ask(name, json.loads(body), self, reply)
            return None
        await asyncio.sleep(0)
        self._reach()
        return self.server.publish(subject, body, dict(headers or {}), msg_id)

    async def tell(self, subject: str, body: bytes = b"") -> None:
        if not self.server.away:
            self.server.acknowledge(subject, body)

    async def newest(self, stream: str, *, seq: int = 0, next_of: str = "", last_of: str = "") -> Stored | None:
        await asyncio.sleep(0)
        self._reach()
        assert stream == "KAPPA_RESULTS"
        data = self.server.results.get(last_of)
        return Stored(1, last_of, data) if data is not None else None

    async def api(self, subject: str, request: Json = None, seconds: float = 3.0) -> Json:
        await asyncio.sleep(0)
        self._reach()
        if subject.startswith("CONSUMER.CREATE.KAPPA_WORK."):
            return self.server.create(subject.split(".")[3], request["config"])
        assert subject == "STREAM.PURGE.KAPPA_RESULTS", subject
        self.server.results.pop(request["filter"], None)
        return {}

    # --- as nats-py's client ------------------------------------------------------------------------------------------
    def new_inbox(self) -> str:
        return "_INBOX.fake"

    async def subscribe(self, subject: str, cb: Callable[[Any], Awaitable[None]], **_: Any) -> Any:
        self.callback = cb
        return self

    async def unsubscribe(self) -> None:
        self.server.forget(self)


async def _nobody(message: Any) -> None:
    raise AssertionError("a message for nobody")
