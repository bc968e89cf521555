"""The connection to NATS: one for the whole gateway, which comes back by itself, and says at once when it is away.

Everything in `events/` that talks to JetStream goes through here, so that an outage is one kind of error.

Publishing has its own reply inbox: nats-py's `js.publish` costs twice as much (measured: 21 against 11 microseconds),
most of it for a timer, a random token and a dataclass per message. Here one sweep looks after all that wait.
"""

import asyncio
import itertools
import json
import logging
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError
from nats.js import JetStreamContext

from kappa_gateway.events.settings import EventSettings

log = logging.getLogger(__name__)

Json = Any
#: A leader of a stream is elected within a few seconds; longer than that is an outage.
PUBLISH_SECONDS: Final = 3.0
SWEEP_SECONDS: Final = 0.5
RECONNECT_SECONDS: Final = 0.25
#: A server that does not answer two of these is away, though the connection stands.
PING_SECONDS: Final = 5
#: What may stand in the connection's buffer: beyond, NATS is too slow for what comes.
MOST_BUFFERED: Final = 32 * 1024 * 1024
#: Replies that may wait to be looked at: never the limit.
MOST_REPLIES: Final = 1_000_000
MSG_ID: Final = "Nats-Msg-Id"
EXPECT_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
API: Final = "$JS.API."

_FULL: Final = frozenset({10077, 10023, 10047})  # maximum bytes, insufficient resources, storage
_CONFLICT: Final = 10071  # the subject has another last sequence than was expected
NOT_FOUND: Final = frozenset({10014, 10037, 10059})  # consumer, message, stream
NO_LEADER: Final = frozenset({10008, 10009, 10118, 10119})  # of the cluster, this server, a stream, a consumer


class UnavailableError(Exception):
    """JetStream did not take or give it: nothing was lost, nothing was accepted. Try again later."""


class UnsureError(UnavailableError):
    """It was sent, and no answer came: JetStream may have taken it. What the message names must be kept."""


class TooLargeError(Exception):
    """The message is larger than the server takes. It will never be taken: do not try again."""


