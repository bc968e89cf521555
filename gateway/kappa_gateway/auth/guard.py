"""What stands before a function: its CORS rules and its verifier. `Guard.admit` is the step of the request chain.

It runs before a body is read and before an instance is chosen: a caller who is turned away starts nothing and takes no
place in the queue. What a verified caller costs, when remembered: two lookups and no waiting.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from kappa_api import names
from kappa_api.callers import OPEN, Auth, Cors, read_auth
from kappa_api.errors import Problem
from kappa_api.fields import Reader
from kappa_api.function import Http
from kappa_gateway import cors
from kappa_gateway.auth import refusals
from kappa_gateway.auth.api_keys import ApiKeyVerifier, KeyStore
from kappa_gateway.auth.cache import Cache
from kappa_gateway.auth.failures import AUTH_FAILURES, DENIED, Failures
from kappa_gateway.auth.fetch import Fetcher, HttpFetcher
from kappa_gateway.auth.identity import Identity
from kappa_gateway.auth.kube_verifier import KubeVerifier, Poster, Reviews
from kappa_gateway.auth.settings import AuthSettings
from kappa_gateway.errors import GatewayError
from kappa_gateway.request import Request

if TYPE_CHECKING:
    from kappa_gateway.auth.jwks import Issuers
    from kappa_gateway.call import Call

log = logging.getLogger(__name__)

#: The same trouble of the same function is told again after so long.
NAG_SECONDS: Final = 60.0


class Verifier(Protocol):
    """Checks the credentials of one function's callers."""

    def known(self, request: Request) -> Identity | None:
        """The caller, if no question is needed for it; takes what the function must not see out of the request.
        Raises GatewayError."""

    async def verify(self, request: Request) -> Identity:
        """The same with questions to others, after `known` returned None. Raises GatewayError."""

    def trouble(self) -> str:
        """For the log, when it answered 503: what is wrong, and the remedy."""


class Closed:
    """Lets nobody in: the function's rules could not be understood."""

    def known(self, request: Request) -> Identity | None:
        raise refusals.unavailable("the function's rules for callers are not valid: see its Ready condition")

    async def verify(self, request: Request) -> Identity:
        raise NotImplementedError

    def trouble(self) -> str:
        return "spec.http.auth is not valid: the Function's Ready condition names the field and the remedy"


class Access:
    """What `spec.http` says about callers, with the verifier once it was needed."""

    __slots__ = ("auth", "cors", "told", "verifier")

    def __init__(self, auth: Auth, cors: Cors | None, verifier: Verifier | None = None) -> None:
        self.auth, self.cors, self.verifier = auth, cors, verifier
        self.told = float("-inf")

    @classmethod
    def of(cls, http: Http) -> "Access | None":
        """None where everybody may call and nothing is said of CORS: the request chain then does nothing."""
        return None if http.auth.type == "none" and http.cors is None else cls(http.auth, http.cors)

    @classmethod
    def salvaged(cls, resource: Mapping[str, Any], before: "Access | None") -> "Access | None":
        """Of a Function whose spec is not valid as a whole. Its last valid form goes on serving, but not to callers
        whom the newest `auth` shuts out; where that is what cannot be understood, to nobody."""
        spec = resource.get("spec")
        http = (spec.get("http") or {}) if isinstance(spec, dict) else {}
        cors_before = before.cors if before is not None else None
        problems: list[Problem] = []
        auth = read_auth(Reader(http.get("auth") if isinstance(http, dict) else "", "spec.http.auth", problems))
        if problems:
            return cls(OPEN, cors_before, Closed())
        return cls.of(Http(auth=auth, cors=cors_before))

    def __repr__(self) -> str:
        return f"<Access {self.auth.type} verifier={self.verifier!r}>"


