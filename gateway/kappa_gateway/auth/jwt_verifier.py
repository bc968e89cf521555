"""Checks the JSON Web Tokens of one function, and remembers those that passed until they end."""

from collections.abc import Callable

from kappa_api.callers import JwtAuth
from kappa_gateway.auth import credentials, jwt_rules, refusals
from kappa_gateway.auth.cache import Cache, Digests
from kappa_gateway.auth.fetch import FetchError
from kappa_gateway.auth.identity import Identity
from kappa_gateway.auth.jwks import Issuers, Keys
from kappa_gateway.auth.jwt_rules import TokenError
from kappa_gateway.request import Request

#: An identity with the version of the issuer's keys that proved it: a key that is withdrawn ends what it proved.
Proven = tuple[Identity, int]


class JwtVerifier:
    """`wall` is the time in epoch seconds, which tokens speak of. The Authorization header passes to the function."""

    def __init__(
        self, key: str, auth: JwtAuth, issuers: Issuers, passed: Cache[Proven], wall: Callable[[], float]
    ) -> None:
        self._key, self._auth, self._issuers, self._passed, self._wall = key, auth, issuers, passed, wall
        self._keys: Keys = issuers.of(auth)
        self._digests = Digests()

    def known(self, request: Request) -> Identity | None:
        """The caller, if this token has passed before. Raises GatewayError when there is none."""
        token = credentials.bearer(request)
        if not token:
            raise refusals.missing(self._key, "a bearer token")
        found = self._passed.get(self._digests.of(token), self._wall())
        return found[0] if found is not None and found[1] == self._keys.version else None

    async def verify(self, request: Request) -> Identity:
        """Raises GatewayError: 401, 403, or 503 when the issuer's keys cannot be had."""
        text = credentials.bearer(request)
        try:
            token = jwt_rules.take_apart(text, self._auth)
            candidates = await self._issuers.find(self._keys, token.key_id, token.algorithm)
            version = self._keys.version
            if not candidates:
                raise TokenError("the issuer has no key of the token's key id and algorithm")
            if not any(jwt_rules.check_signature(token, key) for key in candidates):
                raise TokenError("the token's signature is not the issuer's")
            until = jwt_rules.check_claims(token.claims, self._auth, self._wall())
        except TokenError as error:
            turn_away = refusals.forbidden if error.forbidden else refusals.invalid
            raise turn_away(self._key, str(error)) from error
        except FetchError as error:
            raise refusals.unavailable("the keys of the token's issuer cannot be had") from error
        claims = dict(token.claims)
        authorizer = {"jwt": {"claims": claims, "scopes": jwt_rules.scopes(claims)}}
        identity = Identity.of("jwt", str(claims.get("sub", "")), authorizer)
        self._passed.put(self._digests.of(text), (identity, version), until)
        return identity

    def trouble(self) -> str:
        return f"issuer {self._auth.issuer}: {self._keys.problem or 'its keys were never fetched'}"
