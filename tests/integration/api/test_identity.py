"""Who somebody is (TokenRequest, TokenReview) and what RBAC lets them do (SubjectAccessReview)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest
from kappa_fixtures_local import Api, Obj

ACCOUNTS = "/api/v1/namespaces/{ns}/serviceaccounts"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
INVOKE = {"group": "kappa.dev", "version": "v1", "resource": "functions", "verb": "invoke", "name": "hello"}


@pytest.fixture
async def account(api: Api, name: str) -> AsyncIterator[str]:
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    (await api.post(ACCOUNTS, body)).ok()
    yield name
    await api.delete(f"{ACCOUNTS}/{name}")


async def token(api: Api, account: str, **spec: object) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    reply = await api.post(f"{ACCOUNTS}/{account}/token", body)
    assert reply.status == 201, reply.body
    assert reply.body["kind"] == "TokenRequest"
    assert reply.body["status"]["expirationTimestamp"].endswith("Z")
    return str(reply.body["status"]["token"])


async def review(api: Api, given: str, *audiences: str) -> Obj:
    spec: Obj = {"token": given, **({"audiences": list(audiences)} if audiences else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    reply = await api.post(TOKEN_REVIEWS, body)
    assert reply.status == 201, reply.body
    found: Obj = reply.body["status"]
    return found


async def may(api: Api, user: Obj, **attributes: str) -> bool:
    wanted = {**INVOKE, "namespace": api.ns, **attributes}
    who = {"user": user["username"], "groups": user.get("groups", []), "uid": user.get("uid", "")}
    spec = {**who, "resourceAttributes": wanted}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    reply = await api.post(ACCESS_REVIEWS, body)
    assert reply.status == 201, reply.body
    # A real server leaves empty strings out of what it answers.
    assert reply.body["spec"]["resourceAttributes"] == {key: value for key, value in wanted.items() if value}
    return bool(reply.body["status"]["allowed"])


async def until(api: Api, user: Obj, *, allowed: bool = True, **attributes: str) -> None:
    """The real authorizer sees a change of roles through a watch, a moment later."""
    async with asyncio.timeout(20):
        while await may(api, user, **attributes) is not allowed:
            pass


def role(name: str, *names: str, kind: str = "Role") -> Obj:
    rule: Obj = {"apiGroups": ["kappa.dev"], "resources": ["functions"], "verbs": ["invoke"]}
    if names:
        rule["resourceNames"] = list(names)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "rules": [rule],
    }


def binding(name: str, subject: Obj, *, kind: str = "Role", scope: str = "RoleBinding") -> Obj:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": scope,
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [subject],
    }


async def user_of(api: Api, account: str) -> Obj:
    status = await review(api, await token(api, account))
    assert status["authenticated"] is True
    found: Obj = status["user"]
    return found


async def test_a_token_says_whose_it_is(api: Api, account: str) -> None:
    user = await user_of(api, account)
    made = (await api.get(f"{ACCOUNTS}/{account}")).ok()
    assert user["username"] == f"system:serviceaccount:{api.ns}:{account}"
    assert user["uid"] == made["metadata"]["uid"]
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{api.ns}", "system:authenticated"}
    assert set(user["groups"]) == groups


async def test_the_claims_of_a_token(api: Api, account: str) -> None:
    part = (await token(api, account, audiences=["robots"], expirationSeconds=700)).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert claims["aud"] == ["robots"]
    assert claims["exp"] - claims["iat"] == 700
    assert claims["sub"] == f"system:serviceaccount:{api.ns}:{account}"
    assert claims["kubernetes.io"]["namespace"] == api.ns
    assert claims["kubernetes.io"]["serviceaccount"]["name"] == account


async def test_a_token_for_another_audience(api: Api, account: str) -> None:
    made = await token(api, account, audiences=["robots"])
    good = await review(api, made, "robots", "others")
    assert (good["authenticated"], good["audiences"]) == (True, ["robots"])
    for status in (await review(api, made), await review(api, made, "others")):
        assert not status.get("authenticated")
        assert status["error"]


@pytest.mark.parametrize("given", ["nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."])
async def test_what_is_no_token(api: Api, given: str) -> None:
    status = await review(api, given)
    assert not status.get("authenticated")
    assert not status["user"].get("username")


async def test_a_token_ends_with_its_account(api: Api, account: str) -> None:
    made = await token(api, account)
    (await api.delete(f"{ACCOUNTS}/{account}")).ok()
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
    (await api.post(ACCOUNTS, body)).ok()
    assert not (await review(api, made)).get("authenticated")


async def test_token_requests_that_are_refused(api: Api, account: str) -> None:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    (await api.post(f"{ACCOUNTS}/nobody/token", body)).refused(404, "NotFound")
    short = {**body, "spec": {"expirationSeconds": 10}}
    message = (await api.post(f"{ACCOUNTS}/{account}/token", short)).refused(422, "Invalid")
    assert "may not specify a duration less than 10 minutes" in message


async def test_a_role_binding_allows(api: Api, account: str, name: str) -> None:
    user = await user_of(api, account)
    assert not await may(api, user)
    roles, bindings = f"{RBAC}/namespaces/{{ns}}/roles", f"{RBAC}/namespaces/{{ns}}/rolebindings"
    (await api.post(roles, role(name))).ok()
    subject = {"kind": "ServiceAccount", "name": account, "namespace": api.ns}
    (await api.post(bindings, binding(name, subject))).ok()
    await until(api, user)
    assert await may(api, user, name="other")
    assert not await may(api, user, verb="get")
    assert not await may(api, user, resource="runtimes")
    assert not await may(api, user, group="")
    assert not await may(api, user, subresource="status")
    assert not await may(api, user, namespace="default")
    (await api.delete(f"{bindings}/{name}")).ok()
    await until(api, user, allowed=False)


async def test_a_role_for_one_name_and_a_group(api: Api, account: str, name: str) -> None:
    user = await user_of(api, account)
    roles, bindings = f"{RBAC}/namespaces/{{ns}}/roles", f"{RBAC}/namespaces/{{ns}}/rolebindings"
    (await api.post(roles, role(name, "hello"))).ok()
    subject = {"kind": "Group", "name": f"system:serviceaccounts:{api.ns}", "apiGroup": "rbac.authorization.k8s.io"}
    (await api.post(bindings, binding(name, subject))).ok()
    await until(api, user)
    assert not await may(api, user, name="other")
    assert not await may(api, {"username": "somebody"})
    assert not await may(api, {"username": "somebody", "groups": ["system:serviceaccounts"]})
    (await api.delete(f"{bindings}/{name}")).ok()


async def test_a_cluster_role_for_everywhere(api: Api, name: str) -> None:
    user = {"username": f"{name}@example.org"}
    (await api.post(f"{RBAC}/clusterroles", role(name, kind="ClusterRole"))).ok()
    subject = {"kind": "User", "name": user["username"], "apiGroup": "rbac.authorization.k8s.io"}
    made = binding(name, subject, kind="ClusterRole", scope="ClusterRoleBinding")
    try:
        (await api.post(f"{RBAC}/clusterrolebindings", made)).ok()
        await until(api, user)
        assert await may(api, user, namespace="default")
        assert not await may(api, {"username": "somebody"})
    finally:
        await api.delete(f"{RBAC}/clusterrolebindings/{name}")
        await api.delete(f"{RBAC}/clusterroles/{name}")


async def test_admins_may_everything(api: Api) -> None:
    assert await may(api, {"username": "root", "groups": ["system:masters"]}, verb="delete")


async def test_kubectl_makes_tokens(api: Api, account: str) -> None:
    made = api.kubectl("create", "token", account, "--audience=robots").strip()
    assert (await review(api, made, "robots"))["user"]["username"].endswith(f":{account}")


async def test_kubectl_makes_roles_and_bindings(api: Api, account: str, name: str) -> None:
    user = await user_of(api, account)
    api.kubectl("create", "role", name, "--verb=invoke", "--resource=widgets.suite.kappa.dev")
    api.kubectl("create", "rolebinding", name, f"--role={name}", f"--serviceaccount={api.ns}:{account}")
    await until(api, user, group="suite.kappa.dev", resource="widgets")
