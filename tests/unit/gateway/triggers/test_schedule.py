"""Schedules: what the spec takes is what cronsim understands, in the same way; daylight saving; and the source, on a
clock of the test's own."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kappa_virtual import VirtualLoop

from kappa_api.cloudevents import CloudEvent
from kappa_api.errors import Problem
from kappa_api.fields import Reader
from kappa_api.sources.schedule import Schedule, cron_fault, read
from kappa_api.trigger import Trigger
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.source import Surroundings
from kappa_gateway.events.sources.schedule import MOST_MISSED, ScheduleSource, times

BERLIN = ZoneInfo("Europe/Berlin")


def parsed(**spec: Any) -> tuple[Schedule, list[Problem]]:
    problems: list[Problem] = []
    return read(Reader(spec, "s", problems)), problems


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "s", "exactly one of cron and at"),
        ({"cron": "@daily", "at": "2026-01-01T00:00:00Z"}, "s", "exactly one"),
        ({"cron": "* * * *"}, "s.cron", "five fields"),
        ({"cron": "* * * * * *"}, "s.cron", "five fields"),
        ({"cron": "60 * * * *"}, "s.cron", "minute: '60' is not from 0 to 59"),
        ({"cron": "* * 0 * *"}, "s.cron", "day of month: '0' is not from 1 to 31"),
        ({"cron": "5-1 * * * *"}, "s.cron", "ends before it begins"),
        ({"cron": "5-5/2 * * * *"}, "s.cron", "a range of one"),
        ({"cron": "*/0 * * * *"}, "s.cron", "a step"),
        ({"cron": "* * * foo *"}, "s.cron", "month: 'FOO'"),
        ({"cron": "0 0 31 2,4 *"}, "s.cron", "never fires"),
        ({"cron": "@reboot"}, "s.cron", "is none of"),
        ({"cron": "@daily", "timeZone": "Europe/Nowhere"}, "s.timeZone", "is not known"),
        ({"cron": "@daily", "timeZone": "../etc/passwd"}, "s.timeZone", "is not valid"),
        ({"at": "tomorrow"}, "s.at", "is not a time"),
        ({"at": "2026-01-01"}, "s.at", "is not a time"),
        ({"cron": "@daily", "missed": "some"}, "s.missed", "is not supported"),
        ({"cron": "@daily", "rate": 5}, "s.rate", "is not a field"),
    ],
)
def test_bad_schedules_are_refused(spec: dict[str, Any], field: str, message: str) -> None:
    _, problems = parsed(**spec)
    assert any(problem.field == field and message in problem.message for problem in problems), problems


def test_names_are_resolved() -> None:
    assert parsed(cron="@Daily")[0].cron == "0 0 * * *"
    assert parsed(cron=" 5  4 * * mon-fri ") == (Schedule(cron="5 4 * * mon-fri"), [])


def field(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    pair = st.tuples(value, value).map(sorted).filter(lambda ends: ends[0] < ends[1])
    part = st.one_of(
        st.just("*"),
        value.map(str),
        pair.map(lambda p: f"{p[0]}-{p[1]}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.tuples(pair, st.integers(1, high)).map(lambda p: f"{p[0][0]}-{p[0][1]}/{p[1]}"),
        st.tuples(value, st.integers(1, high)).map(lambda p: f"{p[0]}/{p[1]}"),
    )
    return st.lists(part, min_size=1, max_size=2).map(",".join)


CRONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join)


@given(CRONS, st.integers(1_700_000_000, 1_800_000_000))
def test_whatever_the_spec_takes_fires_at_times_that_fit(cron: str, after: int) -> None:
    assert cron_fault(cron) == ""
    found = list(islice(times(Schedule(cron=cron), after), 3))
    assert found
    assert found == sorted(set(found))
    assert found[0] > after
    for due in found:
        assert fits(cron, datetime.fromtimestamp(due, UTC)), cron


@given(CRONS)
def test_no_firing_is_passed_over(cron: str) -> None:
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    expected = [m for n in range(1, 3000) if fits(cron, m := begin + timedelta(minutes=n))][:20]
    found = list(islice(times(Schedule(cron=cron), begin.timestamp()), len(expected)))
    assert found == [moment.timestamp() for moment in expected]


def fits(cron: str, moment: datetime) -> bool:
    """By the manual of cron, and by nothing else."""
    minute, hour, day, month, weekday = cron.split()
    dom, dow = holds(day, moment.day, 31), holds(weekday, (moment.weekday() + 1) % 7, 7, sunday=True)
    days = (dom and dow) if day.startswith("*") or weekday.startswith("*") else (dom or dow)
    return days and holds(minute, moment.minute, 59) and holds(hour, moment.hour, 23) and holds(month, moment.month, 12)


def holds(text: str, value: int, high: int, *, sunday: bool = False) -> bool:
    for part in text.split(","):
        span, _, step = part.partition("/")
        low = 0 if high in (59, 23, 7) else 1
        first, _, last = span.partition("-")
        if span == "*":
            first, last = str(low), str(high)
        end = int(last) if last else high if step else int(first)
        numbers = set(range(int(first), end + 1, int(step or 1)))
        if value in numbers or (sunday and value == 0 and 7 in numbers):
            return True
    return False


@pytest.mark.parametrize(
    ("cron", "begin", "expected"),
    [
        # 2 o'clock does not exist on 31 March 2024: what was to fire in that hour fires right after
        ("30 2 * * *", "2024-03-30T12:00", ["03-31 03:00", "04-01 02:30"]),
        # and it comes twice on 27 October 2024: once is enough
        ("30 2 * * *", "2024-10-26T12:00", ["10-27 02:30", "10-28 02:30"]),
        # by real time
        ("*/30 * * * *", "2024-03-31T01:15", ["03-31 01:30", "03-31 03:00", "03-31 03:30"]),
        ("*/30 * * * *", "2024-10-27T02:15", ["10-27 02:30", "10-27 02:00", "10-27 02:30", "10-27 03:00"]),
    ],
)
def test_daylight_saving(cron: str, begin: str, expected: list[str]) -> None:
    spec = Schedule(cron=cron, zone="Europe/Berlin")
    after = datetime.fromisoformat(begin).replace(tzinfo=BERLIN).timestamp()
    found = [datetime.fromtimestamp(due, BERLIN) for due in islice(times(spec, after), len(expected))]
    assert [moment.strftime("%m-%d %H:%M") for moment in found] == expected


# --- the source, on virtual time --------------------------------------------------------------------------------------
class World:
    """Sink, state and clock of one source. `offset`: what a clock that was set is off by."""

    def __init__(self, now: str) -> None:
        self.loop = VirtualLoop()
        self.offset = datetime.fromisoformat(now).timestamp() - self.loop.time()
        self.saved: dict[str, bytes] = {}
        self.emitted: list[tuple[float, str]] = []
        self.away = False

    def wall(self) -> float:
        return self.loop.time() + self.offset

    def connected(self) -> None: ...

    async def emit(self, events: Sequence[CloudEvent]) -> None:
        if self.away:
            raise UnavailableError("away")
        self.emitted += [(round(self.wall() - datetime.fromisoformat(e.time).timestamp(), 3), e.id) for e in events]

    async def load(self, key: str) -> bytes | None:
        if self.away:
            raise UnavailableError("away")
        return self.saved.get(key)

    async def save(self, key: str, value: bytes) -> None:
        self.saved[key] = value

    def start(self, **spec: Any) -> None:
        trigger = Trigger("default", "tick", "u", 1, "f", "schedule", Schedule(**spec))
        source = ScheduleSource(trigger, Surroundings(self, self, None, None, None, None, self.wall))
        self.loop.create_task(source.run())
        self.loop.settle()

    @property
    def times(self) -> list[str]:
        return [identity[11:16] for _, identity in self.emitted]


@pytest.fixture
def world() -> Any:
    made = World("2026-03-01T12:00:30+00:00")
    yield made
    made.loop.stop_all()


def test_it_fires_at_its_times_and_not_before(world: World) -> None:
    world.start(cron="*/2 * * * *")
    world.loop.pass_(600)
    assert world.times == ["12:02", "12:04", "12:06", "12:08", "12:10"]
    assert all(0 <= late < 0.01 for late, _ in world.emitted)


def test_a_clock_set_forward_fires_what_it_skipped_as_missed(world: World) -> None:
    world.start(cron="*/10 * * * *", missed="all")
    world.loop.pass_(60)
    world.offset += 3600
    world.loop.pass_(20)
    assert world.times == ["12:10", "12:20", "12:30", "12:40", "12:50", "13:00"]


def test_a_clock_set_back_fires_nothing_twice(world: World) -> None:
    world.start(cron="*/10 * * * *")
    world.loop.pass_(600)
    assert world.times == ["12:10"]
    world.offset -= 900
    world.loop.pass_(1500)
    assert world.times == ["12:10", "12:20"]


def test_jetstream_away_for_a_moment(world: World) -> None:
    world.start(cron="*/10 * * * *", missed="skip")
    world.away = True
    world.loop.pass_(600)
    assert world.times == []
    world.away = False
    world.loop.pass_(1)
    assert world.times == ["12:10"]


def test_a_last_firing_in_the_future_is_not_believed(world: World) -> None:
    world.saved["last"] = repr(datetime(2099, 1, 1, tzinfo=UTC).timestamp()).encode()
    world.start(cron="* * * * *")
    world.loop.pass_(40)
    assert world.times == ["12:01"]


def test_missed_firings_are_bounded(world: World) -> None:
    world.saved["last"] = b"0.0"
    world.start(cron="* * * * *", missed="all")
    # 12:00 is late by less than a minute, which is not missed
    assert [identity for _, identity in world.emitted[-2:]] == ["2026-03-01T11:59:00Z", "2026-03-01T12:00:00Z"]
    assert len(world.emitted) == MOST_MISSED + 1


def test_at_in_a_zone(world: World) -> None:
    world.start(at="2026-03-01T13:05:00", zone="Europe/Berlin")
    world.loop.pass_(600)
    assert world.times == ["12:05"]
    assert asyncio.all_tasks(world.loop)  # it does not end: that would be a failure
