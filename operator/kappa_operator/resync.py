"""Reads everything there is: before the first decision, when a watch has begun from a list, and every few minutes.

Before the first, because a plan made from half a list would make pods that exist already. Then, because a watch begins
with a list of kopf's own (at its start, and after 410 Gone), and kopf does not tell what disappeared before that list.
"""

from kappa_operator.handlers import POD_SELECTOR
from kappa_operator.kube import FUNCTIONS, NAMESPACES, PODS, RUNTIMES, Kube
from kappa_operator.store import ROUTES, Keys, Store, function_work


async def resync(kube: Kube, store: Store) -> Keys:
    """Brings the store up to date by lists; returns the work that follows."""
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
    return frozenset(work)


def everything(store: Store) -> Keys:
    """A look at every object: after a restart nothing else says which ones need one."""
    return frozenset({ROUTES} | {function_work(key) for key in store.functions} | store.pool_keys())
