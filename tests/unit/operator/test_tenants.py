"""What tenants may put before the operator: pods that pretend, snapshots that were changed, volumes that reach out."""

import base64
import gzip
import json
from typing import Any

import pytest

from kappa_api.errors import SpecError
from kappa_api.function import VOLUME_KINDS, parse_function
from kappa_operator.observed import parse_pod
from kappa_operator.snapshots import KEY, Snapshots, decode, encode, snapshot_name
from kappa_operator.sources import Content, SourceError
from kappa_operator.status import Observation, ready_condition
from kappa_operator.store import Store

Json = Any

FUNCTION = {"apiVersion": "kappa.dev/v1", "kind": "Function", "name": "fn", "uid": "f1", "controller": True}
RUNTIME = {**FUNCTION, "kind": "Runtime", "name": "python", "uid": "r1"}


def pod(name: str, *owners: Json, **labels: str) -> Json:
    marks = {"app.kubernetes.io/component": "instance", **{f"kappa.dev/{key}": value for key, value in labels.items()}}
    meta = {"name": name, "namespace": "ns", "uid": name, "labels": marks, "ownerReferences": list(owners)}
    return {"metadata": meta, "status": {"podIP": "10.0.0.9", "phase": "Running"}}


def function(uid: str = "f1", **spec: Json) -> Json:
    base = {"runtime": "python", "handler": "main.handler", "code": {"inline": "x"}}
    return {"metadata": {"name": "fn", "namespace": "ns", "uid": uid, "generation": 1}, "spec": {**base, **spec}}


POOL, SERVES = {"runtime": "python", "state": "pool"}, {"runtime": "python", "function": "fn", "state": "serving"}


@pytest.mark.parametrize(
    ("owners", "labels", "taken"),
    [
        ([RUNTIME], POOL, True),
        ([FUNCTION], SERVES, True),
        ([], POOL, False),
        ([], SERVES, False),
        ([FUNCTION], POOL, False),
        ([RUNTIME], SERVES, False),
        ([{**RUNTIME, "controller": False}], POOL, False),
        ([{**RUNTIME, "name": "other"}], POOL, False),
        ([{**FUNCTION, "apiVersion": "v1"}], SERVES, False),
    ],
)
def test_only_what_a_resource_of_ours_controls_is_an_instance(owners: list[Json], labels: Json, taken: bool) -> None:
    assert parse_pod(pod("p", *owners, **labels)).component == ("instance" if taken else "")
    store = Store()
    assert bool(store.put_pod(pod("p", *owners, **labels))) is taken
    assert bool(store.pool("ns", "python") or store.instances("ns/fn")) is taken


def test_pods_of_an_earlier_owner_of_the_same_name() -> None:
    store = Store()
    store.put_pod(pod("old", FUNCTION, **SERVES))
    store.put_pod(pod("empty", RUNTIME, **POOL))
    assert [p.name for p in (*store.instances("ns/fn"), *store.pool("ns", "python"))] == ["old", "empty"]
    store.put_function(function("f2"))
    store.put_runtime({"metadata": {"name": "python", "uid": "r2"}, "spec": {"image": "i"}})
    assert store.instances("ns/fn") == store.pool("ns", "python") == ()


# --- volumes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "volume",
    [{"hostPath": {"path": "/"}}, {"nfs": {}}, {"image": {}}, {"secret": {}, "hostPath": {}}, {"new": {}}],
    ids=str,
)
def test_volumes_that_reach_out_of_the_pod(volume: Json) -> None:
    with pytest.raises(SpecError, match=r"spec\.volumes\[0\]\.\w+.*use one of configMap") as caught:
        parse_function(function(volumes=[{"name": "v", **volume}]))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("kind", VOLUME_KINDS)
def test_volumes_that_stay_inside(kind: str) -> None:
    assert parse_function(function(volumes=[{"name": "v", kind: {}}])).spec.pod.volumes


