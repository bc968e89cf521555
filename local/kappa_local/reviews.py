"""Answers that are computed and not stored: reviews of tokens and of access, and the Scale of an object.

Of itself every program is told that it may do everything, which is so. SubjectAccessReview answers about others, by the
roles and bindings that exist (rbac.py); TokenReview knows the tokens of service accounts (tokens.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from kappa_local import codec, rbac, tokens
from kappa_local.resources import Resource
from kappa_local.types import Obj

if TYPE_CHECKING:
    from kappa_local.handlers import Call

_RULES = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]


def answer(call: Call) -> web.Response:
    """A review resource: echo of the request with its status."""
    given = call.decoded()
    status: Obj
    match call.resource.kind:
        case "SelfSubjectRulesReview":
            status = {
                "resourceRules": _RULES,
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": False,
            }
        case "SelfSubjectReview":
            status = {"userInfo": tokens.ADMIN}
        case "TokenReview":
            status = tokens.review(call.rest, given.get("spec") or {})
        case "SubjectAccessReview":
            why = rbac.decide(call.rest, rbac.Question.of(given.get("spec") or {}))
            status = {"allowed": bool(why), **({"reason": why} if why else {})}
        case _:
            status = {"allowed": True, "reason": "kappa_local allows everything"}
    body = {
        "kind": call.resource.kind,
        "apiVersion": call.resource.api_version,
        "metadata": {"creationTimestamp": None},
        "spec": _without_empty(given.get("spec") or {}),
        "status": status,
    }
    return web.Response(body=codec.dumps(body), status=201, content_type="application/json")


def _without_empty(value: Obj) -> Obj:
    """All fields of reviews are `omitempty`."""
    full = {key: _without_empty(item) if isinstance(item, dict) else item for key, item in value.items()}
    return {key: item for key, item in full.items() if item not in ("", None, [], {})}


def scale_of(resource: Resource, obj: Obj) -> Obj:
    """The autoscaling/v1 Scale of an object with a scale subresource."""
    assert resource.scale is not None
    meta = {
        key: obj["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in obj["metadata"]
    }
    status: Obj = {"replicas": _at(obj, resource.scale.status_replicas) or 0}
    if resource.scale.selector:
        status["selector"] = _at(obj, resource.scale.selector) or ""
    spec = {"replicas": _at(obj, resource.scale.spec_replicas) or 0}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def _at(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj
