"""Tokens of the cluster's users and service accounts: TokenReview says whose it is, SubjectAccessReview whether RBAC
allows the verb `invoke` on this Function.

Both answers together are remembered for a short time, good and bad ones apart, so that strangers' tokens cannot push
good ones out. Callers with the same token share one review; only so many run at a time, so that strangers cannot load
the API server. While it is away, remembered answers hold until their time; whoever is not remembered gets 503.

The Authorization header does not reach the function: with a token made for the API server it could act as its caller.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import aiohttp

from kappa_api import names
from kappa_api.callers import KubernetesAuth
from kappa_gateway.auth import credentials, refusals
from kappa_gateway.auth.cache import Cache, Digests
from kappa_gateway.auth.identity import Identity
from kappa_gateway.errors import GatewayError
from kappa_gateway.headers import Field
from kappa_gateway.kube import ApiError
from kappa_gateway.request import Request

Json = Any
TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
VERB: Final = "invoke"
#: Tokens that may wait to be reviewed. More than the API server could answer before the callers' patience ends.
MAX_RUNNING: Final = 1000


class Poster(Protocol):
    """What creates reviews: `kube.Kube`, or a table of answers in tests."""

    async def post(self, path: str, body: Json) -> Json: ...


class Reviews:
    """What all functions share. `wall` in epoch seconds. `seconds`: how long a good answer and a bad one hold."""

    def __init__(self, wall: Callable[[], float], seconds: tuple[float, float], size: int, at_once: int) -> None:
        self.api: Poster | None = None
        self.wall = wall
        self.allowed_seconds, self.denied_seconds = seconds
        self.allowed: Cache[Identity] = Cache(size)
        self.denied: Cache[tuple[bool, str]] = Cache(size)
        self.running: dict[bytes, asyncio.Task[Identity]] = {}
        self.problem = ""
        self._turns = asyncio.Semaphore(at_once)

    async def post(self, path: str, body: Json) -> Json:
        """The status of a review. Raises GatewayError (503)."""
        if self.api is None:
            raise refusals.unavailable("this gateway has no Kubernetes API")
        try:
            async with self._turns:
                answer = await self.api.post(path, body)
            self.problem = ""
            return answer.get("status") or {}
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError) as error:
            self.problem = f"{path}: {error!r}"
            raise refusals.unavailable("the Kubernetes API does not check tokens now") from error

    async def close(self) -> None:
        for task in self.running.values():
            task.cancel()


class KubeVerifier:
    """The callers of one function (or of one object of another `resource`)."""

    def __init__(self, key: str, auth: KubernetesAuth, reviews: Reviews, resource: str = names.FUNCTION_PLURAL) -> None:
        self._key, self._auth, self._reviews, self._resource = key, auth, reviews, resource
        self._namespace, _, self._name = key.partition("/")
        self._digests = Digests()

    def known(self, request: Request) -> Identity | None:
        """The caller, if remembered. Raises GatewayError for none, and for one that is remembered as refused."""
        token = credentials.bearer(request)
        if not token:
            raise refusals.missing(self._key, "a bearer token of this cluster")
        reviews, digest = self._reviews, self._digests.of(token)
        now = reviews.wall()
        identity = reviews.allowed.get(digest, now)
        if identity is not None:
            credentials.withhold(request, Field.AUTHORIZATION)
            return identity
        if (refusal := reviews.denied.get(digest, now)) is not None:
            raise self._refusal(refusal)
        return None

    async def verify(self, request: Request) -> Identity:
        """Raises GatewayError: 401, 403, or 503 when the API server does not answer."""
        token = credentials.bearer(request)
        digest = self._digests.of(token)
        running = self._reviews.running
        task = running.get(digest)
        if task is None:
            if len(running) >= MAX_RUNNING:
                raise refusals.unavailable("too many tokens are being checked")
            task = running[digest] = asyncio.get_running_loop().create_task(self._review(token, digest))
            task.add_done_callback(lambda done: _forget(running, digest, done))
        identity = await asyncio.shield(task)
        credentials.withhold(request, Field.AUTHORIZATION)
        return identity

    def trouble(self) -> str:
        return self._reviews.problem

    async def _review(self, token: bytes, digest: bytes) -> Identity:
        reviews = self._reviews
        user = await self._user(token)
        if user is None:
            return self._refuse(digest, (False, "the token is not one of this cluster, or has ended"))
        name = str(user.get("username", ""))
        if not await self._allowed(user):
            return self._refuse(
                digest, (True, f"{name} may not {VERB} {self._resource}/{self._name} in {self._namespace}")
            )
        facts = {key: user[key] for key in ("uid", "groups", "extra") if user.get(key)}
        identity = Identity.named("kubernetes", name, facts)
        now = reviews.wall()
        reviews.allowed.put(digest, identity, min(now + reviews.allowed_seconds, _ends(token)))
        return identity

    async def _user(self, token: bytes) -> Mapping[str, Json] | None:
        spec: dict[str, Json] = {"token": token.decode("latin-1")}
        if self._auth.audiences:
            spec["audiences"] = list(self._auth.audiences)
        status = await self._reviews.post(
            TOKEN_REVIEWS, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        )
        if status.get("authenticated") is not True or not isinstance(status.get("user"), dict):
            return None
        # An authenticator that knows no audiences leaves them out: then the token is for the API server alone
        if self._auth.audiences and not set(self._auth.audiences) & set(status.get("audiences") or ()):
            return None
        found: Mapping[str, Json] = status["user"]
        return found

    async def _allowed(self, user: Mapping[str, Json]) -> bool:
        spec = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups") or [],
            "extra": user.get("extra") or {},
            "resourceAttributes": {
                "namespace": self._namespace,
                "verb": VERB,
                "group": names.GROUP,
                "version": names.VERSION,
                "resource": self._resource,
                "name": self._name,
            },
        }
        status = await self._reviews.post(
            ACCESS_REVIEWS, {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        )
        return status.get("allowed") is True and status.get("denied") is not True

    def _refuse(self, digest: bytes, refusal: tuple[bool, str]) -> Identity:
        reviews = self._reviews
        reviews.denied.put(digest, refusal, reviews.wall() + reviews.denied_seconds)
        raise self._refusal(refusal)

    def _refusal(self, refusal: tuple[bool, str]) -> GatewayError:
        known, why = refusal
        return (refusals.forbidden if known else refusals.invalid)(self._key, why)


def _forget(running: dict[bytes, asyncio.Task[Identity]], digest: bytes, done: asyncio.Task[Identity]) -> None:
    running.pop(digest, None)
    if not done.cancelled():
        done.exception()  # whoever waited has it; nobody may have


def _ends(token: bytes) -> float:
    """When a token that the API server accepted ends, where it says so (it is a JWT); else never."""
    try:
        part = token.split(b".")[1]
        ends = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))).get("exp")
        return float(ends) if ends is not None else float("inf")
    except (IndexError, ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        return float("inf")
