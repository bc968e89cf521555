"""Small parts: settings, parsing of pods, Events, snapshots, metrics, the admin port."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from kappa_operator_fakes import FakeKube

from kappa_api.function import Archive, parse_function
from kappa_api.keyring import Keyring
from kappa_api.tokens import internal_token
from kappa_api.wire import Demand
from kappa_operator.admin import Admin
from kappa_operator.env import expanded
from kappa_operator.events import BURST, Limiter, Recorder
from kappa_operator.metrics import Metrics
from kappa_operator.observed import Pod, parse_pod, parse_record, rfc3339, rfc3339_micro, timestamp
from kappa_operator.settings import Settings, SettingsError
from kappa_operator.snapshots import Snapshots, decode, encode
from kappa_operator.sources import ArchiveCache, Content, SourceError, Sources
from kappa_operator.store import Store

Json = Any


# --- settings ---------------------------------------------------------------------------------------------------------
def test_settings_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    env = {
        "KAPPA_PLATFORM_SECRET_FILE": str(tmp_path / "secret"),
        "POD_NAME": "operator-1",
        "POD_IP": "10.0.0.5",
        "KAPPA_SYSTEM_NAMESPACE": "sys",
        "KAPPA_GATEWAY_URL": "http://gw/",
        "KAPPA_ADMIN_PORT": "9000",
    }
    found = Settings.from_env(env)
    assert (found.secret, found.identity, found.address, found.admin_port) == (
        b"from-file",
        "operator-1",
        "10.0.0.5",
        9000,
    )
    assert (found.system_namespace, found.gateway_url, found.inside_url) == ("sys", "http://gw", "http://gw")
    found = Settings.from_env(env | {"KAPPA_INSIDE_URL": "http://10.0.0.9:8080/"})
    assert (found.gateway_url, found.inside_url) == ("http://gw", "http://10.0.0.9:8080")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "set KAPPA_PLATFORM_SECRET or"),
        ({"KAPPA_PLATFORM_SECRET_FILE": "/nowhere"}, "cannot read /nowhere"),
        ({"KAPPA_PLATFORM_SECRET": "s", "KAPPA_ADMIN_PORT": "x"}, "KAPPA_ADMIN_PORT: 'x' is not a number"),
        ({"KAPPA_PLATFORM_SECRET": "s", "KAPPA_SCRAPE_SECONDS": "0"}, "must be greater than zero"),
    ],
)
def test_settings_that_are_wrong(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_env(env)


# --- observed ---------------------------------------------------------------------------------------------------------
def test_a_whole_pod() -> None:
    raw = {
        "metadata": {
            "name": "fn-x",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "42",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-01T00:01:00Z",
            "labels": {
                "app.kubernetes.io/component": "instance",
                "kappa.dev/runtime": "python",
                "kappa.dev/function": "fn",
                "kappa.dev/revision": "r",
                "kappa.dev/state": "draining",
                "kappa.dev/secret-id": "5ec2e7",
            },
            "annotations": {"kappa.dev/drain-since": "2026-01-01T00:00:30Z"},
            "ownerReferences": [
                {"apiVersion": "kappa.dev/v1", "kind": "Function", "name": "fn", "uid": "f", "controller": True}
            ],
        },
        "spec": {"containers": [{"name": "sidecar", "image": "s"}, {"name": "function", "image": "i"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:20Z"}],
        },
    }
    start = timestamp("2026-01-01T00:00:00Z")
    assert parse_pod(raw) == Pod(
        namespace="ns",
        name="fn-x",
        uid="u",
        version=42,
        created=start,
        component="instance",
        runtime="python",
        function="fn",
        revision="r",
        state="draining",
        phase="Running",
        ip="10.0.0.7",
        image="i",
        ready=False,
        unready_since=start + 20,
        deleting=True,
        drain_since=start + 30,
        owner="f",
        secret_id="5ec2e7",
    )


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({}, ("", "")),
        (
            {"containerStatuses": [{"name": "function", "state": {"waiting": {"reason": "ContainerCreating"}}}]},
            ("", ""),
        ),
        (
            {
                "containerStatuses": [
                    {"name": "function", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
                ]
            },
            ("ErrImagePull", "no such image"),
        ),
        (
            {
                "containerStatuses": [
                    {"name": "function", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
                ]
            },
            ("OOMKilled", "the container ended with exit code 137"),
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, ("Evicted", "disk")),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
                ]
            },
            ("Unschedulable", "no room"),
        ),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulerError"}]}, ("", "")),
    ],
)
def test_problems_of_pods(status: Json, problem: tuple[str, str]) -> None:
    assert parse_pod({"metadata": {"name": "p"}, "status": status}).problem == problem


def test_times() -> None:
    assert rfc3339(timestamp("2026-01-01T00:00:30Z")) == "2026-01-01T00:00:30Z"
    assert rfc3339_micro(1.5) == "1970-01-01T00:00:01.500000Z"
    assert timestamp("nonsense") == timestamp(None) == 0.0


# --- Events -----------------------------------------------------------------------------------------------------------
def test_the_same_event_is_posted_once_in_ten_minutes() -> None:
    limiter = Limiter()
    assert [limiter.allows("u", "Reason", "text", now) for now in (0, 1, 599, 601)] == [True, False, False, True]


def test_one_object_cannot_flood() -> None:
    limiter = Limiter()
    allowed = sum(limiter.allows("u", "Reason", f"text {n}", 0) for n in range(100))
    assert allowed == BURST
    assert limiter.allows("another", "Reason", "text", 0)
    assert limiter.allows("u", "Reason", "later", 31)


def test_what_is_routine_does_not_use_up_the_share_of_bad_news() -> None:
    limiter = Limiter()
    assert sum(limiter.allows("u", "ScaledUp", f"text {n}", 0) for n in range(100)) == BURST
    assert limiter.allows("u", "Unschedulable", "no node", 0)


async def test_an_event_names_its_function() -> None:
    kube = FakeKube()
    recorder = Recorder(kube, "op-1", suffix=lambda: "x", wall=lambda: 1.0)  # type: ignore[arg-type]
    task = asyncio.create_task(recorder.run())
    recorder.warning(RECORD, "LoadFailed", "no")
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    (event,) = kube.objects.values()
    assert event["involvedObject"] == {
        "apiVersion": "kappa.dev/v1",
        "kind": "Function",
        "namespace": "ns",
        "name": "fn",
        "uid": "f-uid",
    }
    assert (event["type"], event["reason"], event["message"], event["firstTimestamp"]) == (
        "Warning",
        "LoadFailed",
        "no",
        "1970-01-01T00:00:01Z",
    )


# --- sources and snapshots --------------------------------------------------------------------------------------------
RAW = {
    "metadata": {"name": "fn", "namespace": "ns", "uid": "f-uid", "generation": 1, "resourceVersion": "1"},
    "spec": {
        "runtime": "python",
        "handler": "main.handler",
        "code": {"files": {"main.py": "x = 1", "täst.py": ""}},
        "env": [{"name": "A", "value": "b"}],
        "timeoutSeconds": 9,
        "concurrency": 3,
        "resources": {"limits": {"memory": "1Gi"}},
    },
}
RECORD = parse_record(RAW)


async def test_a_snapshot_brings_back_all_that_runs() -> None:
    kube, store = FakeKube(), Store()
    sources = Sources(kube, store)  # type: ignore[arg-type]
    function = parse_function(RAW)
    content = await sources.content(function)
    snapshots = Snapshots(kube, sources)  # type: ignore[arg-type]
    await snapshots.save(RECORD, "rev1", content)
    await snapshots.save(RECORD, "rev2", content)
    found = await snapshots.load(RECORD, "rev2")
    assert found.files == content.files
    assert found.spec.pod == function.spec.pod
    assert (found.spec.handler, found.spec.timeout_seconds, found.spec.concurrency) == ("main.handler", 9, 3)
    with pytest.raises(SourceError, match="rev1 is not kept"):
        await snapshots.load(RECORD, "rev1")
    manifest = kube.objects["/api/v1/namespaces/ns/configmaps/fn.revision"]
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == "f-uid"


def test_a_snapshot_of_an_archive_is_only_its_address() -> None:
    archive = {"url": "https://example.org/a.zip", "sha256": "0" * 64}
    raw = {**RAW, "spec": {"runtime": "python", "handler": "m.h", "code": {"archive": archive}}}
    content = Content(parse_function(raw).spec, {"big": bytes(1_000_000)})
    data = encode(content)
    assert len(data) < 1000
    assert decode(data).spec.code == content.spec.code


async def test_a_config_map_is_read_when_it_must_be() -> None:
    kube, store = FakeKube(), Store()
    sources = Sources(kube, store)  # type: ignore[arg-type]
    raw = {**RAW, "spec": {"runtime": "python", "handler": "m.h", "code": {"configMap": {"name": "code"}}}}
    store.put_function(raw)
    function = parse_function(raw)
    with pytest.raises(SourceError, match="there is no ConfigMap 'code' in ns"):
        await sources.revision(function)
    path = "/api/v1/namespaces/ns/configmaps/code"
    kube.put(path, {"metadata": {"name": "code"}, "data": {"m.py": "1"}, "binaryData": {"b.bin": "AAE="}})
    first = await sources.revision(function)
    before = len(kube.calls)
    assert await sources.revision(function) == first
    assert len(kube.calls) == before
    assert (await sources.content(function)).files == {"m.py": b"1", "b.bin": b"\x00\x01"}
    kube.put(path, {"metadata": {"name": "code"}, "data": {"m.py": "2"}})
    store.config_changed("ns", "code")
    assert await sources.revision(function) != first


def test_the_archive_cache_is_bounded() -> None:
    cache = ArchiveCache(most=10)
    a, b, c, d = (Archive("https://h/x", sha256) for sha256 in "abcd")
    cache.put(a, {"f": bytes(6)})
    cache.put(b, {"f": bytes(4)})
    assert cache.get(a) is not None
    cache.put(c, {"f": bytes(4)})
    assert (cache.get(b), cache.get(c) is not None, cache.size) == (None, True, 10)
    cache.put(d, {"f": bytes(100)})
    assert cache.get(d) is not None
    assert cache.get(Archive("https://other/x", "d")) is None  # who only knows the digest has not fetched it


def test_references_in_the_environment() -> None:
    entries = [
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A)-$(POD_IP)-$(C)-$$(A)-$$$(A)-$A"},
        {"name": "C", "value": "$(B"},
        {"name": "S", "valueFrom": {}},
        {"name": "N"},
    ]
    assert expanded(entries, {"POD_IP": "10.0.0.1"}) == {
        "A": "a",
        "B": "a-10.0.0.1-$(C)-$(A)-$a-$A",
        "C": "$(B",
        "N": "",
    }


# --- the admin port ---------------------------------------------------------------------------------------------------
class Lead:
    def __init__(self) -> None:
        self.heard: list[Demand] = []

    def demand(self, message: Demand) -> None:
        self.heard.append(message)

    def decisions(self) -> Json:
        return {"ns/fn": []}


async def test_only_the_leader_takes_demand_and_only_with_the_token() -> None:
    admin = Admin(Keyring(b"secret"), Metrics())
    leader = Lead()
    headers = {"Authorization": f"Bearer {internal_token(b'secret')}"}
    body = {"gateway": "g", "functions": {"ns/fn": {"waiting": 2, "inService": 1}}}
    async with TestClient(TestServer(admin.app())) as client:
        assert (await client.get("/readyz")).status == 503
        admin.ready = True
        assert await (await client.get("/readyz")).text() == "standby\n"
        assert (await client.post("/v1/demand", json=body)).status == 401
        answer = await client.post("/v1/demand", json=body, headers=headers)
        assert answer.status == 421
        assert await answer.json() == {"error": {"code": "NotLeader", "message": "not the leader"}}
        admin.leader = leader
        assert await (await client.get("/readyz")).text() == "leader\n"
        assert (await client.post("/v1/demand", json=body, headers=headers)).status == 204
        assert (await client.post("/v1/demand", json={"no": 1}, headers=headers)).status == 400
        assert (await client.post("/v1/demand", data=b"{", headers=headers)).status == 400
        assert await (await client.get("/v1/decisions", headers=headers)).json() == {"ns/fn": []}
        assert "kappa_operator_leader 0.0" in await (await client.get("/metrics")).text()
        assert (await client.get("/healthz")).status == 200
    assert leader.heard == [Demand("g", {"ns/fn": (2, 1)})]
