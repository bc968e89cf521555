"""Dead letters: work that was given up, with its cause, kept until somebody looks, sends it again or throws it away.

A dead letter is the original message and headers that tell of its end. Its number is its sequence in the stream.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kappa_gateway.events.bodies import StoredBodies
from kappa_gateway.events.bus import MSG_ID, Bus, RefusedError, Stored
from kappa_gateway.events.listing import listing
from kappa_gateway.events.outcomes.address import shown_text
from kappa_gateway.events.shares import CrowdedError, Shares
from kappa_gateway.events.streams import DEAD, DEAD_PREFIX
from kappa_gateway.events.work import ASYNC, EVENT_CALL, Lane, Work, new_id

Json = Any
CAUSE: Final = "Kappa-Cause"
ATTEMPTS: Final = "Kappa-Attempts"
ERROR: Final = "Kappa-Error"
DEAD_MS: Final = "Kappa-Dead-Ms"
FUNCTION: Final = "Kappa-Function"
REVISION: Final = "Kappa-Revision"
#: A message's headers and body must fit together into what NATS takes.
MOST_ERROR: Final = 2048
MOST_LISTED: Final = 1000


class RevisionError(Exception):
    """The function does not run the revision that a replay asks for."""


@dataclass(frozen=True, slots=True)
class Death:
    """Why work was given up. `function`: `namespace/name`; `revision`: that ran it last, or empty."""

    cause: str
    attempts: int
    error: Mapping[str, Json]
    function: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`seq`: its number; `kind`: of its lane; `name`: of the Function or the Trigger. Times in epoch ms."""

    seq: int
    kind: str
    namespace: str
    name: str
    cause: str
    attempts: int
    error: Mapping[str, Json]
    died: int
    accepted: int
    function: str
    revision: str
    work: Work | None  # None: a message that was never Kappa's
    data: bytes

    @property
    def lane(self) -> Lane:
        return Lane(self.kind, self.namespace, self.name)

    def to_json(self, *, body: bool = False) -> dict[str, Json]:
        """For the admin API. `body`: with the original."""
        found: dict[str, Json] = {
            "seq": self.seq,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "function": self.function,
            "revision": self.revision,
            "id": self.work.id if self.work is not None else "",
            "cause": self.cause,
            "attempts": self.attempts,
            "error": dict(self.error),
            "acceptedMs": self.accepted,
            "deadMs": self.died,
            "bytes": len(self.data) + (self.work.data.size if self.work is not None and self.work.data else 0),
            "hops": self.work.hops if self.work is not None else 0,
        }
        if self.work is not None and self.work.stored:
            found["stored"] = self.work.stored
        if self.work is not None and self.work.destination:
            found["destination"] = shown_text(self.work.destination)
        if body and self.work is not None and self.work.call is not None:
            call = self.work.call
            found |= {"method": call.method, "path": call.path, "headers": call.lines.decode("latin-1").splitlines()}
        if body:
            found["body"] = self.data.decode("utf-8", "replace")
        return found