class Guard:
    """What the verifiers of all functions share. `failures` limits how many credentials may be no good."""

    def __init__(
        self,
        settings: AuthSettings,
        failures: Failures,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._settings, self._clock, self._wall, self._fetcher = settings, clock, wall, fetcher
        self._failures = failures
        self._issuers: Issuers | None = None
        self._passed: Cache[tuple[Identity, int]] = Cache(settings.remembered)
        self.keys = KeyStore()
        self._reviews = Reviews(
            wall, (settings.allowed_seconds, settings.denied_seconds), settings.remembered, settings.reviews
        )

    def use(self, api: Poster) -> None:
        """Who answers the reviews of Kubernetes tokens."""
        self._reviews.api = api

    def admit(self, call: "Call") -> bytes | None:
        """Checks the caller. Returns header lines when the call is a preflight, to be answered with them; empty for a
        caller who may go on, whose `call.identity` is then set unless everybody may call; None when somebody else must
        be asked first (`ask`). Raises GatewayError.

        Not a coroutine: that alone would cost as much as what it does for a caller who is remembered.
        """
        entry, request = call.entry, call.request
        assert entry is not None
        access = entry.access
        assert access is not None
        verifier = access.verifier
        try:
            if access.cors is not None:
                if request.preflight:
                    return cors.preflight_lines(access.cors, request)
                call.cors = cors.reply_lines(access.cors, request.origin)
            if verifier is None:
                if access.auth.type == "none":
                    return b""
                verifier = self.bind(entry.key, access)
            identity = verifier.known(request)
        except GatewayError as failure:
            self._limit(call, failure)
            self._refused(call, access, failure)
            raise
        if identity is None:
            return None
        call.identity = identity
        call.extra += identity.lines
        return b""

    async def ask(self, call: "Call") -> None:
        """Checks the caller after `admit` returned None. Raises GatewayError."""
        assert call.entry is not None
        access = call.entry.access
        assert access is not None
        assert access.verifier is not None
        begun = self._clock()
        try:
            attempt = self._failures.begin(call, begun)
        except GatewayError:
            self._reject(call, AUTH_FAILURES)
            raise
        failed: bool | None = True  # also whoever leaves before the answer, or leaving would make it free
        try:
            async with asyncio.timeout(min(self._settings.wait_seconds, call.deadline - begun)):
                identity = await access.verifier.verify(call.request)
            failed = False
        except TimeoutError as error:
            failed = None
            late = refusals.unavailable("who you are could not be checked in time")
            self._refused(call, access, late)
            raise late from error
        except GatewayError as failure:
            failed = True if failure.code in DENIED else None
            self._refused(call, access, failure)
            raise
        finally:
            self._failures.end(attempt, self._clock(), failed)
        call.identity = identity
        call.extra += identity.lines

    def bind(self, key: str, access: Access, resource: str = names.FUNCTION_PLURAL) -> Verifier:
        """Makes the verifier. `resource`: what kind of object RBAC is asked about, in the plural."""
        auth = access.auth
        verifier: Verifier
        if auth.api_key is not None:
            verifier = ApiKeyVerifier(key, auth.api_key, self.keys)
        elif auth.jwt is not None:
            # imported on first use: cryptography costs 10 MB, and most gateways see no token
            from kappa_gateway.auth.jwt_verifier import JwtVerifier

            verifier = JwtVerifier(key, auth.jwt, self._issuers_once(), self._passed, self._wall)
        elif auth.kubernetes is not None:
            verifier = KubeVerifier(key, auth.kubernetes, self._reviews, resource)
        else:
            verifier = Closed()
        access.verifier = verifier
        return verifier

    def _issuers_once(self) -> "Issuers":
        if self._issuers is None:
            from kappa_gateway.auth.jwks import Issuers

            settings = self._settings
            fetcher = self._fetcher or HttpFetcher(allow_http=settings.allow_http)
            self._issuers = Issuers(fetcher, self._clock, settings.jwks_refresh, settings.jwks_retry)
        return self._issuers

    def _limit(self, call: "Call", failure: GatewayError) -> None:
        """Raises GatewayError (429) instead of `failure` when too many credentials of this address were no good."""
        if failure.code not in DENIED:
            return
        try:
            self._failures.turned_away(call, self._clock())
        except GatewayError as limit:
            self._reject(call, AUTH_FAILURES)
            raise limit from failure

    def _reject(self, call: "Call", reason: str) -> None:
        if call.state is not None:
            call.state.counters.reject(reason)

    def _refused(self, call: "Call", access: Access, failure: GatewayError) -> None:
        """Counts it; where nobody can be checked, says why in the log, but not for each call."""
        assert call.entry is not None
        self._reject(call, failure.code)
        if failure.code != "auth_unavailable" or access.verifier is None:
            return
        now = self._clock()
        if now - access.told >= NAG_SECONDS:
            access.told = now
            why = access.verifier.trouble()
            log.error("%s: callers cannot be checked, so nobody gets in: %s", call.entry.key, why)

    async def close(self) -> None:
        await self._reviews.close()
        if self._issuers is not None:
            await self._issuers.close()
