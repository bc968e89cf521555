"""What checking callers costs: CPU per request of one gateway, for functions that differ in `http.auth` only.

Each kind is compared with `none` sent the same credential: parsing and passing on a long header is not part of it. All
credentials are remembered after the first request, as those of callers who come again are.
"""

import hashlib
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from load import load
from world import NAMESPACE, OTHER_CORE, Cluster, World, free_port, function, owner, pod, status, wait

from kappa_api import names
from kappa_api.callers import API_KEYS_SECRET_TYPE

Json = Any
FUNCTIONS = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.FUNCTION_PLURAL}"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
#: A verified caller may cost so much more than an open door.
AT_MOST = 1.15
API_KEY = "a" * 64


@dataclass
class Kind:
    """One kind of `auth` and its header. `ratios`: of each round, its CPU a request over that of `none`."""

    auth: Json
    header: str
    ratios: list[float] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def callers(world: World, rounds: int, seconds: float, connections: int) -> dict[str, Kind]:
    """Measures in turns: none, apiKey, none, jwt, none, kubernetes, and again."""
    cluster = world.cluster("callers", 1)
    kinds = {
        "apiKey": _api_key(cluster),
        "jwt": _jwt(world),
        "kubernetes": _kubernetes(cluster),
    }
    instances(world, cluster, {kind: found.auth for kind, found in kinds.items()})
    gateway = world.gateway("gateway-callers", cluster, KAPPA_JWKS_ALLOW_HTTP="true")
    base = gateway.url
    for kind, found in kinds.items():
        wait(lambda kind=kind: status(f"{base}-{kind.lower()}") == 401, f"{kind} is not known", world, gateway.name)  # type: ignore[misc]
        load(f"{base}-{kind.lower()}", connections, 1, OTHER_CORE, found.header)
    for number in range(rounds):
        for kind, found in kinds.items():
            cpu = []
            for url in (base, f"{base}-{kind.lower()}"):
                before = gateway.cpu_seconds()
                rate = load(url, connections, seconds, OTHER_CORE, found.header)
                cpu.append((gateway.cpu_seconds() - before) / (rate * seconds) * 1e6)
            found.base.append(cpu[0])
            found.micros.append(cpu[1])
            found.ratios.append(cpu[1] / cpu[0])
        told = ", ".join(f"{kind} {found.ratios[-1]:.3f}" for kind, found in kinds.items())
        print(f"  callers, round {number + 1} of {rounds}: {told}")
    return kinds


def instances(world: World, cluster: Cluster, kinds: dict[str, Json]) -> None:
    """A Function of each kind, each with an instance; `hello` asks nothing."""
    for kind, auth in {"": None, **kinds}.items():
        name = f"hello-{kind.lower()}" if kind else "hello"
        if auth is not None:
            cluster.post(FUNCTIONS, function(name, auth=auth))
        manifest = pod(f"{name}-1", False, 200)
        manifest["metadata"]["labels"][names.LABEL_FUNCTION] = name
        manifest["metadata"]["ownerReferences"] = [owner(cluster.get(f"{FUNCTIONS}/{name}"))]
        cluster.post(f"{CORE}/pods", manifest)
        address: list[str] = []

        def has_address(path: str = f"{CORE}/pods/{name}-1", found: list[str] = address) -> bool:
            found[:] = [str(cluster.get(path).get("status", {}).get("podIP", ""))]
            return bool(found[0])

        wait(has_address, f"{name} got no address")
        world.upstream(f"upstream-{name}", address[0])


def report(kinds: dict[str, Kind]) -> list[tuple[str, bool]]:
    """Prints the table; returns the checks."""
    print(f"\n{'callers (verified before)':28}{'CPU µs/request':>16}{'none, same header':>20}{'ratio':>8}")
    for kind, found in kinds.items():
        mine, theirs = statistics.median(found.micros), statistics.median(found.base)
        print(f"{kind:28}{mine:16.1f}{theirs:20.1f}{found.ratio:8.3f}")
    return [
        (f"CPU with {kind} / with none: {found.ratio:.3f} (at most {AT_MOST})", found.ratio <= AT_MOST)
        for kind, found in kinds.items()
    ]


def _api_key(cluster: Cluster) -> Kind:
    digest = "sha256:" + hashlib.sha256(API_KEY.encode()).hexdigest()
    secret = {"apiVersion": "v1", "kind": "Secret", "type": API_KEYS_SECRET_TYPE, "metadata": {"name": "bench"}}
    cluster.post(f"{CORE}/secrets", secret | {"stringData": {"bench": digest}})
    return Kind({"type": "apiKey", "apiKey": {"secrets": [{"name": "bench"}]}}, f"x-api-key: {API_KEY}")


def _jwt(world: World) -> Kind:
    """An issuer is a folder with its keys, behind a file server."""
    folder = Path(world.folder) / "issuer"
    folder.mkdir()
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = {**RSAAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": "k1", "use": "sig", "alg": "RS256"}
    (folder / "keys").write_text(json.dumps({"keys": [key]}))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    world.start("issuer", server, OTHER_CORE)
    wait(lambda: status(f"{url}/keys") == 200, "the issuer did not start", world, "issuer")
    now = int(time.time())
    claims = {"iss": url, "aud": "bench", "sub": "somebody@example.org", "iat": now, "exp": now + 3600}
    claims |= {"scope": "read write", "groups": ["developers", "operators"], "email": "somebody@example.org"}
    token = jwt.encode(claims, private, "RS256", {"kid": "k1"})
    auth = {"type": "jwt", "jwt": {"issuer": url, "audiences": ["bench"], "jwksUri": f"{url}/keys"}}
    return Kind(auth, f"Authorization: Bearer {token}")


def _kubernetes(cluster: Cluster) -> Kind:
    account = {"kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE}
    rule = {"apiGroups": [names.GROUP], "resources": [names.FUNCTION_PLURAL], "verbs": ["invoke"]}
    meta, group = {"name": "bench"}, "rbac.authorization.k8s.io"
    head = {"apiVersion": f"{group}/v1", "metadata": meta}
    cluster.post(f"{RBAC}/roles", {**head, "kind": "Role", "rules": [rule]})
    role = {"apiGroup": group, "kind": "Role", "name": "bench"}
    cluster.post(f"{RBAC}/rolebindings", {**head, "kind": "RoleBinding", "roleRef": role, "subjects": [account]})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster.post(f"{CORE}/serviceaccounts/default/token", asked)["status"]["token"]
    return Kind({"type": "kubernetes"}, f"Authorization: Bearer {token}")
