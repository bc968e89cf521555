"""Who may call a Function on a real cluster: service accounts by RBAC, API keys by Secrets."""

import hashlib
import json
from typing import Any

from kappa_e2e import Cluster, eventually, function, is_ready

Json = Any

WHO = """
def handler(event, context):
    return {"authorizer": event["requestContext"].get("authorizer"), "headers": sorted(event["headers"])}
"""


async def token(kappa: Cluster, account: str, *audiences: str) -> str:
    """A token of a service account, as `kubectl create token` makes it (which old ones do not know)."""
    spec: Json = {"expirationSeconds": 600, **({"audiences": list(audiences)} if audiences else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{kappa.namespace}/serviceaccounts/{account}/token"
    return str(
        json.loads(await kappa.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body)))["status"]["token"]
    )


async def until(kappa: Cluster, name: str, status: int, **headers: str) -> Json:
    """The answer once it has this status. RBAC and the gateway's memory of refusals take some seconds."""
    sent = {key.replace("_", "-"): value for key, value in headers.items()}

    async def look() -> tuple[bool, Json]:
        reply = await kappa.call(name, headers=sent)
        assert reply.status in (200, 401, 403, 503), reply
        return reply.status == status, reply.json

    return await eventually(look, 60, f"{name} to answer {status}")


async def test_rbac_says_who_may_call(kappa: Cluster) -> None:
    await kappa.apply(function("ruled", WHO, http={"auth": {"type": "kubernetes"}}))
    await kappa.until("ruled", is_ready, 60)
    await kappa.kubectl("create", "serviceaccount", "caller")
    try:
        bearer = {"authorization": f"Bearer {await token(kappa, 'caller')}"}
        assert (await kappa.call("ruled")).status == 401
        assert (await kappa.call("ruled", headers={"authorization": "Bearer nonsense"})).status == 401
        refused = await kappa.call("ruled", headers=bearer)
        assert refused.status == 403
        user = f"system:serviceaccount:{kappa.namespace}:caller"
        assert refused.json["error"]["message"].startswith(f"{user} may not invoke functions/ruled")

        subject = f"--serviceaccount={kappa.namespace}:caller"
        await kappa.kubectl("create", "rolebinding", "callers", "--clusterrole=kappa-invoker", subject)
        found = await until(kappa, "ruled", 200, **bearer)
        who = found["authorizer"]["lambda"]
        assert (who["type"], who["principalId"]) == ("kubernetes", user)
        assert f"system:serviceaccounts:{kappa.namespace}" in who["groups"]
        assert "authorization" not in found["headers"]
        forged = await until(kappa, "ruled", 200, kappa_identity_principal="system:admin", **bearer)
        assert forged["authorizer"]["lambda"]["principalId"] == user

        await kappa.kubectl("delete", "rolebinding", "callers")
        await until(kappa, "ruled", 403, **bearer)
    finally:
        await kappa.kubectl("delete", "serviceaccount", "caller")
    # the account is gone: so is its token, once nobody remembers it
    await until(kappa, "ruled", 401, **bearer)


async def test_tokens_for_an_audience(kappa: Cluster) -> None:
    auth = {"type": "kubernetes", "kubernetes": {"audiences": ["kappa"]}}
    await kappa.apply(function("audience", WHO, http={"auth": auth}))
    await kappa.until("audience", is_ready, 60)
    subject = f"--serviceaccount={kappa.namespace}:default"
    await kappa.kubectl("create", "rolebinding", "audience", "--clusterrole=kappa-invoker", subject)
    try:
        found = await until(kappa, "audience", 200, authorization=f"Bearer {await token(kappa, 'default', 'kappa')}")
        assert found["authorizer"]["lambda"]["principalId"] == f"system:serviceaccount:{kappa.namespace}:default"
        other = {"authorization": f"Bearer {await token(kappa, 'default')}"}
        assert (await kappa.call("audience", headers=other)).status == 401
    finally:
        await kappa.kubectl("delete", "rolebinding", "audience")


async def test_api_keys_are_rotated(kappa: Cluster) -> None:
    def keys(**values: str) -> Json:
        data = {name: f"sha256:{hashlib.sha256(value.encode()).hexdigest()}" for name, value in values.items()}
        meta = {"name": "robots"}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kappa.dev/api-keys",
            "metadata": meta,
            "stringData": data,
        }

    auth = {"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}
    await kappa.apply(function("keyed", WHO, http={"auth": auth}))
    await kappa.until("keyed", is_ready, 60)
    assert (await kappa.call("keyed", headers={"x-api-key": "one"})).status == 503
    await kappa.apply(keys(old="one"))
    assert (await until(kappa, "keyed", 200, x_api_key="one"))["authorizer"]["lambda"]["principalId"] == "old"
    await kappa.apply(keys(old="one", new="two"))
    assert (await until(kappa, "keyed", 200, x_api_key="two"))["authorizer"]["lambda"]["principalId"] == "new"
    patch = '[{"op": "remove", "path": "/data/old"}]'
    await kappa.kubectl("patch", "secret", "robots", "--type=json", "-p", patch)
    await until(kappa, "keyed", 401, x_api_key="one")
    await kappa.kubectl("delete", "secret", "robots")
    await until(kappa, "keyed", 503, x_api_key="two")
