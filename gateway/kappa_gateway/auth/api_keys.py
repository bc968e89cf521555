"""API keys: hashes in Secrets of the function's namespace, watched, so that a change of a Secret counts at once.

A Secret of type `kappa.dev/api-keys` holds `<name of the key>: sha256:<hex>`. Keys are random and long (the docs make
them with 256 bits), so a plain SHA-256 suffices: there is nothing to guess. A value that is not a hash opens nothing
and is named in the log, without itself: plain text never becomes a key, or who reads the Secret could call.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from kappa_api.callers import API_KEYS_SECRET_TYPE, KEY_HASH_PATTERN, ApiKeyAuth
from kappa_gateway.auth import credentials, refusals
from kappa_gateway.auth.identity import Identity
from kappa_gateway.headers import Field
from kappa_gateway.request import Request
from kappa_gateway.watched_secrets import WatchedSecrets

log = logging.getLogger(__name__)

Json = Any
_HASH: Final = re.compile(KEY_HASH_PATTERN)
#: Keys are found by this much of their digest; the whole is then compared in constant time.
_INDEX_BYTES: Final = 4
REMEDY: Final = "write the output of: printf %s KEY | sha256sum, as sha256:<64 hex digits>"


#: The keys of one Secret, by the begin of their digests.
Index = dict[bytes, list[tuple[bytes, Identity]]]


class KeyStore(WatchedSecrets[Index]):
    """What is known of the Secrets."""

    what = "API keys"
    setting = "gateway.auth.apiKeys.namespaces"

    def put(self, secret: Mapping[str, Json]) -> None:
        """A Secret was added or changed."""
        meta = secret["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        if secret.get("type") != API_KEYS_SECRET_TYPE:
            self.remove(key)
            return
        index: Index = {}
        for name, encoded in (secret.get("data") or {}).items():
            digest = _digest(encoded)
            if digest is None:
                log.warning("Secret %s: data[%s] is not a hash, so it opens nothing: %s", key, name, REMEDY)
                continue
            identity = Identity.named("apiKey", name, {"secret": meta["name"]})
            index.setdefault(digest[:_INDEX_BYTES], []).append((digest, identity))
        self._secrets[key] = index

    def remove(self, key: str) -> None:
        self._secrets.pop(key, None)

    def has_keys(self, secrets: Iterable[str]) -> bool:
        return any(self._secrets.get(key) for key in secrets)

    def find(self, secrets: Iterable[str], api_key: bytes) -> Identity | None:
        """Whose key this is."""
        digest = hashlib.sha256(api_key).digest()
        for secret in secrets:
            for candidate, identity in self._secrets.get(secret, {}).get(digest[:_INDEX_BYTES], ()):
                if hmac.compare_digest(candidate, digest):
                    return identity
        return None


class ApiKeyVerifier:
    """The keys of one function. Nothing is cached: looking one up costs less than asking whether it was."""

    def __init__(self, key: str, auth: ApiKeyAuth, store: KeyStore) -> None:
        self._key, self._store = key, store
        self._namespace = key.partition("/")[0]
        self._secrets: Sequence[str] = tuple(f"{self._namespace}/{name}" for name in auth.secrets)

    def known(self, request: Request) -> Identity:
        """Raises GatewayError: 401 for a wrong key, 503 when no key is known."""
        sent = credentials.api_key(request)
        presented = credentials.bearer(request)
        identity = self._store.find(self._secrets, sent or presented) if sent or presented else None
        if identity is None:
            if not self._store.has_keys(self._secrets):
                raise refusals.unavailable("the function's API keys cannot be read")
            if sent or presented:
                raise refusals.invalid(self._key, "the API key is not one of the function's")
            raise refusals.missing(self._key, "an API key, as x-api-key or as a bearer token")
        credentials.withhold(request, Field.API_KEY)
        if not sent or (presented and self._store.find(self._secrets, presented)):
            credentials.withhold(request, Field.AUTHORIZATION)
        return identity

    async def verify(self, request: Request) -> Identity:
        return self.known(request)

    def trouble(self) -> str:
        """What the admin should know when nobody can be checked."""
        if refused := self._store.trouble(self._namespace):
            return f"Secrets of type {API_KEYS_SECRET_TYPE} cannot be read in its namespace: {refused}"
        secrets = ", ".join(self._secrets)
        return f"no key in spec.http.auth.apiKey.secrets ({secrets}): make one of type {API_KEYS_SECRET_TYPE}; {REMEDY}"


def _digest(encoded: Json) -> bytes | None:
    try:
        text = base64.b64decode(encoded, validate=True).decode("ascii").strip()
    except (binascii.Error, ValueError, TypeError):
        return None
    return bytes.fromhex(text[7:]) if _HASH.fullmatch(text) else None
