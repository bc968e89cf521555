"""kopf's part: watch events into the store, and the work they cause into the queue. Nothing is decided here.

kopf keeps the watches alive (relist, back-off, credentials). It writes nothing: no finalizers, no annotations, no
Events.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import kopf

from kappa_api import names
from kappa_operator.kube import Kube
from kappa_operator.store import Keys, Store
from kappa_operator.triggers.records import TriggerStore

Json = Any

#: Instances and gateways; the selector is the server's, so other pods never reach this process.
POD_SELECTOR = f"{names.LABEL_COMPONENT} in ({names.COMPONENT_INSTANCE},{names.COMPONENT_GATEWAY})"
#: The operator's own snapshots are never watched.
CONFIG_SELECTOR = f"{names.LABEL_MANAGED_BY}!={names.MANAGER}"


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where watched objects go, and the work that they cause."""

    store: Store
    triggers: TriggerStore
    wake: Callable[[Keys], None]


def register(
    registry: kopf.OperatorRegistry,
    sinks: Sinks,
    kube: Kube,
    listed: Callable[[], None],
) -> None:
    """Registers the handlers. They are coroutines because kopf runs plain functions in threads.

    `listed` is called for each object that comes from a list instead of the watch: something may have been missed.
    """

    store, triggers, wake = sinks.store, sinks.triggers, sinks.wake

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection(kube)

    @kopf.on.event(names.GROUP, names.VERSION, names.FUNCTION_PLURAL, registry=registry)
    async def function(event: Mapping[str, Json], body: Mapping[str, Json], **_: Any) -> None:
        raw = event["object"]
        if event["type"] is None:
            listed()
        if event["type"] == "DELETED":
            wake(store.drop_function(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"))
        else:
            wake(store.put_function(raw))

    @kopf.on.event(names.GROUP, names.VERSION, names.TRIGGER_PLURAL, registry=registry)
    async def trigger(event: Mapping[str, Json], **_: Any) -> None:
        raw = event["object"]
        if event["type"] is None:
            listed()
        if event["type"] == "DELETED":
            wake(triggers.drop(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"))
        else:
            wake(triggers.put(raw))

    @kopf.on.event(names.GROUP, names.VERSION, names.RUNTIME_PLURAL, registry=registry)
    async def runtime(event: Mapping[str, Json], **_: Any) -> None:
        raw = event["object"]
        if event["type"] is None:
            listed()
        wake(store.drop_runtime(raw["metadata"]["name"]) if event["type"] == "DELETED" else store.put_runtime(raw))

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: Mapping[str, Json], **_: Any) -> None:
        raw = event["object"]
        if event["type"] is None:
            listed()
        if event["type"] == "DELETED":
            meta = raw["metadata"]
            wake(store.drop_pod(f"{meta['namespace']}/{meta['name']}", meta["uid"]))
        else:
            wake(store.put_pod(raw))

    @kopf.on.event("", "v1", "namespaces", registry=registry)
    async def namespace(event: Mapping[str, Json], **_: Any) -> None:
        raw = event["object"]
        if event["type"] == "DELETED":
            store.drop_namespace(raw["metadata"]["name"])
        else:
            store.put_namespace(raw)

    @kopf.on.event("", "v1", "configmaps", registry=registry)
    async def config_map(event: Mapping[str, Json], **_: Any) -> None:
        meta = event["object"]["metadata"]
        wake(store.config_changed(meta["namespace"], meta["name"]))


def settings() -> kopf.OperatorSettings:
    """kopf reduced to watching."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.posting.loggers = False
    chosen.scanning.disabled = True
    chosen.process.ultimate_exiting_timeout = None
    chosen.persistence.diffbase_storage = _NoDiff()
    chosen.persistence.progress_storage = _NoProgress()
    chosen.watching.label_selectors["", "v1", "pods"] = POD_SELECTOR
    chosen.watching.label_selectors["", "v1", "configmaps"] = CONFIG_SELECTOR
    chosen.watching.chunk_size = 500
    # A watch whose other end vanished without a word is noticed when it should have ended and did not.
    chosen.watching.server_timeout = 120
    chosen.watching.client_timeout = 135
    # A worker (a task with a queue) lives this long after an object's event: thousands of them exist after a list.
    chosen.queueing.idle_timeout = 0.1
    chosen.networking.request_timeout = 60
    chosen.networking.connect_timeout = 10
    for name in ("kopf", "kopf.objects"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return chosen


async def connection(kube: Kube) -> kopf.ConnectionInfo:
    """Our own connection settings, as kopf wants them."""
    configuration = kube.configuration
    scheme, _, token = (await kube.authorization()).partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


class _NoDiff(kopf.DiffBaseStorage):
    """Only for change handlers, of which there are none: the default copies every object on every event."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return


class _NoProgress(kopf.ProgressStorage):
    """Only for change handlers too."""

    def fetch(self, *, key: Any, body: Any) -> Any:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        return

    def clear(self, *, essence: Any) -> Any:
        return essence
