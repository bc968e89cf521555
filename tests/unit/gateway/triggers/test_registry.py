"""The registry, the Secrets and the watch of both: changes, faults, names that return, APIs without the CRD."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

from kappa_trigger_world import trigger

from kappa_gateway import watch as module
from kappa_gateway.catalog import Catalog
from kappa_gateway.events.bus import Bus
from kappa_gateway.events.hosting import TriggerHost
from kappa_gateway.events.ledger import Ledger
from kappa_gateway.events.secrets import SourceSecrets
from kappa_gateway.events.settings import EventSettings, load
from kappa_gateway.events.triggers import Triggers
from kappa_gateway.kube import ApiError
from kappa_gateway.watch import Watcher

DAILY = {"schedule": {"cron": "@daily"}}


def test_changes_are_told_once_each() -> None:
    triggers, told = Triggers(), list[str]()
    triggers.changed.append(told.append)
    triggers.put(trigger("a", DAILY))
    triggers.put(trigger("a", DAILY))  # its status has changed
    triggers.put(trigger("a", DAILY, generation=2))
    triggers.remove("default/a")
    triggers.remove("default/a")
    assert told == ["default/a"] * 3
    assert triggers.get("default/a") is None


def test_a_spec_that_became_invalid_stops_the_source_and_not_what_waits() -> None:
    triggers = Triggers()
    triggers.put(trigger("a", DAILY))
    triggers.put(trigger("a", {"schedule": {"cron": "no"}}, generation=2))
    known = triggers.find("default/a")
    assert known is not None
    assert (known.runs, known.trigger is not None) == (None, True)
    assert "spec.source.schedule.cron" in triggers.report()[0]["message"]


def test_filters_that_are_none_are_refused_with_their_path() -> None:
    triggers = Triggers()
    triggers.put(trigger("a", DAILY, filter={"data": {"n": [{"numeric": [">"]}]}}))
    assert triggers.get("default/a") is None
    assert "spec.filter.data.n[0].numeric: must be a list" in triggers.report()[0]["message"]


def test_who_has_the_name_next_begins_at_nothing() -> None:
    ledger = Ledger()
    triggers = Triggers(ledger, lambda: 50.0)
    triggers.put(trigger("a", DAILY))
    triggers.counts("default/a").received = 5
    tally = ledger.at("trigger", "default/a")
    tally.succeeded, tally.backlog, tally.oldest_ms = 3, 2, 40_000
    row = triggers.report()[0]
    assert (row["received"], row["delivered"], row["lag"], row["oldestSeconds"]) == (5, 3, 2, 10.0)
    triggers.put(trigger("a", DAILY, uid="another"))
    row = triggers.report()[0]
    assert (row["uid"], row["received"], row["delivered"], row["lag"]) == ("another", 0, 0, 0)


def test_of_kind() -> None:
    triggers = Triggers()
    triggers.put(trigger("a", {"event": {}}, suspend=True))
    triggers.put(trigger("b", DAILY))
    assert [found.name for found in triggers.of_kind("default", "event")] == ["a"]
    assert triggers.of_kind("other", "event") == []
    found = triggers.get("default/b")
    assert found is not None
    assert triggers.shape(found) == "schedule"


def secret(kind: str = "kappa.dev/source", **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"namespace": "n", "name": "s"}, "type": kind, "data": encoded}


def test_secrets_are_decoded_and_changes_told() -> None:
    store, told = SourceSecrets(), list[str]()
    store.changed.append(told.append)
    store.put(secret(url="a"))
    store.put(secret(url="a"))
    assert store.get("n/s") == {"url": b"a"}
    store.put(secret(url="b"))
    store.put(secret("Opaque", url="c"))
    assert (store.get("n/s"), told) == (None, ["n/s"] * 3)


def test_values_that_are_no_base64_do_not_show(caplog: Any) -> None:
    store = SourceSecrets()
    store.put({"metadata": {"namespace": "n", "name": "s"}, "type": "kappa.dev/source", "data": {"k": "geheim!"}})
    assert store.get("n/s") == {}
    assert "geheim" not in caplog.text


def test_settings() -> None:
    env = {"KAPPA_SHARED_SUBJECTS": "a., b", "KAPPA_SOURCE_SECRET_NAMESPACES": "x,y", "KAPPA_ALLOW_LOOPBACK": "true"}
    found = load(env | {"KAPPA_KUBERNETES_SOURCES": "pods"})
    assert (found.shared_subjects, found.secret_namespaces) == (("a.", "b"), ("x", "y"))
    assert (found.allow_loopback, found.resources) == (True, ("pods",))
    assert load({}).secret_namespaces == ("*",)
    assert load({"KAPPA_SOURCE_SECRET_NAMESPACES": ""}).secret_namespaces == ()


class Api:
    """An API server whose answer for Triggers is `triggers`; everything else is empty."""

    def __init__(self, triggers: Any) -> None:
        self.triggers, self.asked = triggers, list[str]()
        self.watched = asyncio.Event()

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[list[Any], str]]:
        self.asked.append(path)
        if path.endswith("/triggers"):
            if isinstance(self.triggers, Exception):
                raise self.triggers
            yield self.triggers, "1"
        else:
            yield [], "1"

    async def watch(self, path: str, query: Mapping[str, str], seconds: int) -> AsyncIterator[tuple[str, Any]]:
        if path.endswith("/triggers"):
            self.watched.set()
        await asyncio.Event().wait()
        yield "", {}


async def watching(api: Api, host: TriggerHost) -> Watcher:
    catalog = Catalog(lambda: 0.0, routes_stale=lambda: None, instance_gone=lambda key: None)
    watcher = Watcher(api, catalog, *host.collections())
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(5):
        await watcher.wait_synced()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return watcher


def host() -> TriggerHost:
    settings = EventSettings(secret_namespaces=("n",))
    return TriggerHost(settings, Bus(settings), lambda lane: None, "g")


async def test_triggers_come_by_the_watch() -> None:
    api, made = Api([trigger("a", DAILY)]), host()
    await watching(api, made)
    assert made.triggers.synced
    assert made.triggers.get("default/a") is not None
    assert "/api/v1/namespaces/n/secrets" in api.asked


async def test_an_api_without_triggers_hurts_nobody(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0)
    for status in (403, 404):
        api, made = Api(ApiError(status, "no")), host()
        watcher = await watching(api, made)
        assert watcher.synced
        # What waits for Triggers that cannot be seen must not be taken for orphaned
        assert not made.triggers.synced
