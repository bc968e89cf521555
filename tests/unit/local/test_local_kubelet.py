"""The kubelet's decisions: environment, images, status, probes, logs, addresses. No processes."""

from __future__ import annotations

import base64
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from kappa_local.kubelet.addresses import Network
from kappa_local.kubelet.env import ConfigError, PodFacts, environment, expand, quantity
from kappa_local.kubelet.images import UnknownImageError, command, parse, repository
from kappa_local.kubelet.logs import LogOptions, shaped
from kappa_local.kubelet.probes import ProbeSpec, Verdict, pause
from kappa_local.kubelet.status import ContainerView, conditions, phase, running, terminated, waiting

Obj = dict[str, Any]
FACTS = PodFacts("127.20.0.9", "node", "127.20.0.1")
POD: Obj = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a/b": "c"}, "annotations": {}},
    "spec": {"containers": [], "serviceAccountName": "robot"},
}
OBJECTS = {
    ("configmaps", "cm"): {"data": {"k": "v"}, "binaryData": {"b": base64.b64encode(b"x").decode()}},
    ("secrets", "s"): {"data": {"k": base64.b64encode(b"hush").decode()}},
}


def lookup(plural: str, name: str) -> Obj | None:
    return OBJECTS.get((plural, name))


@pytest.mark.parametrize(
    ("text", "result"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(NONE)", "$(NONE)"), ("a$(A)b$(B)", "a1b2"), ("$A", "$A"), ("100$$", "100$")],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == result


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.labels['a/b']", "c"),
        ("metadata.annotations['none']", ""),
        ("status.podIP", "127.20.0.9"),
        ("spec.serviceAccountName", "robot"),
    ],
)
def test_field_references(path: str, value: str) -> None:
    container = {"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}
    assert environment(POD, container, FACTS, lookup) == {"X": value}


def test_sources() -> None:
    container = {
        "envFrom": [
            {"configMapRef": {"name": "cm"}, "prefix": "P_"},
            {"secretRef": {"name": "none", "optional": True}},
        ],
        "env": [
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "BOTH", "value": "$(S)-$(P_k)"},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "none", "optional": True}}},
        ],
    }
    assert environment(POD, container, FACTS, lookup) == {"P_k": "v", "P_b": "x", "S": "hush", "BOTH": "hush-v"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "none"}}, "couldn't find key none in Secret n/s"),
        ({"fieldRef": {"fieldPath": "spec.other"}}, "unsupported fieldPath: spec.other"),
    ],
)
def test_sources_that_are_missing(source: Obj, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        environment(POD, {"env": [{"name": "X", "valueFrom": source}]}, FACTS, lookup)


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("1.5Gi", 1.5 * 2**30), ("2", 2.0), ("1e3", 1000.0), ("100k", 1e5)]
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


TABLE = {"app": ["python3", "-m", "app"]}


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        ({"image": "app"}, [sys.executable, "-m", "app"]),
        ({"image": "reg:5000/team/app:1.2@sha256:00", "args": ["--x"]}, [sys.executable, "-m", "app", "--x"]),
        ({"image": "other", "command": ["/usr/bin/python", "x.py"], "args": ["a"]}, [sys.executable, "x.py", "a"]),
        ({"command": ["nginx", "-g"]}, ["nginx", "-g"]),
    ],
)
def test_commands(container: Obj, argv: list[str]) -> None:
    assert command(container, TABLE) == argv


def test_an_image_that_nobody_knows() -> None:
    with pytest.raises(UnknownImageError, match=r'cannot run image "x/y:1".*Known images: app.*--image y=COMMAND'):
        command({"image": "x/y:1"}, TABLE)


def test_image_options() -> None:
    assert parse("app=python -m 'my app'") == ("app", ["python", "-m", "my app"])
    assert repository("a/b/c:1") == "c"
    with pytest.raises(ValueError, match="NAME=COMMAND"):
        parse("app")


UP, WAIT = running("t"), waiting("ContainerCreating")
GOOD, BAD = terminated(0, "s", "t"), terminated(1, "s", "t")


