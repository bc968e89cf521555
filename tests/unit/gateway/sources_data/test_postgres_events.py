"""From decoded messages to CloudEvents: images, ids, and going on in the middle of a transaction."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Truncate,
)
from kappa_gateway.events.sources.postgres_events import Origin, Position, Translator

ALL = ("insert", "update", "delete", "truncate")
ORIGIN = Origin("slot", "postgresql://db:5432/shop", ALL, {("public", "orders"): ("id",)})
COLUMNS = (Column("id", True, 23), Column("name", False, 25))
ORDERS = Relation(7, "public", "orders", "d", COLUMNS)
FULL = Relation(7, "public", "orders", "f", tuple(Column(c.name, True, c.type_oid) for c in COLUMNS))
#: 2024-05-01T10:00:00.000005Z
COMMITTED = 1_714_557_600_000_005


def events(*messages: Message, origin: Origin = ORIGIN, after: Position | None = None) -> list[CloudEvent]:
    translator = Translator(origin, after)
    return [event for message in messages for event in translator.feed(message)]


def images(relation: Relation, change: Message) -> Any:
    (event,) = events(Begin(100, COMMITTED, 5), relation, change)
    return tuple(event.data[key] for key in ("key", "old", "new"))


def test_the_whole_event() -> None:
    (event,) = events(Begin(0x1_00000010, COMMITTED, 5), ORDERS, Change("I", 7, ("1", None)), Commit(9, 10))
    assert event == CloudEvent(
        id="slot/1/10/1",
        source="postgresql://db:5432/shop",
        type="dev.kappa.postgres.insert",
        subject="public.orders",
        time="2024-05-01T10:00:00.000005Z",
        datacontenttype="application/json",
        data={
            "operation": "insert",
            "schema": "public",
            "table": "orders",
            "key": {"id": 1},
            "old": None,
            "new": {"id": 1, "name": None},
            "lsn": "1/10",
            "sequence": "000000000042949673120000000001",
            "xid": 5,
            "committedAt": "2024-05-01T10:00:00.000005Z",
        },
    )


@pytest.mark.parametrize(
    ("relation", "change", "key", "old", "new"),
    [
        (ORDERS, Change("U", 7, ("1", "b")), {"id": 1}, None, {"id": 1, "name": "b"}),
        (ORDERS, Change("U", 7, ("2", "b"), ("1", None), True), {"id": 2}, {"id": 1}, {"id": 2, "name": "b"}),
        (ORDERS, Change("U", 7, ("1", UNCHANGED)), {"id": 1}, None, {"id": 1}),
        (ORDERS, Change("D", 7, None, ("1", None), True), {"id": 1}, {"id": 1}, None),
        (
            FULL,
            Change("U", 7, ("1", UNCHANGED), ("1", "a")),
            {"id": 1},
            {"id": 1, "name": "a"},
            {"id": 1, "name": "a"},
        ),
        (FULL, Change("D", 7, None, ("1", "a")), {"id": 1}, {"id": 1, "name": "a"}, None),
        (ORDERS, Truncate((7,), False, False), {}, None, None),
    ],
)
def test_images(relation: Relation, change: Message, key: Any, old: Any, new: Any) -> None:
    assert images(relation, change) == (key, old, new)


def test_unwanted_operations_count_but_are_not_told() -> None:
    """An id must not depend on what the Trigger asks for."""
    origin = Origin("slot", "s", ("delete",))
    stream = (Begin(1, 0, 1), ORDERS, Change("I", 7, ("1", "a")), Change("D", 7, None, ("1", None), True), Commit(1, 2))
    assert [event.id for event in events(*stream, origin=origin)] == ["slot/0/1/2"]


def test_what_cannot_come() -> None:
    for stream in (
        [Change("I", 7, ("1", "a"))],
        [Begin(1, 0, 1), Change("I", 7, ("1", "a"))],
        [Begin(1, 0, 1), ORDERS, Change("I", 7, ("1",))],
        [Begin(1, 0, 1), ORDERS, Commit(1, 2), Change("I", 7, ("1", "a"))],
    ):
        with pytest.raises(ProtocolError):
            events(*stream)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_whoever_goes_on_after_a_position_misses_and_repeats_nothing(sizes: list[int], data: Any) -> None:
    stream: list[Message] = [ORDERS]
    for number, size in enumerate(sizes, 1):
        stream += [Begin(number * 16, 0, number), *[Change("I", 7, (str(n), "a")) for n in range(size)]]
        stream.append(Commit(number * 16, number * 16 + 8))
    whole = events(*stream)
    lsn = 16 * data.draw(st.integers(0, len(sizes)))
    after = Position(lsn, data.draw(st.integers(0, 6)))
    rest = events(*stream, after=after)
    assert [event for event in whole if event not in rest] == whole[: len(whole) - len(rest)]
    assert rest == whole[len(whole) - len(rest) :]
    assert all(Position.of(event.id.removeprefix("slot/")) > after for event in rest)
    assert len({event.id for event in whole}) == len(whole)


@given(st.builds(Position, st.integers(0, 2**64 - 1), st.integers(0, 10**12)))
def test_positions_as_text(position: Position) -> None:
    assert Position.of(position.text()) == position


def test_it_says_where_it_is() -> None:
    translator = Translator(ORIGIN)
    assert repr(translator) == "<Translator at no transaction>"
    translator.feed(Begin(16, 0, 1))
    assert repr(translator) == "<Translator at 0/10/0>"
