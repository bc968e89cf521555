"""How the work stream is shared among namespaces: floods in virtual time, and what is reckoned from what is known."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kappa_profiles import tries

from kappa_gateway.events.shares import OVERHEAD, CrowdedError, PatientSink, Shares
from kappa_gateway.events.work import ASYNC, TRIGGER, Lane

MOST = 1_000_000


@dataclass
class Stream:
    """A work stream and one gateway's Shares of it."""

    shares: Shares = field(default_factory=lambda: Shares(50))
    lanes: dict[Lane, list[int]] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return sum(map(sum, self.lanes.values()))

    def look(self) -> None:
        counts = {lane: len(sizes) for lane, sizes in self.lanes.items() if sizes}
        self.shares.looked(counts, self.held, MOST)

    def offer(self, lane: Lane, size: int = 800, *, here: bool = True) -> str:
        """Publishes, unless it is refused: says why. `here`: through the gateway whose Shares these are."""
        if here and (problem := self.shares.crowded(lane.kind, lane.key)):
            return problem
        if self.held + size + OVERHEAD > MOST:
            return "full"
        self.lanes.setdefault(lane, []).append(size + OVERHEAD)
        if here:
            self.shares.published(lane.subject, size)
        return ""

    def flood(self, lane: Lane, size: int = 800) -> str:
        while not (problem := self.offer(lane, size)):
            pass
        return problem

    def part(self, namespace: str) -> float:
        return sum(sum(sizes) for lane, sizes in self.lanes.items() if lane.namespace == namespace) / MOST


def lane(namespace: str, name: str = "f", kind: str = ASYNC) -> Lane:
    return Lane(kind, namespace, name)


@pytest.fixture
def stream() -> Stream:
    found = Stream()
    found.look()
    return found


# --- floods -----------------------------------------------------------------------------------------------------------
def test_a_flood_stops_and_others_find_room(stream: Stream) -> None:
    assert "noisy" in stream.flood(lane("noisy"))
    assert 0.4 < stream.part("noisy") < 0.5
    stream.look()
    assert "noisy" in stream.flood(lane("noisy"))
    assert [stream.offer(lane("quiet", kind=TRIGGER)) for _ in range(20)] == [""] * 20


def test_within_the_namespace_others_find_room_too(stream: Stream) -> None:
    assert stream.flood(lane("noisy", "a")) == "too much work waits already for noisy/a"
    assert stream.offer(lane("noisy", "b")) == ""
    assert stream.offer(lane("noisy", "a", TRIGGER)) == ""  # a Trigger of the same name is another one
    for name in map(str, range(200)):
        problem = stream.flood(lane("noisy", name))
    assert problem == "too much work of the namespace noisy waits already"
    assert stream.part("noisy") <= 0.51
    assert stream.offer(lane("quiet")) == ""


def test_partitions_are_one(stream: Stream) -> None:
    whole = Stream()
    whole.look()
    whole.flood(lane("n", "t", TRIGGER))
    parts = [Lane(TRIGGER, "n", "t", str(number)) for number in range(16)]
    number = 0
    while not stream.offer(parts[number % 16]):
        number += 1
    assert stream.part("n") == pytest.approx(whole.part("n"), abs=0.01)


@tries(40)
@given(st.lists(st.integers(2000, 9000), min_size=1, max_size=4), st.booleans())
def test_several_floods_leave_something(sizes: list[int], together: bool) -> None:
    """Each leaves half of what it found to those who come after, and no less where they come together."""
    stream = Stream()
    stream.look()
    going = [(lane(f"flood-{number}"), size) for number, size in enumerate(sizes)]
    if together:
        refused = [""]
        while not all(refused):
            refused = [stream.offer(one, size) for one, size in going]
            stream.look()
    else:
        for one, size in going:
            stream.flood(one, size)
    left = MOST - stream.held
    assert left > MOST / 2 ** len(sizes) - sum(sizes) - OVERHEAD * len(sizes)
    assert stream.offer(lane("quiet"), 5000) == ""


def test_it_opens_again_when_work_ends(stream: Stream) -> None:
    busy = lane("noisy")
    stream.flood(busy)
    stream.lanes[busy] = stream.lanes[busy][:10]
    stream.look()
    assert stream.offer(busy) == ""


def test_who_holds_nothing_is_not_refused_for_others() -> None:
    """What cannot be told at all is for JetStream to say: the stream is full."""
    stream = Stream()
    while not stream.offer(lane("noisy"), here=False):  # through other gateways
        pass
    stream.look()
    assert stream.shares.crowded(ASYNC, "quiet/f") == ""
    assert stream.shares.crowded(ASYNC, "noisy/f")


def test_without_a_bound() -> None:
    stream = Stream(Shares(100))
    stream.look()
    assert stream.flood(lane("noisy")) == "full"
    unlimited = Shares(50)
    unlimited.looked({lane("noisy"): 10}, 10**12, -1)
    assert unlimited.crowded(ASYNC, "noisy/f") == ""
    assert Shares(50).crowded(ASYNC, "noisy/f") == ""  # nothing is known yet


# --- what is reckoned -------------------------------------------------------------------------------------------------
def test_bytes_follow_what_messages_measured() -> None:
    shares = Shares(50)
    for _ in range(100):
        shares.published(lane("big").subject, 99_800)
    shares.sampled(lane("small"), 800)
    shares.looked({lane("big"): 6, lane("small"): 400}, 1_000_000, 10_000_000)
    assert shares.namespaces == pytest.approx({"big": 600_000, "small": 400_000})


def test_nothing_is_reckoned_that_is_not_there() -> None:
    """Whatever was measured, all namespaces together hold what the stream does."""
    shares = Shares(50)
    shares.sampled(lane("a"), 900_000)
    shares.looked({lane("a"): 1000, lane("b"): 1}, 5_000, 10_000)
    assert sum(shares.namespaces.values()) == pytest.approx(5_000)
    shares.looked({}, 0, 10_000)
    assert shares.namespaces == {}


def test_messages_elsewhere_do_not_count() -> None:
    shares = Shares(50)
    shares.looked({}, 0, MOST)
    shares.published("default.orders", MOST)
    assert shares.crowded(ASYNC, "default/f") == ""


async def test_a_source_waits() -> None:
    class Inner:
        def __init__(self) -> None:
            self.events: list[object] = []
            self.up = 0

        async def emit(self, events: object) -> None:
            self.events.append(events)

        def connected(self) -> None:
            self.up += 1

    stream, inner = Stream(), Inner()
    stream.look()
    patient = PatientSink(inner, stream.shares, "noisy/t")
    await patient.emit([])
    patient.connected()
    stream.flood(lane("noisy", "t", TRIGGER))
    with pytest.raises(CrowdedError, match="noisy"):
        await patient.emit([])
    assert (len(inner.events), inner.up) == (1, 1)


def test_dead_letters_are_shared_out_alike() -> None:
    shares = Shares(50, "kappa.dead.", "work that was given up")
    shares.looked({lane("noisy"): 1}, 300, 1000)
    shares.published("kappa.work.async.noisy.f", 10_000)  # another stream's
    assert shares.crowded(ASYNC, "noisy/f") == ""
    shares.published("kappa.dead.async.noisy.f", 300)
    assert shares.crowded(ASYNC, "noisy/f") == "too much work that was given up of the namespace noisy waits already"
    assert shares.crowded(ASYNC, "quiet/f") == ""