@pytest.mark.parametrize(
    ("policy", "inits", "mains", "stopping", "expected"),
    [
        ("Always", [], [WAIT], False, "Pending"),
        ("Always", [], [UP], False, "Running"),
        ("Always", [], [UP, WAIT], False, "Running"),
        ("Always", [], [BAD], False, "Running"),
        ("OnFailure", [], [BAD], False, "Running"),
        ("OnFailure", [], [GOOD], False, "Succeeded"),
        ("Never", [], [GOOD, GOOD], False, "Succeeded"),
        ("Never", [], [GOOD, BAD], False, "Failed"),
        ("Never", [], [GOOD, UP], False, "Running"),
        ("Never", [UP], [WAIT], False, "Pending"),
        ("Never", [BAD], [WAIT], False, "Failed"),
        ("Always", [BAD], [WAIT], False, "Pending"),
        ("Always", [GOOD], [UP], False, "Running"),
        ("Always", [], [GOOD], True, "Succeeded"),
        ("Always", [], [BAD], True, "Failed"),
    ],
)
def test_phases(policy: str, inits: list[Obj], mains: list[Obj], stopping: bool, expected: str) -> None:
    def views(states: list[Obj]) -> list[ContainerView]:
        return [ContainerView(f"c{i}", "i", state) for i, state in enumerate(states)]

    assert phase(policy, views(inits), views(mains), stopping=stopping) == expected


def test_conditions_keep_their_time_and_others_conditions() -> None:
    old = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "before"},
        {"type": "Ready", "status": "False", "lastTransitionTime": "before"},
        {"type": "custom", "status": "True"},
    ]
    pod = {"spec": {}, "status": {"conditions": old}}
    found = {c["type"]: c for c in conditions(pod, "Running", [], [ContainerView("c", "i", UP, ready=True)], "now")}
    assert found["PodScheduled"]["lastTransitionTime"] == "before"
    assert (found["Ready"]["status"], found["Ready"]["lastTransitionTime"]) == ("True", "now")
    assert found["custom"] == {"type": "custom", "status": "True"}


def test_a_readiness_gate_holds_the_pod() -> None:
    pod = {"spec": {"readinessGates": [{"conditionType": "gate"}]}, "status": {}}
    view = ContainerView("c", "i", UP, ready=True)
    found = {c["type"]: c["status"] for c in conditions(pod, "Running", [], [view], "now")}
    assert (found["Ready"], found["ContainersReady"]) == ("False", "True")
    pod["status"] = {"conditions": [{"type": "gate", "status": "True"}]}
    assert {c["type"]: c["status"] for c in conditions(pod, "Running", [], [view], "now")}["Ready"] == "True"


def test_a_probe_counts_failures_by_its_period() -> None:
    verdict = Verdict(ProbeSpec({}, period=10, failure=3))
    answers = [verdict.add(False, moment) for moment in (0.0, 0.02, 0.5, 9.95, 12.0, 19.0, 20.0)]
    assert answers == [None, None, None, None, None, None, False]
    assert verdict.add(True, 21.0) is True
    assert [verdict.add(False, moment) for moment in (31.0, 41.0, 51.0)] == [True, True, False]


def test_a_probe_asks_often_until_the_first_success() -> None:
    spec = ProbeSpec({}, period=2)
    verdict = Verdict(spec)
    pauses = [pause(spec, verdict, asked) for asked in range(40)]
    assert pauses[0] == pytest.approx(0.015)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 2
    verdict.add(True, 0.0)
    assert pause(spec, verdict, 1) == 2


LOG = b"2024-01-01T00:00:00.000000000Z one\n2024-01-01T00:00:10.000000000Z two\n"


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (LogOptions(), [b"one\n", b"two\n"]),
        (LogOptions(since=datetime(2024, 1, 1, 0, 0, 5, tzinfo=UTC)), [b"two\n"]),
        (LogOptions(timestamps=True), LOG.splitlines(keepends=True)),
    ],
)
def test_log_lines(options: LogOptions, lines: list[bytes]) -> None:
    assert shaped(LOG, options) == lines


def test_addresses_go_round() -> None:
    network = Network(30, next=254)
    assert [network.take() for _ in range(2)] == ["127.30.0.254", "127.30.1.1"]
    network.next = 254
    assert network.take() == "127.30.1.2"
    network.free("127.30.0.254")
    network.next = 254
    assert network.take() == "127.30.0.254"
    assert network.node == "127.30.0.1"
