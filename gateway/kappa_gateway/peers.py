"""How many gateways share the work: what a limit for all of them is divided by.

Read from a watch of the gateways' pods. Those that are Ready count, and this one in any case: it serves, or it would
not ask. While the API server is away the last number stays; while nothing is known it is one. A gateway that becomes
ready or unready is noticed as fast as the watch brings it, usually within milliseconds; until then the limit is off by
its share.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from kappa_api import names

Json = Any

SELECTOR: Final = f"{names.LABEL_PART_OF}=kappa,{names.LABEL_COMPONENT}={names.COMPONENT_GATEWAY}"


class Peers:
    """The ready gateways. `count` is never below one."""

    __slots__ = ("_own", "_pods", "_ready", "count")

    def __init__(self, own: str) -> None:
        self._own = own  # `namespace/name` of this gateway's pod
        self._pods: set[str] = set()
        self._ready: set[str] = set()
        self.count = 1

    def put(self, pod: Mapping[str, Json]) -> None:
        """A gateway's pod was added or changed."""
        meta, status = pod["metadata"], pod.get("status") or {}
        key = f"{meta.get('namespace')}/{meta.get('name')}"
        self._pods.add(key)
        conditions = status.get("conditions") or ()
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
        if ready and not meta.get("deletionTimestamp") and status.get("phase") not in ("Succeeded", "Failed"):
            self._ready.add(key)
        else:
            self._ready.discard(key)
        self._recount()

    def remove(self, key: str) -> None:
        self._pods.discard(key)
        self._ready.discard(key)
        self._recount()

    def known(self) -> Iterable[str]:
        """Keys of all pods, ready or not."""
        return iter(self._pods)

    def _recount(self) -> None:
        self.count = len(self._ready | {self._own})

    def __repr__(self) -> str:
        return f"<Peers {self.count} ready of {len(self._pods)}>"