class RefusedError(UnavailableError):
    """JetStream answered with an error. `code`: its `err_code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"JetStream: {message} ({code})")
        self.code = code

    @property
    def full(self) -> bool:
        return self.code in _FULL

    @property
    def conflict(self) -> bool:
        return self.code == _CONFLICT

    @property
    def missing(self) -> bool:
        return self.code in NOT_FOUND


@dataclass(frozen=True, slots=True)
class Receipt:
    """What JetStream says of a message that it has. `duplicate`: it had one with this id already, `seq` is its."""

    seq: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Bus:
    """`keep` is the task that connects. A gateway serves synchronous calls without it.

    `nc` and `js` are replaced when the server ended the connection for good: do not keep them. `heard`: called after
    each connect and reconnect, when `up` is true. `stored`: told subject and size of each message that JetStream took,
    but for repetitions.
    """

    def __init__(self, settings: EventSettings) -> None:
        self.settings = settings
        self.nc = Client()
        self.js: JetStreamContext = self.nc.jetstream(timeout=PUBLISH_SECONDS)
        self.heard: list[Callable[[], None]] = []
        self.stored: Callable[[str, int], None] = lambda subject, size: None
        self.outages = 0
        self._closed = asyncio.Event()
        self._complained = False
        self._inbox = ""  # empty: nobody listens for replies yet
        self._tokens = itertools.count(1)
        self._waiting: dict[str, tuple[asyncio.Future[Receipt], float]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._mute = False  # connected, but the last ones to wait got no reply

    @property
    def up(self) -> bool:
        return self.nc.is_connected and bool(self._inbox)

    # --- the connection -----------------------------------------------------------------------------------------------
    async def keep(self) -> None:
        """Connects, and connects anew whenever the server ended it for good, until cancelled."""
        while True:
            closed = asyncio.Event()
            try:
                await self._connect(closed)
                await closed.wait()
            except (NatsError, OSError, TimeoutError) as error:
                self._complain(error)
            self._inbox = ""
            self._fail_all("the connection to NATS ended")
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _connect(self, closed: asyncio.Event) -> None:
        client = Client()

        async def lost() -> None:
            self.outages += 1
            self._fail_all("the connection to NATS was lost")
            if not self._closed.is_set():
                self._complain("the connection was lost")

        async def back() -> None:
            self._hear()

        async def ended() -> None:
            closed.set()

        async def failed(error: Exception) -> None:
            self._complain(error)

        self.nc, self.js = client, client.jetstream(timeout=PUBLISH_SECONDS)
        await client.connect(
            list(self.settings.urls),
            **self.settings.credentials(),
            name="kappa-gateway",
            connect_timeout=2,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=2,
            pending_size=0,  # what cannot be sent now is refused, not kept for later
            disconnected_cb=lost,
            reconnected_cb=back,
            closed_cb=ended,
            error_cb=failed,
        )
        inbox = client.new_inbox() + "."
        await client.subscribe(inbox + "*", cb=self._replied, pending_msgs_limit=MOST_REPLIES, pending_bytes_limit=0)
        self._inbox = inbox
        self._hear()

    def _hear(self) -> None:
        self._mute = False
        if self._complained:
            log.warning("NATS is back")
            self._complained = False
        for listener in self.heard:
            listener()

    def _complain(self, problem: object) -> None:
        """Once per outage."""
        if not self._complained and not self._closed.is_set():
            self._complained = True
            log.warning("NATS is away, no events and no asynchronous invocations: %s", str(problem) or repr(problem))

    async def close(self) -> None:
        self._closed.set()
        self._fail_all("the gateway ends")
        if self._sweeper is not None:
            self._sweeper.cancel()
        if not self.nc.is_closed:
            await self.nc.close()

    # --- publishing ---------------------------------------------------------------------------------------------------
    async def publish(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, *, msg_id: str = ""
    ) -> Receipt:
        """Returns when the stream has the message. Raises UnavailableError, at once while NATS is away, and
        TooLargeError."""
        if not self.up or (self._mute and self._waiting):
            raise UnavailableError("NATS is away")
        if self.nc.pending_data_size > MOST_BUFFERED:
            raise UnavailableError("NATS is too slow")
        given = dict(headers or {})
        if msg_id:
            given[MSG_ID] = msg_id
        loop = asyncio.get_running_loop()
        token = str(next(self._tokens))
        future: asyncio.Future[Receipt] = loop.create_future()
        self._waiting[token] = (future, loop.time())
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        try:
            await self.nc.publish(subject, body, reply=self._inbox + token, headers=given or None)
            receipt = await future
            if not receipt.duplicate:
                self.stored(subject, len(body))
            return receipt
        except MaxPayloadError as error:
            raise TooLargeError(f"{len(body)} bytes are more than NATS takes in one message") from error
        except (NatsError, ConnectionError) as error:
            raise UnavailableError(f"JetStream did not take it: {error!r}") from error
        finally:
            self._waiting.pop(token, None)

    async def tell(self, subject: str, body: bytes = b"") -> None:
        """Publishes without a reply: acknowledgements, which are repeated when they are lost. Raises nothing."""
        try:
            await self.nc.publish(subject, body)
        except (NatsError, ConnectionError):
            log.debug("could not be said, NATS is away: %s", subject)

    async def _replied(self, message: Msg) -> None:
        self._mute = False
        found = self._waiting.pop(message.subject[len(self._inbox) :], None)
        if found is None or found[0].done():
            return
        future = found[0]
        if not message.data:  # nobody listens: the stream is not there, or has no leader
            future.set_exception(UnavailableError("no stream takes this subject now"))
            return
        answer = json.loads(message.data)
        if error := answer.get("error"):
            future.set_exception(_refused(error))
        else:
            future.set_result(Receipt(answer["seq"], answer.get("duplicate", False)))

    def _sweep(self) -> None:
        """Fails what has waited too long; the oldest stand first."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        late = loop.time() - PUBLISH_SECONDS
        for token, (future, since) in list(self._waiting.items()):
            if since > late:
                break
            del self._waiting[token]
            if not future.done():
                self._mute = True
                future.set_exception(UnsureError(f"no answer of JetStream within {PUBLISH_SECONDS:g} s"))
        if self._waiting:
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)

    def _fail_all(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(UnsureError(why))

    # --- asking -------------------------------------------------------------------------------------------------------
    async def api(self, subject: str, request: Json = None, seconds: float = PUBLISH_SECONDS) -> Json:
        """JetStream's own API, `$JS.API.<subject>`. Raises RefusedError, UnavailableError."""
        answer = await self._ask(API + subject, request, seconds)
        found = json.loads(answer.data)
        if error := found.get("error"):
            raise _refused(error)
        return found

    async def get(self, stream: str, *, seq: int = 0, next_of: str = "", last_of: str = "") -> Stored | None:
        """One message of a stream that allows direct reading, from whichever replica answers: by its number, the first
        of a subject from `seq` on, or the last of a subject. Raises UnavailableError."""
        answer = await self._ask(f"{API}DIRECT.GET.{stream}", _which(seq, next_of, last_of), PUBLISH_SECONDS)
        headers = answer.headers or {}
        if "Nats-Sequence" not in headers:
            if headers.get("Status") == "404":
                return None
            raise UnavailableError(f"{stream}: {headers.get('Description', 'no answer')}")
        return Stored(int(headers["Nats-Sequence"]), headers["Nats-Subject"], answer.data, headers)

    async def newest(self, stream: str, *, seq: int = 0, next_of: str = "", last_of: str = "") -> Stored | None:
        """As `get`, but of the stream's leader: what was written before is seen."""
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", _which(seq, next_of, last_of))
        except RefusedError as error:
            if error.missing:
                return None
            raise
        message = answer["message"]
        headers = _headers(b64decode(message.get("hdrs", "")))
        return Stored(message["seq"], message["subject"], b64decode(message.get("data", "")), headers)

    async def _ask(self, subject: str, request: Json, seconds: float) -> Msg:
        if not self.up:
            raise UnavailableError("NATS is away")
        try:
            body = json.dumps(request).encode() if request is not None else b""
            return await self.nc.request(subject, body, timeout=seconds)
        except NoRespondersError as error:
            raise UnavailableError("JetStream does not answer: it has no leader, or is not switched on") from error
        except (NatsError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"JetStream does not answer: {error!r}") from error


def _refused(error: Mapping[str, Json]) -> RefusedError:
    return RefusedError(int(error.get("err_code", error.get("code", 0))), str(error.get("description", "")))


def _which(seq: int, next_of: str, last_of: str) -> Json:
    if last_of:
        return {"last_by_subj": last_of}
    return {"seq": max(1, seq), "next_by_subj": next_of} if next_of else {"seq": seq}


def _headers(raw: bytes) -> dict[str, str]:
    lines = (line.partition(": ") for line in raw.decode("utf-8", "replace").split("\r\n")[1:] if line)
    return {name: value for name, _, value in lines}
