"""Where sources keep the few bytes that survive a gateway: the bucket `kappa-state`, per Trigger by its uid.

Reading asks the stream's leader: whoever takes a source over must see what the last owner wrote, or it repeats more
than it has to.
"""

import hashlib
import re
from typing import Final

from kappa_gateway.events.bus import Bus
from kappa_gateway.events.streams import STATE

_STREAM: Final = f"KV_{STATE}"
_PREFIX: Final = f"$KV.{STATE}."
_TOKEN: Final = re.compile(r"[-_a-zA-Z0-9]{1,64}")


class KvState:
    """The State of one Trigger (see `source.State`). `kind` is part of the key: another kind's words mean nothing."""

    def __init__(self, bus: Bus, uid: str, kind: str) -> None:
        self._bus, self._prefix = bus, f"{_PREFIX}{_token(uid)}.{_token(kind)}."

    async def load(self, key: str) -> bytes | None:
        """None: nothing was saved. Raises UnavailableError."""
        found = await self._bus.newest(_STREAM, last_of=self._prefix + _token(key))
        return None if found is None or found.headers.get("KV-Operation") else found.data

    async def save(self, key: str, value: bytes) -> None:
        """Returns when it is stored. Raises UnavailableError."""
        await self._bus.publish(self._prefix + _token(key), value)


async def forget(bus: Bus, uid: str) -> None:
    """All that was kept for a Trigger that is gone. Raises UnavailableError."""
    await bus.api(f"STREAM.PURGE.{_STREAM}", {"filter": f"{_PREFIX}{_token(uid)}.>"})


def _token(text: str) -> str:
    """As one token of a subject."""
    return text if _TOKEN.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:32]
