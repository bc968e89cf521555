"""What survives a gateway, per Trigger by its uid, in the bucket `kappa-state`: the few bytes with which its source
goes on, and in the `Book` what its sources leave in other systems, so that somebody can clear up when it is gone.

Reading asks the stream's leader: whoever takes a source over must see what the last owner wrote, or it repeats more
than it has to.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from kappa_api.trigger import Trigger, parse_trigger
from kappa_gateway.events.bus import Bus
from kappa_gateway.events.listing import listing
from kappa_gateway.events.source import Trace
from kappa_gateway.events.streams import STATE

Json = Any
_STREAM: Final = f"KV_{STATE}"
_PREFIX: Final = f"$KV.{STATE}."
_TOKEN: Final = re.compile(r"[-_a-zA-Z0-9]{1,64}")
#: Stands where the state of a source has its kind; no kind has this name.
_LEFT: Final = "_left"
#: What of a Trigger's spec a source is made of. Credentials are not in it, only the names of Secrets.
_RECORDED: Final = ("function", "source", "ordered")


class KvState:
    """The State of one Trigger (see `source.State`). `kind` is part of the key: another kind's words mean nothing."""

    def __init__(self, bus: Bus, uid: str, kind: str) -> None:
        self._bus, self._prefix = bus, f"{_PREFIX}{token_of(uid)}.{token_of(kind)}."

    async def load(self, key: str) -> bytes | None:
        """None: nothing was saved. Raises UnavailableError."""
        found = await self._bus.newest(_STREAM, last_of=self._prefix + token_of(key))
        return None if found is None or found.headers.get("KV-Operation") else found.data

    async def save(self, key: str, value: bytes) -> None:
        """Returns when it is stored. Raises UnavailableError."""
        await self._bus.publish(self._prefix + token_of(key), value)


@dataclass(frozen=True, slots=True)
class Left:
    """One entry of the book: what a source of this spec leaves elsewhere. `mark`: of the place, the same for specs that
    leave it in the same one. `text` and `server`: see `source.Trace`. `since`: from when on (epoch seconds)
    clearing it was tried in vain; 0: it was not."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Mapping[str, Json]
    mark: str
    text: str
    server: str = ""
    since: float = 0.0

    @classmethod
    def of(cls, trigger: Trigger, spec: Mapping[str, Json], trace: Trace) -> "Left":
        recorded = {key: spec[key] for key in _RECORDED if key in spec}
        place = json.dumps([trigger.kind, *trace.place])
        mark = hashlib.sha256(place.encode()).hexdigest()[:16]
        name, uid, generation = trigger.name, trigger.uid, trigger.generation
        return cls(trigger.namespace, name, uid, generation, recorded, mark, trace.text, trace.server)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def trigger(self) -> Trigger:
        """As the spec was. Raises SpecError when this version does not understand it any more."""
        meta = {"namespace": self.namespace, "name": self.name, "uid": self.uid, "generation": self.generation}
        return parse_trigger({"metadata": meta, "spec": self.spec})


_FIELDS: Final = tuple(field.name for field in fields(Left))


class Book:
    """All entries. Every method raises UnavailableError."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def marks(self, uid: str = "*") -> dict[str, set[str]]:
        """The marks of each Trigger of which anything at all is kept, by `token_of(uid)`."""
        found: dict[str, set[str]] = {}
        pattern = f"{_PREFIX}{uid if uid == '*' else token_of(uid)}.>"
        for subject in (await listing(self._bus, _STREAM, pattern)).counts:
            token, _, rest = subject.removeprefix(_PREFIX).partition(".")
            kind, _, mark = rest.partition(".")
            found.setdefault(token, set()).update({mark} if kind == _LEFT else ())
        return found

    async def read(self, uid: str, mark: str) -> Left | None:
        """`uid` may also be its token."""
        found = await self._bus.newest(_STREAM, last_of=_key(uid, mark))
        if found is None or not found.data or found.headers.get("KV-Operation"):
            return None
        said = json.loads(found.data)
        return Left(**{name: said[name] for name in _FIELDS if name in said})  # a newer gateway may say more

    async def write(self, left: Left) -> None:
        """Returns when it is stored."""
        await self._bus.publish(_key(left.uid, left.mark), json.dumps(asdict(left)).encode())

    async def strike(self, left: Left) -> None:
        """It is cleared, or given up."""
        await self._bus.api(f"STREAM.PURGE.{_STREAM}", {"filter": _key(left.uid, left.mark)})

    async def close(self, uid: str) -> None:
        """The Trigger is gone, and nothing is left: nor does anything stay here. `uid` may also be its token."""
        await self._bus.api(f"STREAM.PURGE.{_STREAM}", {"filter": f"{_PREFIX}{token_of(uid)}.>"})


def token_of(text: str) -> str:
    """As one token of a subject. The token of a token is itself."""
    return text if _TOKEN.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:32]


def _key(uid: str, mark: str) -> str:
    return f"{_PREFIX}{token_of(uid)}.{_LEFT}.{mark}"
