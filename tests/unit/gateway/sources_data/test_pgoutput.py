"""The decoder of pgoutput: what PostgreSQL's documentation says, byte for byte, and nothing else."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_gateway.events.sources.pgoutput import (
    EPOCH_US,
    UNCHANGED,
    Alive,
    Begin,
    Change,
    Column,
    Commit,
    Message,
    Other,
    ProtocolError,
    Relation,
    Row,
    Truncate,
    decode,
    lsn_text,
    status,
    unwrap,
)

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
#: Names hold no zero byte and, like all text on the wire, are UTF-8.
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ROWS = st.lists(st.one_of(st.none(), st.just(UNCHANGED), TEXT), max_size=6).map(tuple)
COLUMNS = st.builds(Column, NAMES, st.booleans(), U32)
MESSAGES = st.one_of(
    st.builds(Begin, U64, st.integers(EPOCH_US, EPOCH_US + 2**60), U32),
    st.builds(Commit, U64, U64),
    st.builds(Relation, U32, NAMES, NAMES, st.sampled_from("dfin"), st.lists(COLUMNS, max_size=5).map(tuple)),
    st.builds(Change, st.just("I"), U32, ROWS),
    st.builds(Change, st.just("U"), U32, ROWS),
    st.builds(Change, st.just("U"), U32, ROWS, ROWS, st.booleans()),
    st.builds(Change, st.just("D"), U32, st.none(), ROWS, st.booleans()),
    st.builds(Truncate, st.lists(U32, max_size=5).map(tuple), st.booleans(), st.booleans()),
)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def row(values: Row) -> bytes:
    found = struct.pack("!H", len(values))
    for value in values:
        if value is None:
            found += b"n"
        elif isinstance(value, str):
            found += b"t" + struct.pack("!I", len(value.encode())) + value.encode()
        else:
            found += b"u"
    return found


def encode(message: Message) -> bytes:
    """As the server does, after the same documentation."""
    match message:
        case Begin(lsn, committed, xid):
            return b"B" + struct.pack("!QqI", lsn, committed - EPOCH_US, xid)
        case Commit(lsn, end):
            return b"C\0" + struct.pack("!QQq", lsn, end, 0)
        case Relation(oid, schema, name, identity, columns):
            head = b"R" + struct.pack("!I", oid) + text(schema) + text(name) + identity.encode()
            body = b"".join(bytes([c.key]) + text(c.name) + struct.pack("!Ii", c.type_oid, -1) for c in columns)
            return head + struct.pack("!H", len(columns)) + body
        case Change(kind, oid, new, old, is_key):
            head = kind.encode() + struct.pack("!I", oid)
            parts = b"" if old is None else (b"K" if is_key else b"O") + row(old)
            return head + parts + (b"" if new is None else b"N" + row(new))
        case Truncate(oids, cascade, restart):
            options = cascade + 2 * restart
            return b"T" + struct.pack("!IB", len(oids), options) + b"".join(struct.pack("!I", oid) for oid in oids)
    raise AssertionError(message)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


@given(MESSAGES, st.data())
def test_a_part_of_a_message_is_an_error_and_never_a_message(message: Message, data: Any) -> None:
    whole = encode(message)
    with pytest.raises(ProtocolError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ProtocolError):
        decode(whole + b"\0")


@given(st.one_of(st.binary(max_size=60), MESSAGES.map(encode)), st.integers(0, 59), st.integers(0, 255))
def test_hostile_bytes_raise_nothing_else(content: bytes, at: int, byte: int) -> None:
    changed = bytearray(content)
    if at < len(changed):
        changed[at] = byte
    for read in (decode, unwrap):
        try:
            read(bytes(changed))
        except ProtocolError:
            pass


#: What PostgreSQL 15.18 sent for: insert (1, 'ä', NULL); set id = 2; delete; truncate. One message a line.
REAL = """
420000000001925e40000303f541ac584e000002d8
52000040027075626c69630074006400030169640000000017ffffffff006e616d650000000019ffffffff00780000000019ffffffff
49000040024e00037400000001317400000002c3a46e
43000000000001925e400000000001925e70000303f541ac584e
55000040024b00037400000001316e6e4e00037400000001327400000002c3a46e
44000040024b00037400000001326e6e
54000000010000004002
"""


def test_a_real_servers_bytes() -> None:
    name, x = Column("name", False, 25), Column("x", False, 25)
    assert [decode(bytes.fromhex(line)) for line in REAL.split()] == [
        Begin(0x1925E40, 1795461633816654, 728),
        Relation(0x4002, "public", "t", "d", (Column("id", True, 23), name, x)),
        Change("I", 0x4002, ("1", "ä", None)),
        Commit(0x1925E40, 0x1925E70),
        Change("U", 0x4002, ("2", "ä", None), ("1", None, None), True),
        Change("D", 0x4002, None, ("2", None, None), True),
        Truncate((0x4002,), False, False),
    ]


def test_messages_that_change_nothing() -> None:
    assert [decode(kind + b"whatever") for kind in (b"O", b"Y", b"M")] == [Other("O"), Other("Y"), Other("M")]
    with pytest.raises(ProtocolError, match="unknown kind 'S'"):  # protocol 2: parts of running transactions
        decode(b"S\0\0\0\1\1")
    with pytest.raises(ProtocolError, match="unknown kind"):
        decode(b"")


def test_frames() -> None:
    assert unwrap(b"w" + b"\0" * 24 + b"payload") == b"payload"
    assert unwrap(b"k" + struct.pack("!QqB", 7, 0, 1)) == Alive(7, True)
    with pytest.raises(ProtocolError):
        unwrap(b"k\0")
    with pytest.raises(ProtocolError):
        unwrap(b"x")


def test_the_status_confirms_the_same_lsn_three_times() -> None:
    found = struct.unpack("!cQQQqB", status(0x1_0000_0002, EPOCH_US + 5))
    assert found == (b"r", 0x1_0000_0002, 0x1_0000_0002, 0x1_0000_0002, 5, 0)


def test_lsns_are_printed_as_postgresql_prints_them() -> None:
    assert lsn_text(0x16_B374D848) == "16/B374D848"
