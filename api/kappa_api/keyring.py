"""The platform secrets that a process knows, read from the mounted Secret and read again when it changes.

A Secret may hold two: `secret`, which everything is signed with, and `previous`, which is accepted besides. Mounted
volumes change at different times on different nodes, so that during a rotation one process may know only the old
secret and another both: who knows both tries the old one where the new one is refused. `docs/decisions/0009` says why.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from kappa_api import names
from kappa_api.tokens import accepts, internal_token, pod_token

log = logging.getLogger(__name__)

#: Name of the file beside the current secret's that holds the previous one (a key of the Secret).
PREVIOUS = "previous"
#: How often the files are read again. The kubelet itself takes up to a minute and a half to change them.
RELOAD_SECONDS = 5.0


class KeyringError(ValueError):
    """There is no platform secret to be had; the message names the variable."""


class Keyring:
    """The current platform secret first, then the previous one if there is one.

    `file` is where the current one stands; without it (tests, the embedded cluster) the secret never changes.
    """

    def __init__(self, secret: bytes, file: str = "") -> None:
        self._file = Path(file) if file else None
        self._silent = False
        self._secrets: tuple[bytes, ...] = ()
        self._take((secret, *self._previous()))

    def __repr__(self) -> str:
        return f"<Keyring {' '.join(self.ids)}>"  # ids tell nothing of the secrets

    @property
    def current(self) -> bytes:
        return self._secrets[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """The secrets' ids, in the order of the secrets."""
        return tuple(key_id(secret) for secret in self._secrets)

    # --- who signs ----------------------------------------------------------------------------------------------------
    def internal(self) -> tuple[str, ...]:
        """Tokens for another component, in the order in which to try them."""
        return self._internal

    def for_pod(self, namespace: str, pod: str, secret_id: str = "") -> Iterator[str]:
        """Tokens for a pod's runtime in the order in which to try them: that of the secret it was made with first."""
        first = sorted(self._secrets, key=lambda secret: key_id(secret) != secret_id)
        return (pod_token(secret, namespace, pod) for secret in first)

    # --- who checks ---------------------------------------------------------------------------------------------------
    def accepts_internal(self, authorization: str) -> bool:
        """Whether an `Authorization` header carries the internal token of one of the secrets. Always compares all."""
        found = [accepts(token, authorization) for token in self._internal]
        return any(found)

    # --- change -------------------------------------------------------------------------------------------------------
    def reload(self) -> bool:
        """Reads the files again; returns whether the secrets are others now. What cannot be read changes nothing."""
        if self._file is None:
            return False
        try:
            secret = self._file.read_bytes().strip()
        except OSError as error:
            secret = b""
            if not self._silent:
                log.warning("cannot read the platform secret again: %s; the one known stays", error.strerror)
            self._silent = True
        if not secret:
            return False
        self._silent = False
        found = tuple(dict.fromkeys((secret, *self._previous())))
        if found == self._secrets:
            return False
        self._take(found)
        log.info("the platform secret changed: signing with %s, accepting %s", self.ids[0], " and ".join(self.ids))
        return True

    async def keep(self, seconds: float = RELOAD_SECONDS) -> None:
        """Reads the files again and again until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            self.reload()

    def _previous(self) -> tuple[bytes, ...]:
        if self._file is None:
            return ()
        try:
            found = self._file.with_name(PREVIOUS).read_bytes().strip()
        except OSError:
            return ()
        return (found,) if found else ()

    def _take(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = tuple(dict.fromkeys(secrets))
        self._internal = tuple(internal_token(secret) for secret in self._secrets)


def key_id(secret: bytes) -> str:
    """Names a secret without telling anything of it: what pods carry, and what logs may show."""
    return hmac.new(secret, b"id", hashlib.sha256).hexdigest()[:8]


def read_secret(env: Mapping[str, str]) -> tuple[bytes, str]:
    """The platform secret and the file that it was read from (empty: a variable). Raises KeyringError."""
    path = env.get(names.ENV_SECRET_FILE, "")
    if path:
        try:
            secret = Path(path).read_bytes().strip()
        except OSError as error:
            raise KeyringError(f"{names.ENV_SECRET_FILE}: cannot read {path}: {error.strerror}") from error
        if not secret:
            raise KeyringError(f"{names.ENV_SECRET_FILE}: {path} is empty")
        return secret, path
    secret = env.get(names.ENV_SECRET, "").encode()
    if not secret:
        raise KeyringError(f"set {names.ENV_SECRET} or {names.ENV_SECRET_FILE} to the platform secret")
    return secret, ""
