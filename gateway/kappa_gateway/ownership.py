"""Which pods may be taken for a Function's instances: those that this very Function controls.

Labels say whose a pod wants to be, its owner reference whose it is. The uid tells a Function from an earlier one of the
same name, whose pods the cluster is about to delete. Functions and pods come over two watches in any order, so a pod
whose Function is not known yet passes, and one of a Function that is yet to come is set aside until it does.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kappa_api import names
from kappa_api.owners import controller, controls

Json = Any


class Ownership:
    """What is known of uids. Functions and pods are named by `namespace/name`."""

    def __init__(self) -> None:
        self._functions: dict[str, str] = {}  # uid of each Function
        self._pods: dict[str, dict[str, str]] = {}  # by Function: the uid that each pod says it belongs to
        self._aside: dict[str, dict[str, Mapping[str, Json]]] = {}  # by Function: pods that belong to another uid
        self._homes: dict[str, str] = {}  # pod -> Function

    def admits(self, key: str, function: str, pod: Mapping[str, Json]) -> bool:
        """Whether the pod `key` is an instance of `function`, whose labels it carries."""
        self.forget_pod(key)
        meta = pod.get("metadata") or {}
        owner = controller(meta)
        if owner.get("kind") != names.FUNCTION_KIND or not controls(owner, meta.get("labels") or {}):
            return False
        uid, known = str(owner.get("uid", "")), self._functions.get(function, "")
        self._homes[key] = function
        if known and uid and uid != known:
            self._aside.setdefault(function, {})[key] = pod
            return False
        self._pods.setdefault(function, {})[key] = uid
        return True

    def function(self, key: str, uid: str) -> tuple[list[tuple[str, str]], list[Mapping[str, Json]]]:
        """A Function was seen. When it is a new one: the pods that are not its own (with their owner's uid), and those
        set aside that may be."""
        if not uid or self._functions.get(key) == uid:
            return [], []
        self._functions[key] = uid
        foreign = [(pod, owner) for pod, owner in self._pods.get(key, {}).items() if owner and owner != uid]
        return foreign, list(self._aside.pop(key, {}).values())

    def functions(self) -> set[str]:
        """Every Function whose uid is known."""
        return set(self._functions)

    def pods(self) -> Iterator[str]:
        """Every pod that was admitted or set aside."""
        return iter(self._homes)

    def knows(self, pod: str) -> bool:
        """Whether it was admitted or set aside, and is still there."""
        return pod in self._homes

    def set_aside(self, key: str, function: str, pod: Mapping[str, Any]) -> None:
        """An admitted pod turned out to be another Function's: perhaps that one is yet to come."""
        _take(self._pods, function, key)
        self._aside.setdefault(function, {})[key] = pod

    def forget_function(self, key: str) -> list[Mapping[str, Json]]:
        """A Function is gone. Returns the pods set aside: they wait for a next one, as those do that come first."""
        self._functions.pop(key, None)
        return list(self._aside.pop(key, {}).values())

    def forget_pod(self, key: str) -> None:
        function = self._homes.pop(key, None)
        if function is None:
            return
        _take(self._pods, function, key)
        _take(self._aside, function, key)


def _take(held: dict[str, dict[str, Any]], function: str, key: str) -> None:
    if function in held:
        held[function].pop(key, None)
        if not held[function]:
            del held[function]
