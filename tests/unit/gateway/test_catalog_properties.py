"""From the watches to the catalog at random: whatever order the two watches bring things in, however often, and
whatever is missed while one of them is cut, in the end the catalog is the one that the objects themselves make."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from kappa_gateway_rig import controller_reference
from kappa_profiles import tries

from kappa_gateway.catalog import Catalog
from kappa_gateway.watch import Collection, Watcher

Json = Any
FUNCTIONS = ("a", "b")
PODS = ("p", "q", "r")
FAULT = {"type": "Ready", "status": "False", "reason": "LoadFailed", "message": "no"}


class Lists:
    """The API server: answers lists with what there is now."""

    def __init__(self, objects: dict[str, dict[str, Json]]) -> None:
        self.objects = objects

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[list[Json], str]]:
        items = list(self.objects["pods" if path.endswith("pods") else "functions"].values())
        yield items[:1], "1"
        yield items[1:], "1"

    async def watch(self, path: str, query: Mapping[str, str], seconds: int) -> AsyncIterator[tuple[str, Json]]:
        raise NotImplementedError
        yield


def catalog() -> Catalog:
    return Catalog(lambda: 0.0, routes_stale=lambda: None, instance_gone=lambda key: None)


def picture(found: Catalog) -> Json:
    """Everything that a catalog knows."""
    functions = {
        key: (
            state.entry,
            state.fault,
            {
                name: (i.address, i.uid, i.concurrency, i.revision, i.state)
                for name, i in sorted(state.queue.instances.items())
            },
        )
        for key, state in sorted(found.functions.items())
    }
    routed = sorted(entry.key for entry in found.routed())
    draining = {key: instance.uid for key, instance in sorted(found.draining.items())}
    for key, instance in found.draining.items():
        assert any(state.queue.instances.get(key) is instance for state in found.functions.values())
    return functions, routed, draining, sorted(found.pods()), sorted(found.known_functions())


class CatalogMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {"functions": {}, "pods": {}}
        self.waiting: dict[str, list[tuple[str, Json]]] = {"functions": [], "pods": []}
        self.last: dict[str, tuple[str, Json] | None] = {"functions": None, "pods": None}
        self.count = 0
        self.catalog = catalog()
        self.watcher = Watcher(Lists(self.objects), self.catalog)

    def collection(self, kind: str) -> Collection:
        return self.watcher.collections[kind == "pods"]

    # --- what happens in the cluster ----------------------------------------------------------------------------------
    def change(self, kind: str, name: str, new: Json) -> None:
        old = self.objects[kind].pop(name, None)
        if new is None:
            if old is not None:
                self.waiting[kind].append(("DELETED", old))
            return
        self.objects[kind][name] = new
        self.waiting[kind].append(("MODIFIED" if old else "ADDED", new))

    @rule(name=st.sampled_from(FUNCTIONS), timeout=st.sampled_from([3, 4, -1]), routes=st.booleans(), bad=st.booleans())
    def function_is_applied(self, name: str, timeout: int, routes: bool, bad: bool) -> None:
        """`bad`: it cannot run. A timeout of -1 is not valid."""
        old = self.objects["functions"].get(name)
        meta = old["metadata"] if old else {"uid": self.uid(), "generation": 0}
        if old and timeout < 0:
            return  # the last valid spec stays: what the newest object says is not all there is to know
        meta = {
            "namespace": "default",
            "name": name,
            "uid": meta["uid"],
            "generation": meta["generation"] + 1,
            "creationTimestamp": "2024-01-01T00:00:00Z",
        }
        spec: Json = {"runtime": "python", "handler": "h.h", "code": {"inline": "x"}, "timeoutSeconds": timeout}
        if routes:
            spec["http"] = {"routes": [{"host": f"{name}.example.org", "path": "/"}]}
        status = {"observedGeneration": meta["generation"], "conditions": [FAULT]} if bad else {}
        self.change("functions", name, {"metadata": meta, "spec": spec, "status": status})

    @rule(name=st.sampled_from(FUNCTIONS))
    def function_is_deleted(self, name: str) -> None:
        self.change("functions", name, None)

    @rule(name=st.sampled_from(PODS), function=st.sampled_from(FUNCTIONS), concurrency=st.integers(1, 2))
    def pod_appears(self, name: str, function: str, concurrency: int) -> None:
        """Under a name that another one has had, perhaps, and with its address."""
        if name in self.objects["pods"]:
            return
        owner = self.objects["functions"].get(function)
        self.count += 1
        self.change(
            "pods",
            name,
            {
                "metadata": {
                    "namespace": "default",
                    "name": name,
                    "uid": self.uid(),
                    "labels": {
                        "kappa.dev/function": function,
                        "kappa.dev/state": "serving",
                        "kappa.dev/revision": "r1",
                    },
                    "annotations": {"kappa.dev/concurrency": str(concurrency)},
                    "ownerReferences": [controller_reference(function, owner["metadata"]["uid"] if owner else "u0")],
                },
                "status": {"podIP": f"10.0.0.{self.count % 3}", "phase": "Running"},
            },
        )

    @precondition(lambda self: self.objects["pods"])
    @rule(number=st.integers(0, 5), what=st.sampled_from(["drains", "is deleted", "fails", "is gone", "is gone"]))
    def pod_changes(self, number: int, what: str) -> None:
        name = sorted(self.objects["pods"])[number % len(self.objects["pods"])]
        old = self.objects["pods"][name]
        meta, status = dict(old["metadata"]), dict(old["status"])
        if what == "drains":
            meta["labels"] = {**meta["labels"], "kappa.dev/state": "draining"}
        elif what == "is deleted":
            meta["deletionTimestamp"] = "2024-01-01T00:00:00Z"
        elif what == "fails":
            status["phase"] = "Failed"
        self.change("pods", name, None if what == "is gone" else {**old, "metadata": meta, "status": status})

    def uid(self) -> str:
        self.count += 1
        return f"u{self.count}"

    # --- what the gateway hears ---------------------------------------------------------------------------------------
    def hear(self, kind: str, event: tuple[str, Json]) -> None:
        collection = self.collection(kind)
        if event[0] == "DELETED":
            collection.remove(f"default/{event[1]['metadata']['name']}")
        else:
            collection.put(event[1])
        self.last[kind] = event

    @rule(kind=st.sampled_from(["functions", "pods"]), count=st.integers(1, 3))
    def events_come(self, kind: str, count: int) -> None:
        for _ in range(min(count, len(self.waiting[kind]))):
            self.hear(kind, self.waiting[kind].pop(0))

    @rule(kind=st.sampled_from(["functions", "pods"]))
    def the_last_event_comes_again(self, kind: str) -> None:
        event = self.last[kind]
        if event is not None:
            self.hear(kind, event)

    @rule(kind=st.sampled_from(["functions", "pods"]))
    def the_watch_is_cut_and_lists_again(self, kind: str) -> None:
        self.waiting[kind].clear()
        self.last[kind] = None
        asyncio.run(self.watcher._list(self.collection(kind)))

    # --- what must be so ----------------------------------------------------------------------------------------------
    @rule()
    def all_has_come(self) -> None:
        for kind in ("pods", "functions"):
            self.events_come(kind, 1000)
        for order in (("functions", "pods"), ("pods", "functions")):
            fresh = catalog()
            for kind in order:
                for item in self.objects[kind].values():
                    (fresh.put_pod if kind == "pods" else fresh.put_function)(item)
            assert picture(self.catalog) == picture(fresh), order

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.all_has_come()


CatalogMachine.TestCase.settings = tries(150, steps=40)
TestCatalogAtRandom = CatalogMachine.TestCase
