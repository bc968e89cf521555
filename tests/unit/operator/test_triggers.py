"""Triggers in the operator: the condition as a table, counters that survive restarts, and when a status is written."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from kappa_operator_fakes import FakeKube, Time

from kappa_api.trigger_report import COUNTERS, AsyncReport, GatewayReport, TriggerReport
from kappa_operator.events import Recorder
from kappa_operator.kube import FUNCTIONS, TRIGGERS, NotFoundError, function_path, trigger_path
from kappa_operator.observed import Pod
from kappa_operator.resync import resync
from kappa_operator.store import Store, function_work
from kappa_operator.triggers.counts import Reading, counted
from kappa_operator.triggers.records import TriggerRecord, TriggerStore, parse_trigger_record, trigger_work
from kappa_operator.triggers.status import Seen, ready_condition, status_patch
from kappa_operator.triggers.triggers import FRESH_SECONDS, SOON_SECONDS, TURN_SECONDS, Triggers

Json = Any

KEY = "ns/orders"
PATH = trigger_path("ns", "orders")
SPEC = {"function": "fn", "source": {"event": {}}}


def raw(spec: Json = SPEC, status: Json = None, generation: int = 1, version: int = 1) -> Json:
    meta = {"namespace": "ns", "name": "orders", "uid": "u", "generation": generation, "resourceVersion": str(version)}
    return {"kind": "Trigger", "metadata": meta, "spec": spec, "status": status or {}}


def record(spec: Json = SPEC, **fields: Json) -> TriggerRecord:
    return parse_trigger_record(raw(spec, **fields))


def report(generation: int = 1, **fields: Json) -> TriggerReport:
    return TriggerReport(KEY, "u", generation, **fields)


def seen(*reports: TriggerReport, exists: bool = True, silent: bool = False) -> Seen:
    names = [f"g{number}" for number in range(len(reports))]
    there = frozenset(names) | {"g-silent" if silent else "g0"}
    return Seen(exists, {(name, "e"): report for name, report in zip(names, reports, strict=True)}, there, silent)


READY_BEFORE = {
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "Connected", "message": "fine", "observedGeneration": 1}
    ]
}
NOWHERE = Seen(True, {}, frozenset())


# --- the condition ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("about", "what", "expected"),
    [
        pytest.param(record({"function": "fn"}), seen(), ("False", "InvalidSpec", "spec.source"), id="invalid"),
        pytest.param(record(), seen(exists=False), ("False", "FunctionNotFound", "'fn' in ns"), id="no function"),
        pytest.param(record(SPEC | {"suspend": True}), seen(report()), ("False", "Suspended", ""), id="suspended"),
        pytest.param(record(), NOWHERE, ("Unknown", "NoGateway", ""), id="no gateway"),
        pytest.param(record(), seen(), ("Unknown", "Unseen", "KAPPA_NATS_URL"), id="nobody reports"),
        pytest.param(record(), seen(report()), ("Unknown", "Connecting", ""), id="connecting"),
        pytest.param(record(), seen(report(connected=True)), ("True", "Connected", ""), id="connected"),
        pytest.param(
            record(), seen(report(message="no"), report(connected=True)), ("True", "Connected", ""), id="one is enough"
        ),
        pytest.param(
            record(),
            seen(report(message="b"), report(message="a"), report(message="b")),
            ("False", "SourceFailed", "a; b"),
            id="failed",
        ),
        pytest.param(
            record(generation=2), seen(report(connected=True)), ("Unknown", "Unseen", ""), id="of an older spec"
        ),
        pytest.param(
            record(status=READY_BEFORE), seen(silent=True), ("True", "Connected", "fine"), id="a gateway that is slow"
        ),
        pytest.param(
            record(status=READY_BEFORE, generation=2), seen(silent=True), ("Unknown", "Unseen", ""), id="slow, new spec"
        ),
    ],
)
def test_ready(about: TriggerRecord, what: Seen, expected: tuple[str, str, str]) -> None:
    status, reason, message = ready_condition(about, what)
    assert (status, reason) == expected[:2]
    assert expected[2] in message


def test_a_whole_status() -> None:
    counts = dict(zip(COUNTERS, (10, 2, 7, 1, 0), strict=True))
    what = seen(report(connected=True, counts=counts, lag=1, last_event="2030-01-02T03:04:05Z"), report(lag=1))
    patch = status_patch(record(), what, "2030-01-02T03:04:09Z")
    assert patch == {
        "observedGeneration": 1,
        "source": "event",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Connected",
                "message": "events come in and are delivered",
                "lastTransitionTime": "2030-01-02T03:04:09Z",
                "observedGeneration": 1,
            }
        ],
        "received": 10,
        "filtered": 2,
        "delivered": 7,
        "failed": 1,
        "deadLetters": 0,
        "gateways": [{"name": "g0", "epoch": "e", "counts": [10, 2, 7, 1, 0]}],
        "lag": 1,
        "lastEvent": "2030-01-02T03:04:05Z",
    }
    assert status_patch(record(status=patch), what, "2030-01-02T03:05:00Z") == {}, "what is there is not written again"


# --- counters ---------------------------------------------------------------------------------------------------------
def reading(gateway: str, epoch: str, delivered: int) -> Reading:
    return Reading(gateway, epoch, {"delivered": delivered})


STEPS = [
    pytest.param([reading("a", "1", 3)], {"a"}, 3, id="first"),
    pytest.param([reading("a", "1", 5)], {"a"}, 5, id="more"),
    pytest.param([reading("a", "1", 5), reading("b", "1", 2)], {"a", "b"}, 7, id="two"),
    pytest.param([reading("b", "1", 3)], {"a", "b"}, 8, id="one is silent"),
    pytest.param([reading("a", "1", 6), reading("b", "1", 3)], {"a", "b"}, 9, id="it speaks again"),
    pytest.param([reading("a", "2", 1), reading("b", "1", 3)], {"a", "b"}, 10, id="it was restarted"),
    pytest.param([reading("a", "3", 0), reading("b", "1", 3)], {"a", "b"}, 10, id="restarted, nothing yet"),
    pytest.param([reading("b", "1", 4)], {"b"}, 11, id="it is gone"),
    pytest.param([reading("a", "4", 2), reading("b", "1", 4)], {"a", "b"}, 13, id="another of its name"),
]


def test_counters_add_up() -> None:
    """The status alone carries the sums: each step might be another operator."""
    status: Json = {}
    for step in STEPS:
        readings, there, delivered = step.values
        status = counted(status, readings, there)  # type: ignore[arg-type]
        assert status["delivered"] == delivered, step.id
        assert {item["name"] for item in status["gateways"]} <= there, step.id  # type: ignore[operator]
        assert counted(status, readings, there) == status, step.id  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken", [{"gateways": ["x", {"name": "a", "epoch": "1", "counts": "x"}]}, {"delivered": "x"}]
)
def test_a_status_that_somebody_wrote_by_hand_is_survived(broken: Json) -> None:
    assert counted(broken, [reading("a", "1", 3)], {"a"})["delivered"] == 3


# --- records ----------------------------------------------------------------------------------------------------------
def test_work_of_triggers() -> None:
    store = TriggerStore()
    assert store.put(raw(version=5)) == {trigger_work(KEY)}
    assert not store.put(raw(version=6, status={"lag": 1})), "only its status"
    assert not store.put(raw(version=4, generation=2)), "older than what is held"
    assert store.put(raw(version=7, generation=2, spec=SPEC | {"function": "other"})) == {trigger_work(KEY)}
    assert store.of_functions(frozenset({function_work("ns/fn")})) == set()
    assert store.of_functions(frozenset({function_work("ns/other"), "routes"})) == {trigger_work(KEY)}
    assert not store.keep([], {KEY: 6}), "it changed since that list was asked for"
    assert store.keep([], {KEY: 7}) == {trigger_work(KEY)}
    assert not store.records
    assert not store.of_functions(frozenset({function_work("ns/other")}))


async def test_a_cluster_without_the_crd_has_functions_all_the_same() -> None:
    class OldCluster:
        async def items(self, path: str, selector: str = "") -> AsyncIterator[Json]:
            if path == TRIGGERS:
                raise NotFoundError(404, "NotFound", path)
            if path == FUNCTIONS:
                yield {"metadata": {"namespace": "ns", "name": "fn", "uid": "f"}, "spec": {"code": {"image": "x"}}}

    store, triggers = Store(), TriggerStore()
    work = await resync(OldCluster(), store, triggers)  # type: ignore[arg-type]
    assert function_work("ns/fn") in work
    triggers.put(raw())
    assert trigger_work(KEY) in await resync(OldCluster(), store, triggers)  # type: ignore[arg-type]
    assert not triggers.records


# --- writing ----------------------------------------------------------------------------------------------------------
class Gateways:
    """Answers what the test says, by pod."""

    def __init__(self) -> None:
        self.answers: dict[str, GatewayReport | None] = {}

    async def read(self, pod: Pod) -> GatewayReport | None:
        return self.answers.get(pod.name)

    async def close(self) -> None: ...


class Rig:
    """One Trigger, one Function, one gateway; `due` is the work that is asked for."""

    def __init__(self) -> None:
        self.time, self.kube, self.store, self.gateways = Time(), FakeKube(), Store(), Gateways()
        clock = self.time.clock()
        self.due: set[str] = set()
        self.events = Recorder(self.kube, "op", suffix=lambda: "x", wall=clock.wall)  # type: ignore[arg-type]
        self.triggers = Triggers(
            self.kube,  # type: ignore[arg-type]
            self.store,
            "sys",
            self.gateways,
            wake=self.due.update,
            events=self.events,
            clock=clock,
        )
        self.kube.put(PATH, raw())
        self.triggers.records.put(self.kube.objects[PATH])
        function = {"metadata": {"namespace": "ns", "name": "fn", "uid": "f"}, "spec": {"code": {"image": "x"}}}
        self.store.put_function(self.kube.put(function_path("ns", "fn"), function))
        self.gateway("g0")

    def gateway(self, name: str) -> None:
        port = [{"name": "admin", "containerPort": 8081}]
        labels = {"app.kubernetes.io/component": "gateway"}
        meta = {"namespace": "sys", "name": name, "uid": name, "labels": labels}
        self.store.put_pod(
            {"metadata": meta, "spec": {"containers": [{"ports": port}]}, "status": {"podIP": "127.0.0.1"}}
        )

    def says(self, *reports: TriggerReport, name: str = "g0", functions: Json = None) -> None:
        self.gateways.answers[name] = GatewayReport(name, "e", reports, functions or {})

    async def round(self) -> float:
        await self.triggers.turn()
        return await self.triggers.reconcile(KEY)

    @property
    def status(self) -> Json:
        return self.kube.objects[PATH]["status"]

    def writes(self) -> int:
        return sum(path.endswith("/orders/status") for _, path in self.kube.written())

    def told(self) -> list[tuple[str, str]]:
        queue, found = self.events._queue, []
        while not queue.empty():
            body = queue.get_nowait()
            assert body["involvedObject"]["kind"] == "Trigger"
            found.append((body["type"], body["reason"]))
        return found


async def test_nothing_is_said_before_the_gateways_were_asked() -> None:
    rig = Rig()
    assert await rig.triggers.reconcile(KEY) == 0
    assert rig.writes() == 0


async def test_a_trigger_that_connects_delivers_and_fails() -> None:
    rig = Rig()
    rig.says(report(connected=True))
    await rig.round()
    assert (rig.status["conditions"][0]["reason"], rig.told()) == ("Connected", [("Normal", "Connected")])
    rig.says(report(message="the server refuses the password"))
    await rig.round()
    assert rig.status["conditions"][0]["message"] == "the server refuses the password"
    assert rig.told() == [("Warning", "SourceFailed")]
    await rig.round()
    assert (rig.writes(), rig.told()) == (2, [])


async def test_counters_are_written_at_most_every_few_seconds_and_only_when_they_change() -> None:
    rig = Rig()
    rig.says(report(connected=True, counts={"received": 1}))
    await rig.round()
    rig.says(report(connected=True, counts={"received": 2}))
    await rig.time.pass_(TURN_SECONDS - 1)
    assert await rig.round() == pytest.approx(1), "look again when it may be written"
    assert (rig.writes(), rig.status["received"]) == (1, 1)
    await rig.time.pass_(1)
    await rig.round()
    assert (rig.writes(), rig.status["received"]) == (2, 2)
    await rig.time.pass_(60)
    await rig.round()
    assert rig.writes() == 2


async def test_a_new_trigger_is_asked_for_more_often_for_a_while() -> None:
    rig = Rig()
    turns: list[float] = []
    plain = rig.triggers.turn

    async def turn() -> None:
        turns.append(rig.time.now)
        await plain()
        await rig.triggers.reconcile(KEY)

    rig.triggers.turn = turn  # type: ignore[method-assign]
    running = asyncio.create_task(rig.triggers.run())
    await rig.time.pass_(60)
    waits = [after - before for before, after in itertools.pairwise(turns)]
    assert waits[0] == SOON_SECONDS
    assert waits[-1] == TURN_SECONDS, "and not for ever"
    assert waits.count(SOON_SECONDS) == pytest.approx(FRESH_SECONDS / SOON_SECONDS, abs=1)
    running.cancel()


async def test_conditions_are_written_at_once() -> None:
    rig = Rig()
    rig.says(report(connected=True))
    await rig.round()
    rig.store.drop_function("ns/fn")
    await rig.triggers.reconcile(KEY)
    assert rig.status["conditions"][0]["reason"] == "FunctionNotFound"


async def test_another_operator_goes_on_where_the_last_one_was() -> None:
    rig = Rig()
    rig.says(report(connected=True, counts={"delivered": 5}))
    await rig.round()
    rig.told()
    next_one = Rig()
    next_one.kube.objects[PATH] = rig.kube.objects[PATH]
    next_one.triggers.records.put(next_one.kube.objects[PATH])
    next_one.says(report(connected=True, counts={"delivered": 6}))
    await next_one.round()
    assert (next_one.status["delivered"], next_one.told()) == (6, [])


async def test_a_trigger_that_is_gone_is_forgotten() -> None:
    rig = Rig()
    rig.says(report(connected=True))
    del rig.kube.objects[PATH]
    await rig.round()
    assert not rig.triggers.records.records


async def test_another_trigger_of_the_same_name_gets_nothing_of_the_first() -> None:
    rig = Rig()
    rig.says(replace(report(connected=True, counts={"delivered": 5}), uid="earlier"))
    await rig.round()
    assert rig.status["delivered"] == 0


async def test_asynchronous_invocations_of_functions() -> None:
    rig = Rig()
    path = function_path("ns", "fn")
    rig.says(functions={"ns/fn": AsyncReport(3, 12.7, 1), "ns/gone": AsyncReport(1)})
    await rig.triggers.turn()
    assert rig.kube.objects[path]["status"]["async"] == {"waiting": 3, "oldestSeconds": 12, "deadLetters": 1}
    rig.says()
    await rig.triggers.turn()
    assert rig.kube.objects[path]["status"]["async"] == {"waiting": 0, "oldestSeconds": 0, "deadLetters": 0}
    writes = len(rig.kube.written())
    await rig.triggers.turn()
    assert len(rig.kube.written()) == writes


def test_reports_survive_the_wire() -> None:
    sent = GatewayReport(
        "g",
        "e",
        (report(2, running=True, connected=True, message="m", counts={"failed": 1}, lag=4),),
        {"a/b": AsyncReport(1)},
    )
    got = GatewayReport.from_json(sent.to_json())
    assert got.to_json() == sent.to_json()
    assert got.triggers[0].counts == {name: int(name == "failed") for name in COUNTERS}
