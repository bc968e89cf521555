"""The messages of PostgreSQL's output plugin `pgoutput`, protocol version 1, and of the stream that carries them.

Pure: bytes to dataclasses. Written from PostgreSQL's documentation, "Logical Replication Message Formats" and
"Streaming Replication Protocol". Version 1 sends a transaction when it has committed, never a part of a running one.
"""

import struct
from dataclasses import dataclass
from typing import Final

#: 2000-01-01 UTC in epoch microseconds: where PostgreSQL's clock begins.
EPOCH_US: Final = 946_684_800_000_000

_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")
_HEAD = struct.Struct("!Ic")
_U16, _U32 = struct.Struct("!H"), struct.Struct("!I")
_COLUMN = struct.Struct("!Ii")
_TRUNCATE = struct.Struct("!IB")
_XLOG = struct.Struct("!QQq")
_ALIVE = struct.Struct("!QqB")
_STATUS = struct.Struct("!cQQQqB")


class ProtocolError(ValueError):
    """Not what the documentation says: another plugin, another version, or a part of a message."""


class Unchanged:
    """The one value UNCHANGED: a large (TOAST) value that the update did not touch, and that is therefore not sent."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
#: Values of a row in the relation's order: None is NULL, text as PostgreSQL prints it.
Row = tuple[str | Unchanged | None, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """`lsn`: of the commit. `committed_us`: epoch microseconds."""

    lsn: int
    committed_us: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """`end`: what may be confirmed when all of the transaction is kept."""

    lsn: int
    end: int


@dataclass(frozen=True, slots=True)
class Column:
    """`key`: part of the replica identity. `type_oid`: in pg_type."""

    name: str
    key: bool
    type_oid: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the changes that follow have it; sent before the first one, and again when it was altered.
    `identity`: d (primary key), f (full), i (an index) or n (nothing)."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """`kind`: I, U or D. `old`: None when it is not sent; `old_is_key`: it holds only the replica identity."""

    kind: str
    oid: int
    new: Row | None
    old: Row | None = None
    old_is_key: bool = False


@dataclass(frozen=True, slots=True)
class Truncate:
    oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class Other:
    """A message that changes no row: an origin, a type, a message of pg_logical_emit_message."""

    kind: str


Message = Begin | Commit | Relation | Change | Truncate | Other


@dataclass(frozen=True, slots=True)
class Alive:
    """The server has sent all up to `end`; `reply`: it wants to hear from us at once."""

    end: int
    reply: bool


def unwrap(frame: bytes) -> bytes | Alive:
    """One CopyData frame of the stream: a message of the plugin, or a sign of life."""
    try:
        if frame[:1] == b"w":
            return frame[1 + _XLOG.size :]
        if frame[:1] == b"k":
            end, _, reply = _ALIVE.unpack_from(frame, 1)
            return Alive(end, bool(reply))
    except struct.error as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is cut off") from error
    raise ProtocolError(f"a frame of the unknown kind {frame[:1]!r}")


def status(confirmed: int, now_us: int) -> bytes:
    """The frame that tells the server what need not be sent again. `now_us`: epoch microseconds."""
    return _STATUS.pack(b"r", confirmed, confirmed, confirmed, now_us - EPOCH_US, 0)


def decode(message: bytes) -> Message:
    """Raises ProtocolError."""
    kind = message[:1].decode("latin-1")
    try:
        found, end = _DECODERS[kind](message)
    except KeyError:
        if kind in ("O", "Y", "M"):
            return Other(kind)
        raise ProtocolError(f"a message of the unknown kind {kind!r}") from None
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a message {kind!r} of {len(message)} bytes is cut off or broken") from error
    if end != len(message):
        raise ProtocolError(f"a message {kind!r} has {len(message) - end} bytes too many")
    return found


def lsn_text(lsn: int) -> str:
    """As PostgreSQL prints it: 16/B374D848."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _begin(message: bytes) -> tuple[Message, int]:
    lsn, micros, xid = _BEGIN.unpack_from(message, 1)
    return Begin(lsn, micros + EPOCH_US, xid), 1 + _BEGIN.size


def _commit(message: bytes) -> tuple[Message, int]:
    _, lsn, end, _ = _COMMIT.unpack_from(message, 1)
    return Commit(lsn, end), 1 + _COMMIT.size


def _relation(message: bytes) -> tuple[Message, int]:
    (oid,) = _U32.unpack_from(message, 1)
    schema, at = _string(message, 5)
    name, at = _string(message, at)
    identity = chr(message[at])
    (count,) = _U16.unpack_from(message, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        key = bool(message[at] & 1)
        column, at = _string(message, at + 1)
        type_oid, _modifier = _COLUMN.unpack_from(message, at)
        at += _COLUMN.size
        columns.append(Column(column, key, type_oid))
    # The catalog's schema has an empty name on the wire.
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns)), at


def _insert(message: bytes) -> tuple[Message, int]:
    oid, tag = _HEAD.unpack_from(message, 1)
    if tag != b"N":
        raise ProtocolError(f"an insert with the part {tag!r}")
    row, at = _row(message, 6)
    return Change("I", oid, row), at


def _update(message: bytes) -> tuple[Message, int]:
    oid, tag = _HEAD.unpack_from(message, 1)
    old, at, part = None, 6, tag
    if tag in (b"K", b"O"):
        old, at = _row(message, 6)
        part = message[at : at + 1]
        at += 1
    if part != b"N":
        raise ProtocolError(f"an update with the part {part!r}")
    new, at = _row(message, at)
    return Change("U", oid, new, old, old_is_key=tag == b"K"), at


def _delete(message: bytes) -> tuple[Message, int]:
    oid, tag = _HEAD.unpack_from(message, 1)
    if tag not in (b"K", b"O"):
        raise ProtocolError(f"a delete with the part {tag!r}")
    old, at = _row(message, 6)
    return Change("D", oid, None, old, old_is_key=tag == b"K"), at


def _truncate(message: bytes) -> tuple[Message, int]:
    count, options = _TRUNCATE.unpack_from(message, 1)
    at = 1 + _TRUNCATE.size
    oids = struct.unpack_from(f"!{count}I", message, at)
    return Truncate(oids, bool(options & 1), bool(options & 2)), at + 4 * count


_DECODERS: Final = {"B": _begin, "C": _commit, "R": _relation, "I": _insert, "U": _update, "D": _delete, "T": _truncate}


def _row(message: bytes, at: int) -> tuple[Row, int]:
    (count,) = _U16.unpack_from(message, at)
    at += 2
    values: list[str | Unchanged | None] = []
    for _ in range(count):
        kind = message[at]
        at += 1
        if kind == 0x74:  # t: text
            (size,) = _U32.unpack_from(message, at)
            at += 4 + size
            if at > len(message):
                raise IndexError
            values.append(message[at - size : at].decode())
        elif kind == 0x6E:  # n: NULL
            values.append(None)
        elif kind == 0x75:  # u: unchanged
            values.append(UNCHANGED)
        else:
            raise ProtocolError(f"a value of the unknown kind {chr(kind)!r}")
    return tuple(values), at


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.find(b"\0", at)
    if end < 0:
        raise IndexError
    return message[at:end].decode(), end + 1
