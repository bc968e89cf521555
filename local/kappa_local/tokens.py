"""Tokens of service accounts: made by the subresource `serviceaccounts/token`, recognised by TokenReview.

They are JSON Web Tokens as in a real cluster, but signed with a secret of this process (HS256): nobody else can check
them, and they end with it. A token counts until it ends, while the service account that it was made for is there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

from kappa_local import errors
from kappa_local.errors import Cause
from kappa_local.rest import Rest
from kappa_local.types import Obj

AUDIENCE = "https://kubernetes.default.svc"
ADMIN = {"username": "kappa-local", "groups": ["system:masters", "system:authenticated"]}
DEFAULT_SECONDS, LEAST_SECONDS, MOST_SECONDS = 3600, 600, 1 << 32
_HEADER = {"alg": "HS256", "typ": "JWT"}


def request(rest: Rest, namespace: str, name: str, given: Obj) -> Obj:
    """A TokenRequest with its token. Raises the server's errors."""
    account = rest.get(rest.builtin("serviceaccounts"), (namespace, name)).obj
    spec = given.get("spec") or {}
    audiences = spec.get("audiences") or [AUDIENCE]
    seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
    if seconds < LEAST_SECONDS or seconds > MOST_SECONDS:
        what = "less than 10 minutes" if seconds < LEAST_SECONDS else "larger than 2^32 seconds"
        cause = Cause(
            "FieldValueInvalid",
            f"Invalid value: {seconds}: may not specify a duration {what}",
            "spec.expirationSeconds",
        )
        raise errors.invalid("authentication.k8s.io", "TokenRequest", "", [cause])
    now = int(time.time())
    claims = {
        "aud": audiences,
        "exp": now + seconds,
        "iat": now,
        "iss": AUDIENCE,
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
        },
        "nbf": now,
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }
    ends = datetime.fromtimestamp(now + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": datetime.now(UTC).isoformat()[:19] + "Z",
        },
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": spec.get("boundObjectRef")},
        "status": {"token": sign(rest.token_key, claims), "expirationTimestamp": ends},
    }


def review(rest: Rest, spec: Obj) -> Obj:
    """The status of a TokenReview."""
    token, wanted = str(spec.get("token") or ""), list(spec.get("audiences") or [AUDIENCE])
    claims = read(rest.token_key, token)
    problem = "invalid bearer token" if claims is None else _problem(rest, claims, wanted)
    if claims is None or problem:
        return {"user": {}, "error": f"[{problem}]"}
    account = claims["kubernetes.io"]["serviceaccount"]
    namespace = claims["kubernetes.io"]["namespace"]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {
        "authenticated": True,
        "user": {"username": claims["sub"], "uid": account["uid"], "groups": groups},
        "audiences": [name for name in wanted if name in claims["aud"]],
    }


def _problem(rest: Rest, claims: Obj, wanted: list[str]) -> str:
    if claims["exp"] <= time.time():
        return "token has expired"
    if not set(wanted) & set(claims["aud"]):
        return f"token audiences {claims['aud']} is invalid for the target audiences {wanted}"
    made_for = claims["kubernetes.io"]
    table = rest.store.table(rest.builtin("serviceaccounts").table)
    account = table.get((made_for["namespace"], made_for["serviceaccount"]["name"]))
    if account is None or account.obj["metadata"]["uid"] != made_for["serviceaccount"]["uid"]:
        return "service account has been deleted"
    return ""


def sign(key: bytes, claims: Obj) -> str:
    text = f"{_encoded(_HEADER)}.{_encoded(claims)}"
    return f"{text}.{_base64(hmac.digest(key, text.encode(), hashlib.sha256))}"


def read(key: bytes, token: str) -> Obj | None:
    """The claims of a token of ours, or None."""
    text, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_base64(hmac.digest(key, text.encode(), hashlib.sha256)).encode(), signature.encode()):
        return None
    part = text.partition(".")[2]
    claims: Obj = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _encoded(value: Any) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
