"""Reads everything there is: before the first decision, when a watch has begun from a list, and every few minutes.

Before the first, because a plan made from half a list would make pods that exist already. Then, because a watch begins
with a list of kopf's own (at its start, and after 410 Gone), and kopf does not tell what disappeared before that list.
"""

import logging

from kappa_operator.handlers import POD_SELECTOR
from kappa_operator.kube import FUNCTIONS, NAMESPACES, PODS, RUNTIMES, TRIGGERS, Kube, NotFoundError
from kappa_operator.store import ROUTES, Keys, Store, function_work
from kappa_operator.triggers.records import TriggerStore, trigger_work

logger = logging.getLogger(__name__)


async def resync(kube: Kube, store: Store, triggers: TriggerStore) -> Keys:
    """Brings the stores up to date by lists; returns the work that follows."""
    work: set[str] = set()
    seen = []
    async for raw in kube.items(RUNTIMES):
        seen.append(raw["metadata"]["name"])
        work |= store.put_runtime(raw)
    work |= store.keep_runtimes(seen)

    seen = []
    async for raw in kube.items(NAMESPACES):
        seen.append(raw["metadata"]["name"])
        store.put_namespace(raw)
    store.keep_namespaces(seen)

    known, seen = {key: pod.version for key, pod in store.pods.items()}, []
    async for raw in kube.items(PODS, POD_SELECTOR):
        seen.append(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}")
        work |= store.put_pod(raw)
    work |= store.keep_pods(seen, known)

    known, seen = {key: record.version for key, record in store.functions.items()}, []
    async for raw in kube.items(FUNCTIONS):
        seen.append(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}")
        work |= store.put_function(raw)
    work |= store.keep_functions(seen, known)
    return frozenset(work) | await _resync_triggers(kube, triggers)


async def _resync_triggers(kube: Kube, triggers: TriggerStore) -> Keys:
    work: set[str] = set()
    known, seen = triggers.versions(), []
    try:
        async for raw in kube.items(TRIGGERS):
            seen.append(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}")
            work |= triggers.put(raw)
    except NotFoundError:
        # An upgrade may come before its CRDs (Helm leaves those to the admin): Functions must not wait for them.
        logger.warning("the API server knows no Triggers: apply the chart's CRDs, then restart the operator")
    return frozenset(work | triggers.keep(seen, known))


def everything(store: Store, triggers: TriggerStore) -> Keys:
    """A look at every object: after a restart nothing else says which ones need one."""
    functions = {function_work(key) for key in store.functions}
    return frozenset({ROUTES} | functions | store.pool_keys() | {trigger_work(key) for key in triggers.records})
