"""Credentials of sources: Secrets of type kappa.dev/source, watched, so that a change counts at once.

They are kept decoded, in memory only; nothing of them goes into a log, a status or an error.
"""

import base64
import binascii
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from kappa_api.trigger import SOURCE_SECRET_TYPE
from kappa_gateway.watched_secrets import WatchedSecrets

log = logging.getLogger(__name__)

#: Who deletes a whole file, or a namespace, deletes the Secret and the Trigger in any order; what the Trigger's source
#: left in another system (a replication slot fills its server's disk) can be cleared only with the credentials.
LATE_SECONDS: Final = 300.0

Json = Any


class SourceSecrets(WatchedSecrets[Mapping[str, bytes]]):
    """What is known of them, by `namespace/name`. `changed` is told the key of each that is new, changed or gone."""

    what = "Secrets of sources"
    setting = "gateway.events.secretNamespaces"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._late: dict[str, tuple[Mapping[str, bytes], float]] = {}
        self.changed: list[Callable[[str], None]] = []

    def put(self, secret: Mapping[str, Json]) -> None:
        """A Secret was added or changed."""
        meta = secret["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        if secret.get("type") != SOURCE_SECRET_TYPE:
            self.remove(key)
            return
        data = {}
        for name, encoded in (secret.get("data") or {}).items():
            try:
                data[name] = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError, TypeError):
                log.warning("Secret %s: data[%s] is not base64", key, name)
        if self._secrets.get(key) != data:
            self._secrets[key] = data
            self._tell(key)

    def remove(self, key: str) -> None:
        now = self._clock()
        self._late = {key: late for key, late in self._late.items() if now - late[1] < LATE_SECONDS}
        if (data := self._secrets.pop(key, None)) is not None:
            self._late[key] = (data, now)
            self._tell(key)

    def get(self, key: str) -> Mapping[str, bytes] | None:
        """The data of `namespace/name`; None: it is not there, is of another type, or may not be read."""
        return self._secrets.get(key)

    def late(self, key: str) -> Mapping[str, bytes] | None:
        """As `get`, or the last data of a Secret that went within LATE_SECONDS: only for clearing up."""
        found, since = self._late.get(key, (None, 0.0))
        return self.get(key) or (found if self._clock() - since < LATE_SECONDS else None)

    def _tell(self, key: str) -> None:
        for listener in self.changed:
            listener(key)
