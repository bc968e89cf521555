"""From the cluster to the catalog: lists, events, outages and old versions, with a scripted API and no waiting."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from kappa_gateway_rig import controller_reference

from kappa_gateway import watch as module
from kappa_gateway.catalog import Catalog
from kappa_gateway.kube import PROBES, ApiError, Kube
from kappa_gateway.watch import FUNCTIONS_PATH, PODS_PATH, Watcher, key_of


def function(name: str, version: str = "1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "resourceVersion": version,
            "creationTimestamp": "2024-01-01T00:00:00Z",
        },
        "spec": {"runtime": "python", "handler": "main.handler", "code": {"inline": "x"}, **spec},
    }


def pod(
    name: str, fn: str = "hello", version: str = "1", state: str = "serving", ip: str = "10.0.0.1", **meta: Any
) -> dict[str, Any]:
    labels = {"kappa.dev/function": fn, "kappa.dev/state": state, "kappa.dev/revision": "r1"}
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "resourceVersion": version,
            "labels": labels,
            "ownerReferences": [controller_reference(fn)],
            **meta,
        },
        "status": {"podIP": ip, "phase": "Running"},
    }


def catalog() -> Any:
    changes: list[str] = []
    found = Catalog(
        lambda: 0.0, routes_stale=lambda: changes.append("routes"), instance_gone=lambda key: changes.append(key)
    )
    found.changes = changes  # type: ignore[attr-defined]
    return found


def queue(found: Catalog, name: str = "hello") -> Any:
    return found.functions[f"default/{name}"].queue


def test_an_instance_is_what_serves_and_has_an_address() -> None:
    found = catalog()
    found.put_function(function("hello", concurrency=7))
    for name, changed in {
        "pool": pod("pool", state="pool"),
        "starting": pod("starting", state="starting"),
        "homeless": pod("homeless", ip=""),
        "over": {**pod("over"), "status": {"podIP": "10.0.0.9", "phase": "Failed"}},
        "nameless": pod("nameless", fn=""),
    }.items():
        found.put_pod(changed)
        assert list(found.pods()) == [], name
    found.put_pod(pod("a"))
    found.put_pod(pod("b", annotations={"kappa.dev/concurrency": "3"}))
    found.put_pod(pod("c", annotations={"kappa.dev/concurrency": "many"}))
    found.put_pod(pod("d", deletionTimestamp="2024-01-01T00:00:00Z"))
    instances = queue(found).instances
    assert {key: (i.concurrency, i.free, i.revision) for key, i in instances.items()} == {
        "default/a": (7, 7, "r1"),
        "default/b": (3, 3, "r1"),
        "default/c": (7, 7, "r1"),
        "default/d": (7, 0, "r1"),
    }
    assert list(found.draining) == ["default/d"]
    found.put_pod(pod("a", state="draining"))
    assert queue(found).instances["default/a"].free == 0
    found.put_pod({**pod("a"), "status": {"podIP": "10.0.0.1", "phase": "Succeeded"}})
    found.remove_pod("default/d")
    assert found.changes == ["default/a", "default/d"]
    assert found.draining == {}


def test_pods_may_come_before_their_function_and_stay_after_it() -> None:
    found = catalog()
    found.put_pod(pod("a"))
    assert (list(found.known_functions()), list(found.pods())) == ([], ["default/a"])
    found.put_function(function("hello"))
    assert queue(found).free == 1
    found.remove_function("default/hello")
    assert (list(found.known_functions()), len(found.functions)) == ([], 1)
    found.remove_pod("default/a")
    assert found.functions == {}


def test_a_pod_that_moves_to_another_function() -> None:
    found = catalog()
    found.put_pod(pod("a"))
    found.put_pod(pod("a", fn="other"))
    assert list(found.functions) == ["default/other"]


def test_a_spec_that_is_not_valid_keeps_the_last_valid_one() -> None:
    found = catalog()
    found.put_function(function("hello", timeoutSeconds=5))
    found.put_function(function("hello", timeoutSeconds=-5))
    found.put_function(function("never", timeoutSeconds=-5))
    assert list(found.known_functions()) == ["default/hello"]
    assert found.functions["default/hello"].entry.timeout == 5.0


def test_a_fault_is_known_even_of_a_spec_that_was_never_valid() -> None:
    found = catalog()
    resource = function("never", timeoutSeconds=-5)
    resource["metadata"]["generation"] = 1
    condition = {"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": "spec.timeoutSeconds: no"}
    found.put_function({**resource, "status": {"observedGeneration": 1, "conditions": [condition]}})
    assert found.functions["default/never"].fault == "the function cannot run (InvalidSpec): its status says why"
    assert list(found.known_functions()) == ["default/never"]
    found.remove_function("default/never")
    assert not found.functions


def test_a_change_of_status_costs_nothing() -> None:
    found = catalog()

    def versioned(generation: int, uid: str = "u", **spec: Any) -> dict[str, Any]:
        resource = function("hello", **spec)
        resource["metadata"].update(generation=generation, uid=uid)
        return resource

    found.put_function(versioned(1))
    entry = found.functions["default/hello"].entry
    found.put_function(versioned(1, status="new"))
    assert found.functions["default/hello"].entry is entry
    found.put_function(versioned(2, timeoutSeconds=9))
    assert found.functions["default/hello"].entry.timeout == 9.0
    found.put_function(versioned(2, uid="another", timeoutSeconds=8))
    assert found.functions["default/hello"].entry.timeout == 8.0


def test_the_host_table_is_made_anew_only_when_routes_change() -> None:
    found = catalog()
    found.put_function(function("plain"))
    assert found.changes == []
    routes = {"routes": [{"host": "a.org", "path": "/x"}]}
    found.put_function(function("hello", http=routes))
    found.put_function(function("hello", http=routes, timeoutSeconds=9))
    assert found.changes == ["routes"]
    found.rebuild_routes()
    assert found.routes.find("a.org", "GET", "/x").key == "default/hello"
    found.remove_function("default/plain")
    assert found.changes == ["routes"]
    found.remove_function("default/hello")
    assert found.changes == ["routes", "routes"]


def test_code_is_not_kept() -> None:
    found = catalog()
    found.put_function({**function("big"), "spec": {**function("big")["spec"], "code": {"inline": "#" * 100_000}}})
    assert "#####" not in repr(found.functions["default/big"].entry)


class Script:
    """Answers lists and watches from lists of steps; a step may be an exception. Waits for ever after the last."""

    def __init__(self) -> None:
        self.lists: dict[str, list[Any]] = {FUNCTIONS_PATH: [], PODS_PATH: [([], "1")]}
        self.watches: dict[str, list[Any]] = {FUNCTIONS_PATH: [], PODS_PATH: []}
        self.asked: list[tuple[str, str]] = []
        self.empty = asyncio.Event()

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[list[Any], str]]:
        self.asked.append(("list", path))
        step = self.lists[path].pop(0)
        if isinstance(step, Exception):
            raise step
        items, version = step
        for start in range(0, max(1, len(items)), 2):
            yield items[start : start + 2], version

    async def watch(self, path: str, query: Mapping[str, str], seconds: int) -> AsyncIterator[tuple[str, Any]]:
        self.asked.append(("watch from " + query["resourceVersion"], path))
        if not self.watches[path]:
            if path == FUNCTIONS_PATH:
                self.empty.set()
            await asyncio.Event().wait()
        for step in self.watches[path].pop(0):
            if isinstance(step, Exception):
                raise step
            yield step


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        taken.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", record)
    return taken


async def play(script: Script, found: Any) -> list[str]:
    """Runs until the script for Functions is at its end; what was asked about them."""
    watcher = Watcher(script, found)
    assert not watcher.synced
    task = asyncio.create_task(watcher.run())
    await script.empty.wait()
    await watcher.wait_synced()
    assert watcher.synced
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return [what for what, path in script.asked if path == FUNCTIONS_PATH]


async def test_events_are_applied(pauses: list[float]) -> None:
    script, found = Script(), catalog()
    script.lists[FUNCTIONS_PATH] = [([function("a"), function("b")], "5")]
    script.watches[FUNCTIONS_PATH] = [
        [
            ("ADDED", function("c", "6")),
            ("MODIFIED", function("a", "7", timeoutSeconds=9)),
            ("DELETED", function("b", "8")),
            ("BOOKMARK", {"metadata": {"resourceVersion": "20"}}),
        ]
    ]
    assert await play(script, found) == ["list", "watch from 5", "watch from 20"]
    assert sorted(found.known_functions()) == ["default/a", "default/c"]
    assert found.functions["default/a"].entry.timeout == 9.0
    assert pauses == []


async def test_an_old_version_lists_again_without_a_gap(pauses: list[float]) -> None:
    script, found = Script(), catalog()
    script.lists[FUNCTIONS_PATH] = [([function("a"), function("b")], "5"), ([function("b"), function("c")], "90")]
    script.watches[FUNCTIONS_PATH] = [[("MODIFIED", function("a", "6")), ApiError(410, "too old")]]
    asked = await play(script, found)
    assert asked == ["list", "watch from 5", "list", "watch from 90"]
    assert sorted(found.known_functions()) == ["default/b", "default/c"]


async def test_an_outage_keeps_what_is_known(pauses: list[float]) -> None:
    script, found = Script(), catalog()
    outage = aiohttp.ClientConnectionError("no")
    script.lists[FUNCTIONS_PATH] = [outage, TimeoutError(), ([function("a")], "5")]
    script.watches[FUNCTIONS_PATH] = [[outage], [ApiError(500, "x")], [TimeoutError()], []]
    asked = await play(script, found)
    assert asked == ["list"] * 3 + ["watch from 5"] * 5
    assert list(found.known_functions()) == ["default/a"]
    assert len(pauses) == 5
    assert all(0 < pause <= module.LAST_PAUSE for pause in pauses)


async def test_a_watch_that_is_cut_again_and_again_is_soon_begun_anew(pauses: list[float]) -> None:
    """As long as it brings something in between, pauses do not grow."""
    script, found = Script(), catalog()
    cut = aiohttp.ClientConnectionError("cut")
    script.lists[FUNCTIONS_PATH] = [([function("a")], "5")]
    script.watches[FUNCTIONS_PATH] = [[("MODIFIED", function("a", str(number))), cut] for number in range(6, 30)]
    await play(script, found)
    assert len(pauses) == 24
    assert max(pauses) <= module.FIRST_PAUSE
    script, pauses[:] = Script(), []
    script.lists[FUNCTIONS_PATH] = [([function("a")], "5")]
    script.watches[FUNCTIONS_PATH] = [[cut]] * 24
    await play(script, catalog())
    assert max(pauses) > module.LAST_PAUSE / 2


async def test_an_event_that_cannot_be_read_does_not_end_the_watch(pauses: list[float]) -> None:
    script, found = Script(), catalog()
    script.lists[FUNCTIONS_PATH] = [([function("a")], "5")]
    script.watches[FUNCTIONS_PATH] = [[ValueError("not JSON")], [("ADDED", function("b", "6"))]]
    await play(script, found)
    assert sorted(found.known_functions()) == ["default/a", "default/b"]


def test_key_of() -> None:
    assert key_of(function("a")) == "default/a"


async def test_the_kernel_asks_whether_the_other_end_of_a_watch_is_there() -> None:
    async def one_event(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        line = b'{"type": "ADDED", "object": {}}\n'
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line))

    class Client:
        """The little that Kube uses of the official one."""

        def __init__(self, session: aiohttp.ClientSession, host: str) -> None:
            self.session, self.configuration, self.rest_client = session, SimpleNamespace(host=host), self
            self.answers: list[aiohttp.ClientResponse] = []

        async def update_params_for_auth(self, *_: Any) -> None: ...

        async def request(self, method: str, url: str, headers: Any, _request_timeout: Any) -> Any:
            self.answers.append(await self.session.request(method, url, headers=headers, timeout=_request_timeout))
            return SimpleNamespace(response=self.answers[-1])

    server = await asyncio.start_server(one_event, "127.0.0.1", 0)
    host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, aiohttp.ClientSession() as session:
        client = Client(session, host)
        events = Kube(client).watch("/pods", {}, 60)
        assert await anext(events) == ("ADDED", {})
        connection = client.answers[0].connection
        assert connection is not None
        assert connection.transport is not None
        found = connection.transport.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for name, value in PROBES.items():
            if hasattr(socket, name):
                assert found.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
        await events.aclose()  # type: ignore[attr-defined]


def test_a_function_made_anew_does_not_inherit_the_spec_of_the_one_before() -> None:
    """Its deletion was missed, and its own spec is not valid."""
    found = catalog()
    first, second = function("hello"), function("hello", timeoutSeconds=-5)
    first["metadata"]["uid"], second["metadata"]["uid"] = "u1", "u2"
    found.put_function(first)
    found.put_function(second)
    assert found.functions == {}


def test_a_pod_that_is_seen_before_its_function_outlives_a_late_word_of_the_one_before() -> None:
    found = catalog()
    mine = pod("p", uid="p1", ownerReferences=[controller_reference("hello", "u2")])
    found.put_pod(mine)
    for uid, instances in (("u1", []), ("u2", ["default/p"])):
        seen = function("hello")
        seen["metadata"]["uid"] = uid
        found.put_function(seen)
        assert list(queue(found).instances) == instances
    assert (queue(found).free, list(found.pods())) == (1, ["default/p"])


def test_another_pod_of_a_name_is_not_draining_because_the_one_before_was() -> None:
    found = catalog()
    found.put_function(function("hello"))
    found.put_pod(pod("p", state="draining", uid="p1"))
    found.put_pod(pod("p", uid="p2"))
    assert (queue(found).free, found.draining) == (1, {})
