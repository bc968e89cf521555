"""Tables, versions, history and watchers."""

from __future__ import annotations

from typing import Any

import pytest

from kappa_local.errors import ApiError
from kappa_local.selectors import parse
from kappa_local.store import Entry, Event, Store, Watcher
from kappa_local.watch import selected

Obj = dict[str, Any]


def obj(name: str, **labels: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": name, "labels": labels}}


def put(store: Store, name: str, namespace: str = "n", **labels: str) -> Entry:
    return store.put("things.", (namespace, name), obj(name, **labels))


def test_versions_count_up_over_all_tables() -> None:
    store = Store(start=100)
    first = put(store, "a")
    second = store.put("others.", ("", "b"), obj("b"))
    assert (first.rv, second.rv) == (101, 102)
    assert first.obj["metadata"]["resourceVersion"] == "101"


def test_entries_come_in_the_order_of_their_keys() -> None:
    store = Store(start=0)
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        put(store, name, namespace)
    table = store.table("things.")
    assert [entry.key for entry in table.entries()] == [("a", "y"), ("a", "z"), ("b", "x")]
    assert [entry.key for entry in table.entries("a")] == [("a", "y"), ("a", "z")]
    store.remove("things.", ("a", "y"), obj("y"))
    assert [entry.key for entry in table.entries()] == [("a", "z"), ("b", "x")]
    assert table.entries("none") == []
    assert len(table) == 2


def test_the_body_leaves_out_kind_and_version() -> None:
    assert put(Store(start=0), "a").body == b'"metadata":{"name":"a","labels":{},"resourceVersion":"1"}}'


def watch(store: Store, since: int | None, namespace: str | None = None, name: str | None = None) -> Watcher:
    watcher = Watcher(namespace, name, lambda: None)
    store.table("things.").watch(watcher, since)
    return watcher


def seen(watcher: Watcher) -> list[tuple[str, str, int]]:
    return [(event.type, event.entry.key[1], event.entry.rv) for event in watcher.pending]


def test_a_watcher_sees_what_follows_its_version() -> None:
    store = Store(start=0)
    put(store, "a")
    put(store, "b")
    watcher = watch(store, 1)
    put(store, "b")
    store.remove("things.", ("n", "a"), obj("a"))
    assert seen(watcher) == [("ADDED", "b", 2), ("MODIFIED", "b", 3), ("DELETED", "a", 4)]
    store.table("things.").unwatch(watcher)
    put(store, "c")
    assert len(watcher.pending) == 3


def test_a_watcher_sees_its_namespace_and_name_only() -> None:
    store = Store(start=0)
    spaces, names = watch(store, None, namespace="m"), watch(store, None, name="b")
    for namespace, name in (("n", "a"), ("m", "a"), ("n", "b")):
        put(store, name, namespace)
    assert [event.entry.key for event in spaces.pending] == [("m", "a")]
    assert [event.entry.key for event in names.pending] == [("n", "b")]


def test_history_is_bounded() -> None:
    store = Store(start=0, history=3)
    for name in "abcde":
        put(store, name)
    assert [rv for _, _, rv in seen(watch(store, 2))] == [3, 4, 5]
    with pytest.raises(ApiError, match="too old resource version: 1"):
        watch(store, 1)


def test_history_is_forgotten_with_time() -> None:
    """A hundred versions are always there; what is older than two minutes beyond them is not."""
    now = [0.0]
    store = Store(start=0, clock=lambda: now[0])
    for number in range(150):
        put(store, f"p{number}")
    watch(store, 1)
    now[0] = 121.0
    put(store, "late")
    assert len(seen(watch(store, 51))) == 100
    with pytest.raises(ApiError, match="too old resource version: 50"):
        watch(store, 50)


def test_a_version_from_before_the_start_is_too_old() -> None:
    store = Store(start=1000)
    with pytest.raises(ApiError) as caught:
        watch(store, 999)
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    watch(store, 1000)


@pytest.mark.parametrize(
    ("before", "now", "kind", "expected"),
    [
        (None, "yes", "ADDED", "ADDED"),
        (None, "no", "ADDED", None),
        ("no", "yes", "MODIFIED", "ADDED"),
        ("yes", "yes", "MODIFIED", "MODIFIED"),
        ("yes", "no", "MODIFIED", "DELETED"),
        ("no", "no", "MODIFIED", None),
        ("yes", "yes", "DELETED", "DELETED"),
        ("no", "no", "DELETED", None),
    ],
)
def test_entering_and_leaving_a_selection(before: str | None, now: str, kind: Any, expected: str | None) -> None:
    old = None if before is None else Entry(("n", "a"), obj("a", on=before), 1)
    found = selected(Event(kind, Entry(("n", "a"), obj("a", on=now), 2), old), parse("on=yes", "", ()))
    assert (found[0] if found else None) == expected
    if expected == "DELETED" and now == "no":
        assert found is not None
        assert found[1].obj["metadata"]["labels"] == {"on": "yes"}
        assert found[1].obj["metadata"]["resourceVersion"] == "2"