class Dead:
    """Raises UnavailableError. `poke` is told the lane of what is replayed; `revision`: those that a function runs;
    `share`: percent of the stream that one namespace may fill at most. `counts` has to be asked now and then for that.
    """

    def __init__(
        self,
        bus: Bus,
        bodies: StoredBodies,
        poke: Callable[[Lane], None],
        revision: Callable[[str], set[str]],
        wall: Callable[[], float] = time.time,
        *,
        share: int = 100,
    ) -> None:
        self._bus, self._bodies, self._poke, self._revision, self._wall = bus, bodies, poke, revision, wall
        self.shares = Shares(share, DEAD_PREFIX, "work that was given up")

    async def put(self, lane: Lane, original: Mapping[str, str], data: bytes, death: Death, *, msg_id: str) -> None:
        """Returns when it is kept. The same `msg_id` again makes no second one. CrowdedError: its namespace has too
        many."""
        if problem := self.shares.crowded(lane.kind, lane.key):
            raise CrowdedError(problem)
        text = json.dumps(dict(death.error))
        if len(text) > MOST_ERROR:
            text = json.dumps({key: str(value)[: MOST_ERROR // 12] for key, value in death.error.items()})
        headers = {name: value for name, value in original.items() if name.startswith("Kappa-")}
        headers |= {
            CAUSE: death.cause,
            ATTEMPTS: str(death.attempts),
            ERROR: text,
            DEAD_MS: str(int(self._wall() * 1000)),
            FUNCTION: death.function,
            REVISION: death.revision,
        }
        await self._bus.publish(_subject(lane), data, headers, msg_id=msg_id)

    async def list(
        self, kind: str = "", namespace: str = "", name: str = "", limit: int = 100, after: int = 0
    ) -> list[DeadLetter]:
        """In the order of their numbers, from the one after `after`; an empty field stands for all."""
        subject = DEAD_PREFIX + ".".join(part or "*" for part in (kind, namespace, name))
        found: list[DeadLetter] = []
        while len(found) < min(limit, MOST_LISTED):
            message = await self._bus.newest(DEAD, seq=after + 1, next_of=subject)
            if message is None:
                break
            after = message.seq
            found.append(_letter(message))
        return found

    async def get(self, seq: int) -> DeadLetter | None:
        message = await self._bus.newest(DEAD, seq=seq)
        return _letter(message) if message is not None else None

    async def replay(self, seqs: Sequence[int], *, function: str = "", revision: str = "") -> int:
        """Puts them back as new work, and takes them out of the dead letters; returns how many there were.

        `function`: name of another Function of the namespace: events and calls become asynchronous calls of it.
        `revision`: only if that is what the function runs; RevisionError otherwise, and nothing was replayed.
        """
        letters = [letter for seq in seqs if (letter := await self.get(seq)) is not None and letter.work is not None]
        if revision:
            for letter in letters:
                key = f"{letter.namespace}/{function}" if function else letter.function
                if self._revision(key) != {revision}:
                    running = ", ".join(sorted(self._revision(key))) or "no instance"
                    raise RevisionError(f"{key} does not run revision {revision}: {running}")
        for letter in letters:
            await self._again(letter, function)
        return len(letters)

    async def replay_all(
        self, kind: str = "", namespace: str = "", name: str = "", *, function: str = "", revision: str = ""
    ) -> int:
        """All that match now; what dies meanwhile is left for the next time."""
        total, after, last = 0, 0, await self._last()
        while batch := await self.list(kind, namespace, name, 100, after):
            after = batch[-1].seq
            total += await self.replay([x.seq for x in batch if x.seq <= last], function=function, revision=revision)
            if after >= last:
                break
        return total

    async def purge(self, kind: str = "", namespace: str = "", name: str = "", *, seqs: Sequence[int] = ()) -> int:
        """Throws away `seqs`, or without them all that match; returns how many."""
        if seqs:
            return sum([await self._remove(seq) for seq in seqs])
        before = await self._last() + 1  # what dies meanwhile is left for the next time
        await self._drop_bodies(kind, namespace, name, before)
        subject = DEAD_PREFIX + ".".join(part or "*" for part in (kind, namespace, name))
        request = {"filter": subject, "seq": before}
        return int((await self._bus.api(f"STREAM.PURGE.{DEAD}", request)).get("purged", 0))

    async def _drop_bodies(self, kind: str, namespace: str, name: str, before: int) -> None:
        """Those of the letters with lesser numbers. Letters are read only if there are stored bodies at all."""
        after = 0 if await self._bodies.any() else before
        while after < before and (letters := await self.list(kind, namespace, name, 100, after)):
            after = letters[-1].seq
            for letter in letters:
                if letter.work is not None and letter.work.stored and letter.seq < before:
                    await self._bodies.drop(letter.work.stored)

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many there are, by (kind, `namespace/name`)."""
        listed = await listing(self._bus, DEAD, DEAD_PREFIX + ">")
        found: dict[tuple[str, str], int] = {}
        for subject, count in listed.counts.items():
            kind, namespace, name = subject.removeprefix(DEAD_PREFIX).split(".")
            found[kind, f"{namespace}/{name}"] = count
        lanes = {Lane(kind, *key.split("/")): count for (kind, key), count in found.items()}
        self.shares.looked(lanes, listed.held, listed.most)
        return found

    async def _again(self, letter: DeadLetter, function: str) -> None:
        assert letter.work is not None
        lane, work = letter.lane, letter.work
        if function:
            lane = Lane(ASYNC, letter.namespace, function)
            work = _as_call(work)
        again = replace(
            work,
            id=new_id() if lane.kind == ASYNC else work.id,
            accepted_ms=int(self._wall() * 1000),
            origin=str(letter.seq),
            hops=0,  # whoever sends it again has seen to the loop
        )
        headers = again.headers()
        # Who dies before the letter is taken out sends it again: the stream drops that within its window
        receipt = await self._bus.publish(lane.subject, again.body, headers, msg_id=f"replay/{letter.seq}/{function}")
        await self._remove(letter.seq, keep_body=True)
        if not receipt.duplicate:
            self._poke(lane)

    async def _remove(self, seq: int, *, keep_body: bool = False) -> bool:
        if not keep_body:
            letter = await self.get(seq)
            if letter is not None and letter.work is not None and letter.work.stored:
                await self._bodies.drop(letter.work.stored)
        try:
            await self._bus.api(f"STREAM.MSG.DELETE.{DEAD}", {"seq": seq, "no_erase": True})
            return True
        except RefusedError as error:
            if error.full or error.conflict:
                raise
            return False  # somebody was faster, or it has run out

    async def _last(self) -> int:
        return int((await self._bus.api(f"STREAM.INFO.{DEAD}"))["state"]["last_seq"])


def _as_call(work: Work) -> Work:
    if work.call is not None:
        return work
    return replace(work, call=EVENT_CALL, destination="")


def _subject(lane: Lane) -> str:
    return f"{DEAD_PREFIX}{lane.kind}.{lane.namespace}.{lane.name}"


def _letter(message: Stored) -> DeadLetter:
    kind, namespace, name = message.subject.removeprefix(DEAD_PREFIX).split(".")
    headers = message.headers
    try:
        work = Work.read({k: v for k, v in headers.items() if k != MSG_ID}, message.data)
    except ValueError:
        work = None
    return DeadLetter(
        seq=message.seq,
        kind=kind,
        namespace=namespace,
        name=name,
        cause=headers.get(CAUSE, ""),
        attempts=int(headers.get(ATTEMPTS, "0")),
        error=json.loads(headers.get(ERROR, "{}")),
        died=int(headers.get(DEAD_MS, "0")),
        accepted=work.accepted_ms if work is not None else 0,
        function=headers.get(FUNCTION, ""),
        revision=headers.get(REVISION, ""),
        work=work,
        data=message.data,
    )
