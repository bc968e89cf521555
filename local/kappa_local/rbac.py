"""Who may do what, as Roles, ClusterRoles and their bindings say: the evaluation behind SubjectAccessReview. Pure.

The API of the embedded cluster itself asks nobody: every program of this machine is its admin. This answers programs
that ask on behalf of others, such as the gateway. Not here: roles aggregated by label, and the roles that a real
cluster is born with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kappa_local.rest import Rest
from kappa_local.selectors import Selector
from kappa_local.types import Obj

GROUP = "rbac.authorization.k8s.io"
ADMINS = "system:masters"
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class Question:
    """May `user` do `verb`? On a resource, or (`path` set) on a URL that is none. The namespace may be empty."""

    user: str
    groups: tuple[str, ...]
    verb: str
    namespace: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    path: str = ""

    @classmethod
    def of(cls, spec: Obj) -> Question:
        """From the spec of a SubjectAccessReview."""
        user, groups = str(spec.get("user") or ""), tuple(spec.get("groups") or ())
        if (url := spec.get("nonResourceAttributes")) is not None:
            return cls(user, groups, str(url.get("verb") or ""), path=str(url.get("path") or ""))
        what = spec.get("resourceAttributes") or {}
        keys = ("verb", "namespace", "group", "resource", "subresource", "name")
        verb, namespace, group, resource, subresource, name = (str(what.get(key) or "") for key in keys)
        return cls(user, groups, verb, namespace, group, resource, subresource, name)


def decide(rest: Rest, question: Question) -> str:
    """Why it is allowed, or an empty string when it is not."""
    if ADMINS in question.groups:
        return "the user is an admin of the cluster"
    for binding, role in _grants(rest, question):
        if any(_matches(rule, question) for rule in role.get("rules") or ()):
            where = f"/{binding['metadata']['namespace']}" if binding["metadata"].get("namespace") else ""
            kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
            return f'RBAC: allowed by {binding["kind"]} "{binding["metadata"]["name"]}{where}" of {kind} "{name}"'
    return ""


def _grants(rest: Rest, question: Question) -> Iterator[tuple[Obj, Obj]]:
    """The bindings that name the user, each with its role."""
    places: list[tuple[str, str, str | None]] = [("ClusterRoleBinding", "clusterrolebindings", None)]
    if question.namespace:
        places.append(("RoleBinding", "rolebindings", question.namespace))
    for kind, plural, namespace in places:
        for entry in rest.select(rest.builtin(plural, GROUP), namespace, Selector()):
            binding = {**entry.obj, "kind": kind}
            if not any(_names(subject, question) for subject in binding.get("subjects") or ()):
                continue
            ref = binding["roleRef"]
            table = rest.builtin("clusterroles" if ref["kind"] == "ClusterRole" else "roles", GROUP).table
            key = ("" if ref["kind"] == "ClusterRole" else entry.key[0], ref["name"])
            role = rest.store.table(table).get(key)
            if role is not None:
                yield binding, role.obj


def _names(subject: Obj, question: Question) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject.get("name") == question.user)
        case "Group":
            return subject.get("name") in question.groups
        case "ServiceAccount":
            return question.user == f"{_ACCOUNT}{subject.get('namespace')}:{subject.get('name')}"
    return False


def _matches(rule: Obj, question: Question) -> bool:
    if not _listed(rule.get("verbs"), question.verb):
        return False
    if question.path:
        paths = rule.get("nonResourceURLs") or ()
        return any(question.path == p or (p.endswith("*") and question.path.startswith(p[:-1])) for p in paths)
    resource, sub = question.resource, question.subresource
    wanted = (f"{resource}/{sub}", f"*/{sub}") if sub else (resource,)
    named = rule.get("resourceNames") or ()
    return (
        _listed(rule.get("apiGroups"), question.group)
        and any(_listed(rule.get("resources"), each) for each in wanted)
        and (not named or question.name in named)
    )


def _listed(values: Iterable[str] | None, value: str) -> bool:
    return any(each in ("*", value) for each in values or ())
