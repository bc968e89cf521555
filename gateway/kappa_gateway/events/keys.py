"""Idempotency keys: which accepted invocation a key stands for, for a day.

A key is claimed before the work is published and settled after it: who dies in between leaves a claim without a
sequence, and the next call with the key publishes under the same id.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final

from kappa_gateway.events.bus import EXPECT_LAST, Bus, RefusedError
from kappa_gateway.events.streams import KEYS

_SUBJECT: Final = f"$KV.{KEYS}."


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """`id` of the work, `digest` of what was asked, `seq` in the stream: 0 while it is not known to be there."""

    id: str
    digest: str
    seq: int = 0


class Keys:
    """The bucket. Raises UnavailableError."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def claim(self, name: str, mine: KeyRecord) -> KeyRecord | None:
        """None: the key is new and now stands for `mine`. Otherwise what it stands for."""
        try:
            await self._bus.publish(_SUBJECT + name, _text(mine), {EXPECT_LAST: "0"})
            return None
        except RefusedError as error:
            if not error.conflict:
                raise
        found = await self._bus.newest(f"KV_{KEYS}", last_of=_SUBJECT + name)
        if found is None:  # it has run out in this very moment
            return await self.claim(name, mine)
        return KeyRecord(**json.loads(found.data))

    async def settle(self, name: str, record: KeyRecord) -> None:
        await self._bus.publish(_SUBJECT + name, _text(record))


def _text(record: KeyRecord) -> bytes:
    return json.dumps(asdict(record)).encode()
