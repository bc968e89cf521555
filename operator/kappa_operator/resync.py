"""Reads everything there is: before the first decision, and every few minutes after.

Before the first, because a plan made from half a list would make pods that exist already. Later, because a watch that
was broken for long is begun anew from a list (410 Gone), and kopf does not tell what has disappeared in between.
"""

from kappa_operator.handlers import POD_SELECTOR
from kappa_operator.kube import FUNCTIONS, PODS, RUNTIMES, Kube
from kappa_operator.observed import version_of
from kappa_operator.store import ROUTES, Keys, Store, function_work


async def resync(kube: Kube, store: Store) -> Keys:
    """Brings the store up to date by lists; returns the work that follows."""
    work: set[str] = set()
    seen = []
    async for raw in kube.items(RUNTIMES):
        seen.append(raw["metadata"]["name"])
        work |= store.put_runtime(raw)
    work |= store.keep_runtimes(seen)

    # What is newer than anything in the list appeared while it was read.
    newest, seen = 0, []
    async for raw in kube.items(PODS, POD_SELECTOR):
        newest = max(newest, version_of(raw))
        seen.append(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}")
        work |= store.put_pod(raw)
    work |= store.keep_pods(seen, newest)

    newest, seen = 0, []
    async for raw in kube.items(FUNCTIONS):
        newest = max(newest, version_of(raw))
        seen.append(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}")
        work |= store.put_function(raw)
    work |= store.keep_functions(seen, newest)
    return frozenset(work)


def everything(store: Store) -> Keys:
    """A look at every object: after a restart nothing else says which ones need one."""
    return frozenset({ROUTES} | {function_work(key) for key in store.functions} | store.pool_keys())
