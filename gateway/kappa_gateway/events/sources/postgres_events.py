"""What pgoutput says, to CloudEvents.

Pure. An event's id is `slot/LSN of the commit/number of the change in its transaction`: whoever reads the same
transaction again makes the same ids. A transaction is given out in pieces, so that none has to fit into memory.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.sources.pgoutput import (
    UNCHANGED,
    Begin,
    Change,
    Column,
    Commit,
    Message,
    ProtocolError,
    Relation,
    Row,
    Truncate,
    Unchanged,
    lsn_text,
)
from kappa_gateway.events.sources.postgres_values import to_json
from kappa_gateway.events.sources.sizes import shrink

Json = Any

TYPE_PREFIX: Final = "dev.kappa.postgres."
OPERATIONS: Final = {"I": "insert", "U": "update", "D": "delete"}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A change in the stream: the LSN of its transaction's commit, and its number in there, from 1."""

    lsn: int
    index: int

    def text(self) -> str:
        return f"{lsn_text(self.lsn)}/{self.index}"

    @classmethod
    def of(cls, text: str) -> "Position":
        """Reads `text()`. Raises ValueError."""
        high, low, index = text.split("/")
        return cls(int(high, 16) << 32 | int(low, 16), int(index))


@dataclass(frozen=True, slots=True)
class Origin:
    """What the events say of where they come from. `source`: of the CloudEvent. `operations`: which are wanted.
    `primary_keys`: columns, by schema and table."""

    slot: str
    source: str
    operations: tuple[str, ...]
    primary_keys: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)


class Translator:
    """Follows one stream from its beginning. `after`: the changes up to this one are known to be kept already."""

    def __init__(self, origin: Origin, after: Position | None = None) -> None:
        self._origin, self._after = origin, after
        self._relations: dict[int, Relation] = {}
        self._begin: Begin | None = None
        self._index = 0

    def __repr__(self) -> str:
        return f"<Translator at {self.position.text() if self.position else 'no transaction'}>"

    @property
    def position(self) -> Position | None:
        """The last change that was fed, while its transaction is not over."""
        return Position(self._begin.lsn, self._index) if self._begin else None

    def feed(self, message: Message) -> list[CloudEvent]:
        """The events of one message. Raises ProtocolError for what cannot come now."""
        match message:
            case Begin():
                self._begin, self._index = message, 0
            case Commit():
                self._begin = None
            case Relation():
                self._relations[message.oid] = message
            case Change():
                return self._one(OPERATIONS[message.kind], message.oid, message)
            case Truncate():
                return [event for oid in message.oids for event in self._one("truncate", oid, None)]
        return []

    def _one(self, operation: str, oid: int, change: Change | None) -> list[CloudEvent]:
        begin, relation = self._begin, self._relations.get(oid)
        if begin is None or relation is None:
            raise ProtocolError(f"a change of the relation {oid} without its transaction or its description")
        self._index += 1
        position = Position(begin.lsn, self._index)
        if operation not in self._origin.operations or (self._after is not None and position <= self._after):
            return []
        return [self._event(operation, relation, change, position)]

    def _event(self, operation: str, relation: Relation, change: Change | None, position: Position) -> CloudEvent:
        assert self._begin is not None
        committed = _rfc3339(self._begin.committed_us)
        data: dict[str, Json] = {
            "operation": operation,
            "schema": relation.schema,
            "table": relation.name,
            **_images(relation, change, self._keys(relation)),
            "lsn": lsn_text(position.lsn),
            "sequence": f"{position.lsn:020d}{position.index:010d}",
            "xid": self._begin.xid,
            "committedAt": committed,
        }
        return CloudEvent(
            id=f"{self._origin.slot}/{position.text()}",
            source=self._origin.source,
            type=TYPE_PREFIX + operation,
            subject=f"{relation.schema}.{relation.name}",
            time=committed,
            datacontenttype="application/json",
            data=data,
        )

    def _keys(self, relation: Relation) -> Sequence[str]:
        """With a full identity every column is marked as key; then the primary key is what was found at the start."""
        if relation.identity == "f":
            return self._origin.primary_keys.get((relation.schema, relation.name), ())
        return [column.name for column in relation.columns if column.key]


def _images(relation: Relation, change: Change | None, keys: Sequence[str]) -> dict[str, Json]:
    """`key`, `old` and `new`, and the columns that are in none of them."""
    if change is None:
        return {"key": {}, "old": None, "new": None}
    old = None if change.old is None else _values(relation, change.old, only_key=change.old_is_key)
    new = None if change.new is None else _values(relation, change.new)
    unchanged: list[str] = []
    if change.new is not None:
        names = (column.name for column, value in _pairs(relation, change.new) if value is UNCHANGED)
        unchanged = [name for name in names if not _fill(new, old, name)]
    found: dict[str, Json] = {"key": {}, "old": old, "new": new}
    omitted = shrink([image for image in (old, new) if image is not None], keys)
    # The row as it is after the change; of a deleted one, as it was. An update sends the old key only if that changed.
    found["key"] = {name: image[name] for image in (old, new) if image for name in keys if name in image}
    if unchanged:
        found["unchanged"] = unchanged
    if omitted:
        found["omitted"] = omitted
    return found


def _fill(new: dict[str, Json] | None, old: dict[str, Json] | None, name: str) -> bool:
    """Takes what was not sent because it is unchanged from the old row, where that was sent whole."""
    if new is None or old is None or name not in old:
        return False
    new[name] = old[name]
    return True


def _values(relation: Relation, row: Row, *, only_key: bool = False) -> dict[str, Json]:
    return {
        column.name: None if value is None else to_json(column.type_oid, value)
        for column, value in _pairs(relation, row)
        if not isinstance(value, Unchanged) and (column.key or not only_key)
    }


def _pairs(relation: Relation, row: Row) -> Iterable[tuple[Column, str | Unchanged | None]]:
    if len(row) != len(relation.columns):
        raise ProtocolError(f"a row of {len(row)} columns in {relation.schema}.{relation.name}")
    return zip(relation.columns, row, strict=True)


def _rfc3339(micros: int) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(micros // 1_000_000, datetime.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ProtocolError(f"a transaction of {micros} microseconds after 1970, which is no time") from error
    moment = moment.replace(microsecond=micros % 1_000_000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
