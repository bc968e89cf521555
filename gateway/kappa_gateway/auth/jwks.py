"""The public keys of token issuers, kept fresh: fetched on first use, again by age, and at once for a key id that is
not among them (the issuer has rotated). While an issuer does not answer, its last good keys go on serving.

`Keys.plan` decides (pure, with the time as an argument); `Issuers` does the I/O. One fetch per issuer runs at a time
and belongs to nobody: a caller who leaves does not cancel it for the others.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from kappa_api.callers import JwtAuth
from kappa_gateway.auth.fetch import Fetcher, FetchError
from kappa_gateway.auth.jwt_rules import Key, read_key

log = logging.getLogger(__name__)

Json = Any
DISCOVERY: Final = "/.well-known/openid-configuration"
#: Keys this old no longer serve, even when the issuer is away: it may have withdrawn them.
MAX_STALE_SECONDS: Final = 24 * 3600.0
MAX_KEYS: Final = 100


class Step(Enum):
    """What to do about a token whose key is looked for."""

    USE = "use what is there"
    REFRESH = "use what is there, and fetch meanwhile"
    FETCH = "fetch, then look again"
    FAIL = "nothing is there, and it was tried a moment ago"


class Keys:
    """Of one issuer. Times are monotonic, in seconds. `version` changes when the keys do."""

    def __init__(self, auth: JwtAuth, refresh: float, retry: float) -> None:
        self.issuer, self.uri = auth.issuer, auth.jwks_uri
        self._refresh, self._retry = refresh, retry
        self.keys: tuple[Key, ...] = ()
        self.version = 0
        self.fetched = self.tried = float("-inf")
        self.raw: Json = None
        self.problem = ""
        self.task: asyncio.Task[None] | None = None

    def find(self, key_id: str, algorithm: str) -> Sequence[Key]:
        """The keys that may have made a signature. A token without a key id may be of any."""
        fit = [key for key in self.keys if algorithm in key.algorithms]
        return [key for key in fit if key.key_id == key_id] if key_id else fit

    def plan(self, now: float, *, found: bool) -> Step:
        rested = now - self.tried >= self._retry
        if now - self.fetched > MAX_STALE_SECONDS:
            return Step.FETCH if rested or self.task is not None else Step.FAIL
        if not found:
            # an unknown key id: perhaps a rotation, perhaps nonsense, which must not make us ask again and again
            return Step.FETCH if rested or self.task is not None else Step.USE
        return Step.REFRESH if now - self.fetched > self._refresh and rested else Step.USE

    def arrived(self, document: Json, now: float) -> None:
        """A fetched JWK set. Raises FetchError when it holds no usable key: then the old ones stay."""
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise FetchError("it is not a JWK set: there is no list of keys")
        if listed != self.raw:
            keys = tuple(key for jwk in listed[:MAX_KEYS] if (key := read_key(jwk)) is not None)
            if not keys:
                raise FetchError("it has no public key that can check signatures")
            self.keys, self.raw = keys, listed
            self.version += 1
        self.fetched, self.problem = now, ""

    def __repr__(self) -> str:
        return f"<Keys of {self.issuer} {[key.key_id for key in self.keys]} version={self.version}>"


class Issuers:
    """All issuers that functions name."""

    def __init__(self, fetcher: Fetcher, clock: Callable[[], float], refresh: float, retry: float) -> None:
        self._fetcher, self._clock, self._refresh, self._retry = fetcher, clock, refresh, retry
        self._known: dict[tuple[str, str], Keys] = {}

    def of(self, auth: JwtAuth) -> Keys:
        """Shared by all functions that name the same place."""
        place = (auth.issuer, auth.jwks_uri)
        found = self._known.get(place)
        if found is None:
            if len(self._known) >= 10_000:  # functions come and go; keys are fetched again when needed
                self._known.clear()
            found = self._known[place] = Keys(auth, self._refresh, self._retry)
        return found

    async def find(self, keys: Keys, key_id: str, algorithm: str) -> Sequence[Key]:
        """The keys for a token; empty when the issuer has none. Raises FetchError when nothing is known of it."""
        found = keys.find(key_id, algorithm)
        step = keys.plan(self._clock(), found=bool(found))
        if step is Step.REFRESH:
            self._fetch(keys)
        elif step is Step.FETCH:
            await asyncio.shield(self._fetch(keys))
            found = keys.find(key_id, algorithm)
        if self._clock() - keys.fetched > MAX_STALE_SECONDS:
            raise FetchError(keys.problem)
        return found

    async def close(self) -> None:
        for keys in self._known.values():
            if keys.task is not None:
                keys.task.cancel()
        await self._fetcher.close()

    def _fetch(self, keys: Keys) -> asyncio.Task[None]:
        if keys.task is None:
            keys.tried = self._clock()
            keys.task = asyncio.get_running_loop().create_task(self._run(keys))
        return keys.task

    async def _run(self, keys: Keys) -> None:
        try:
            uri = keys.uri or await self._discover(keys.issuer)
            keys.arrived(await self._fetcher.json(uri), self._clock())
        except FetchError as error:
            keys.problem = str(error)
            log.warning("keys of issuer %s: %s; %d known keys go on serving", keys.issuer, error, len(keys.keys))
        finally:
            keys.task = None

    async def _discover(self, issuer: str) -> str:
        """OpenID Connect Discovery 1.0, section 4."""
        document = await self._fetcher.json(issuer.rstrip("/") + DISCOVERY)
        if not isinstance(document, dict) or document.get("issuer") != issuer:
            raise FetchError("its discovery document is of another issuer")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str) or not urlsplit(uri).hostname:
            raise FetchError("its discovery document names no jwks_uri")
        return uri