# --- snapshots --------------------------------------------------------------------------------------------------------
def snapshot(change: Any = None) -> bytes:
    spec = parse_function(function(volumes=[{"name": "v", "emptyDir": {}}])).spec
    what = json.loads(gzip.decompress(encode(Content(spec, {"main.py": b"x"}))))
    if change is not None:
        change(what)
    return gzip.compress(json.dumps(what).encode())


CHANGES: dict[str, Any] = {
    "a volume of the node": lambda what: what["volumes"].append({"name": "root", "hostPath": {"path": "/"}}),
    "a path out of the folder": lambda what: what["files"].update({"../../etc/cron.d/x": ""}),
    "no volumes at all": lambda what: what.pop("volumes"),
    "volumes that are none": lambda what: what.update(volumes=[1]),
    "files that are no base64": lambda what: what["files"].update({"a": "!"}),
    "an archive of another shape": lambda what: what.update(archive={"url": "https://x", "more": 1}),
}


class Shelf:
    """A Kubernetes API that has one ConfigMap."""

    def __init__(self, data: bytes) -> None:
        self.raw = {
            "metadata": {"labels": {"kappa.dev/revision": "r1"}},
            "binaryData": {KEY: base64.b64encode(data).decode()},
        }

    async def get(self, path: str) -> Json:
        assert path == f"/api/v1/namespaces/ns/configmaps/{snapshot_name('fn')}"
        return self.raw


async def load(data: bytes) -> Content:
    store = Store()
    store.put_function(function())
    return await Snapshots(Shelf(data), None).load(store.functions["ns/fn"], "r1")  # type: ignore[arg-type]


async def test_a_snapshot_as_it_was_written() -> None:
    assert (await load(snapshot())).files == {"main.py": b"x"}


@pytest.mark.parametrize(
    "data",
    [
        *(snapshot(change) for change in CHANGES.values()),
        b"",
        b"not gzip",
        gzip.compress(b"[]"),
        gzip.compress(b"{"),
        gzip.compress(b"[" * 100_000),
        gzip.compress(bytes(20 << 20)),
        snapshot()[:-9],
    ],
    ids=[*CHANGES, "empty", "no gzip", "a list", "no JSON", "deep JSON", "a bomb", "cut short"],
)
async def test_a_snapshot_that_a_tenant_has_changed_is_as_good_as_lost(data: bytes) -> None:
    """Whoever may write ConfigMaps could otherwise have the operator make pods that no Function may ask for."""
    with pytest.raises(SourceError, match="not kept any more") as caught:
        await load(data)
    assert caught.value.reason == "RevisionLost"


def test_what_decode_accepts_it_would_write_again() -> None:
    data = snapshot()
    assert decode(encode(decode(data))) == decode(data)


# --- hosts ------------------------------------------------------------------------------------------------------------
def routed(namespace: str, name: str, day: int, path: str) -> Json:
    raw = function(http={"routes": [{"host": "api.a.org", "path": path}]})
    meta = {"name": name, "namespace": namespace, "uid": name, "creationTimestamp": f"2024-01-0{day}T00:00:00Z"}
    return {**raw, "metadata": meta}


def test_a_function_on_another_tenants_host_is_told_so() -> None:
    store = Store()
    for raw in (routed("a", "one", 1, "/hello"), routed("b", "two", 2, "/login"), routed("a", "three", 3, "/more")):
        store.put_function(raw)
    assert store.assign_routes() == {"function/b/two"}
    seen = Observation("two", 1, "u", target="r", active="r", has_routes=True, conflicts=store.conflicts["b/two"])
    status, reason, message = ready_condition(seen)
    assert (status, reason) == ("False", "RouteConflict")
    assert message.startswith("host api.a.org belongs to namespace a (a/one is older): choose another host")
    store.shared_hosts = frozenset({"api.a.org"})
    assert store.assign_routes() == {"function/b/two"}
    assert store.conflicts == {}
