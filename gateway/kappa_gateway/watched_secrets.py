"""What all collections of watched Secrets have in common: whose are known, and where they may not be read."""

import logging
from typing import Generic, TypeVar

from kappa_gateway.auth.settings import ALL

log = logging.getLogger(__name__)

T = TypeVar("T")


class WatchedSecrets(Generic[T]):
    """`what`: they are, for people; `setting`: the chart value that lets the gateway read them. `refused` says of each
    namespace that is read why that fails, "" if it works."""

    what = ""
    setting = ""

    def __init__(self) -> None:
        self._secrets: dict[str, T] = {}
        self.refused: dict[str, str] = {}

    def known(self, namespace: str) -> list[str]:
        """Keys of the Secrets, of one namespace or (ALL) of every one."""
        return [key for key in self._secrets if namespace in (ALL, key.partition("/")[0])]

    def heard(self, namespace: str, refused: str) -> None:
        """Whether the Secrets of a namespace can be read."""
        if self.refused.get(namespace) != refused:
            where = "any namespace" if namespace == ALL else f"namespace {namespace}"
            if refused:
                log.warning("%s of %s cannot be read: %s", self.what, where, refused)
            self.refused[namespace] = refused

    def trouble(self, namespace: str) -> str:
        """Why the Secrets of a namespace cannot be read, empty when they can."""
        for place in (namespace, ALL):
            if place in self.refused:
                return self.refused[place]
        return f"it is not among those that the gateway may read (chart value {self.setting})"
