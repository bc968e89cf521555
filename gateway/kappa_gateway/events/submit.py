"""Accepting an asynchronous invocation: one message in the work stream, and the id under which it is asked for.

The id that callers get is `<work id>-<sequence in base 36>`: the sequence finds work that still waits with one read, so
acceptance writes nothing but the message itself. Only a call with an Idempotency-Key costs two writes more.
"""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import Bus, UnavailableError, UnsureError
from kappa_gateway.events.keys import KeyRecord, Keys
from kappa_gateway.events.work import ASYNC, HttpCall, Lane, Work, new_id

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class MismatchError(Exception):
    """The Idempotency-Key was used before for another method, path or body: 422."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be accepted.

    `function`: `namespace/name`. `body`: all of it, when it is at most `EventSettings.message_bytes`; otherwise
    `pieces` yields it and `body` is empty. `key`: the Idempotency-Key, or empty; `caller`: who asks, as far as it was
    verified: two callers may use the same key. `hops`: see `kappa_gateway.hops`.
    """

    function: str
    call: HttpCall
    body: bytes = b""
    pieces: AsyncIterator[bytes] | None = None
    key: str = ""
    caller: str = ""
    hops: int = 0

    @property
    def lane(self) -> Lane:
        namespace, _, name = self.function.partition("/")
        return Lane(ASYNC, namespace, name)


@dataclass(frozen=True, slots=True)
class Accepted:
    """`id`: what the caller asks with. `replayed`: the key was used before; this is the id it got then."""

    id: str
    replayed: bool = False


class Submit:
    """`poke` is told the lane of what was accepted, so that it is delivered at once."""

    def __init__(
        self,
        bus: Bus,
        bodies: StoredBodies,
        keys: Keys,
        poke: Callable[[Lane], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus, self._bodies, self._keys, self._poke, self._wall = bus, bodies, keys, poke, wall
        self.accepted = 0

    async def accept(self, submission: Submission) -> Accepted:
        """Returns when JetStream has it. Raises UnavailableError (nothing was accepted: 503) and MismatchError; what
        `pieces` raises passes through, and what was stored of them is thrown away."""
        if not self._bus.up:
            raise UnavailableError("NATS is away")
        work = Work(new_id(), int(self._wall() * 1000), submission.body, submission.call, hops=submission.hops)
        if submission.pieces is not None:
            stored = await self._bodies.put(work.id, submission.pieces)
            work, digest = replace(work, stored=stored.name), stored.digest
        elif submission.key:
            digest = hashlib.sha256(submission.body).hexdigest()
        if not submission.key:
            return Accepted(await self._publish(submission.lane, work))
        return await self._once(submission, work, digest)

    async def _once(self, submission: Submission, work: Work, digest: str) -> Accepted:
        """A key that somebody used and whose call was not seen to be accepted is published again under the old id: the
        stream drops it if it has it."""
        call = submission.call
        told = json.dumps([call.method, call.path, digest])
        mine = KeyRecord(work.id, hashlib.sha256(told.encode()).hexdigest())
        name = key_name(submission)
        known = await self._keys.claim(name, mine)
        if known is not None:
            if work.stored and (known.digest != mine.digest or known.seq):
                await self._bodies.drop(work.stored)
            if known.digest != mine.digest:
                raise MismatchError("this Idempotency-Key was used for another call")
            if known.seq:
                return Accepted(public_id(known.id, known.seq), replayed=True)
            work = replace(work, id=known.id)
        found = await self._publish(submission.lane, work)
        await self._keys.settle(name, replace(mine, id=work.id, seq=split_id(found)[1]))
        return Accepted(found, replayed=known is not None)

    async def _publish(self, lane: Lane, work: Work) -> str:
        try:
            receipt = await self._bus.publish(lane.subject, work.body, work.headers(), msg_id=work.id)
        except UnsureError:  # if the stream has it, its body is needed; else the body runs out
            raise
        except UnavailableError:
            if work.stored:
                await self._bodies.drop(work.stored)
            raise
        if receipt.duplicate and work.stored:  # the stream has it with the body of an earlier try
            await self._bodies.drop(work.stored)
        self.accepted += 1
        self._poke(lane)
        return public_id(work.id, receipt.seq)


def key_name(submission: Submission) -> str:
    """Of a key in the bucket: what callers choose does not show, and is no part of a subject."""
    told = json.dumps([submission.function, submission.caller, submission.key])
    return hashlib.sha256(told.encode()).hexdigest()


def public_id(work_id: str, seq: int) -> str:
    digits = ""
    while seq:
        seq, digit = divmod(seq, 36)
        digits = _DIGITS[digit] + digits
    return f"{work_id}-{digits or '0'}"


def split_id(text: str) -> tuple[str, int]:
    """(work id, sequence). Raises ValueError for what never was an id."""
    work_id, _, digits = text.partition("-")
    if len(work_id) != 32 or not set(work_id) <= set("0123456789abcdef") or not 1 <= len(digits) <= 13:
        raise ValueError("not an id of an asynchronous invocation")
    if not set(digits) <= set(_DIGITS):
        raise ValueError("not an id of an asynchronous invocation")
    return work_id, int(digits, 36)
