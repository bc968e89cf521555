"""Reads what became of the work out of NATS itself: the dead letters, and whether anything was left behind."""

from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from proof_ledger import ID, Dead

DEAD, WORK = "KAPPA_DEAD", "KAPPA_WORK"


class Letters:
    """Follows the stream of dead letters. `found` grows."""

    def __init__(self, nats: Client) -> None:
        self._js = nats.jetstream(timeout=5)
        self.found: list[Dead] = []
        self._next = 1

    async def read(self) -> None:
        """Takes in what is new. Reads messages by their numbers: nothing to lose track of while NATS is killed."""
        last = (await self._js.stream_info(DEAD)).state.last_seq
        while self._next <= last:
            self.found.append(_dead(await self._js.get_msg(DEAD, self._next)))
            self._next += 1

    async def ids(self) -> set[str]:
        """Of all dead letters; while NATS is away, of those known so far."""
        try:
            await self.read()
        except (NatsError, TimeoutError):
            pass
        return {letter.id for letter in self.found}

    async def backlog(self) -> int:
        """Messages in the work stream; -1 while NATS is away."""
        try:
            return int((await self._js.stream_info(WORK)).state.messages)
        except (NatsError, TimeoutError):
            return -1


def _dead(message: Any) -> Dead:
    headers = message.headers or {}
    text = (message.data or b"").decode(errors="replace")
    found = ID.search(text)
    return Dead(
        id=found.group() if found else f"{message.subject} {message.seq}",
        cause=headers.get("Kappa-Cause", ""),
        attempts=int(headers.get("Kappa-Attempts", "0")),
        at=int(headers.get("Kappa-Dead-Ms", "0")) / 1000,
        error=headers.get("Kappa-Error", ""),
    )
