"""Every pod that Kappa makes passes the `restricted` Pod Security level, whatever a Function asks for."""

import copy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kappa_pod_security import violations

from kappa_api.errors import SpecError
from kappa_api.function import parse_function
from kappa_api.runtime import parse_runtime
from kappa_operator import pods

Json = Any

CHART = Path(__file__).resolve().parents[3] / "charts" / "kappa"
RUNTIME = parse_runtime({"metadata": {"name": "python", "uid": "r"}, "spec": {"image": "i"}})
WHO = pods.Identity("ns", "p", b"secret")


def function(**spec: Json) -> Json:
    base = {"runtime": "python", "handler": "main.handler", "code": {"inline": ""}}
    meta = {"name": "fn", "namespace": "ns", "uid": "f"}
    return {"metadata": meta, "spec": spec if "code" in spec else {**base, **spec}}


def own(spec: Json) -> Json:
    parsed = parse_function(function(**spec))
    if parsed.spec.code.image:
        return pods.image_pod(parsed, "r1", WHO)
    return pods.own_pod(parsed, "r1", RUNTIME, WHO, "")


EVERYTHING: Json = {
    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    "envFrom": [{"configMapRef": {"name": "c"}}],
    "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    "serviceAccountName": "robot",
    "resources": {"limits": {"memory": "1Gi"}},
}


@pytest.mark.parametrize(
    "manifest",
    [
        pods.pool_pod(RUNTIME, WHO),
        own({}),
        own(EVERYTHING),
        own({"code": {"image": "x", "command": ["sh"]}}),
        own({"code": {"image": "x"}, **EVERYTHING}),
    ],
    ids=["pool", "own", "own with everything", "image", "image with everything"],
)
def test_pods_of_functions(manifest: Json) -> None:
    assert violations(manifest["spec"], manifest["metadata"]["annotations"]) == []
    assert "hostUsers" not in manifest["spec"]
    mounts_token = manifest["spec"]["automountServiceAccountToken"]
    assert mounts_token is ("serviceAccountName" in manifest["spec"])


@pytest.mark.parametrize(
    "extra",
    [
        {"securityContext": {"runAsUser": 0}},
        {"hostNetwork": True},
        {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        {"initContainers": []},
        {"containers": []},
        {"hostPID": True},
        {"nodeName": "n"},
    ],
    ids=str,
)
def test_a_function_cannot_ask_for_more(extra: Json) -> None:
    with pytest.raises(SpecError):
        parse_function(function(**extra))


def helm() -> str:
    cached = Path.home() / ".cache" / "kappa" / "bin" / "helm"
    return shutil.which("helm") or (str(cached) if cached.exists() else "")


@pytest.mark.skipif(not helm(), reason="NO HELM: what the chart renders is only checked by `make e2e` then")
def test_pods_of_the_platform() -> None:
    done = subprocess.run(
        [helm(), "template", "kappa", str(CHART), "-n", "kappa-system", "--set", "namespace.create=true"],
        capture_output=True,
        text=True,
        check=True,
    )
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    seen = dict(_pod_specs(objects))
    assert set(seen) >= {"kappa-operator", "kappa-gateway", "kappa-nats", "kappa-test"}
    assert {name: violations(spec) for name, spec in seen.items()} == {name: [] for name in seen}
    (namespace,) = (item for item in objects if item["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def _pod_specs(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    for item in objects:
        spec = item.get("spec") or {}
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], spec
        elif "template" in spec:
            yield item["metadata"]["name"], spec["template"]["spec"]


# --- the check itself -------------------------------------------------------------------------------------------------
def set_in(path: str, value: Json) -> Any:
    def change(spec: Json) -> None:
        *parents, last = [int(piece) if piece.isdigit() else piece for piece in path.split(".")]
        for piece in parents:
            spec = spec[piece] if isinstance(piece, int) else spec.setdefault(piece, {})
        spec[last] = value

    return change


BREAKS = {
    "host namespaces": set_in("hostNetwork", True),
    "volume types": set_in("volumes.0.hostPath", {"path": "/"}),
    "sysctls": set_in("securityContext.sysctls", [{"name": "kernel.msgmax"}]),
    "HostProcess": set_in("securityContext.windowsOptions", {"hostProcess": True}),
    "running as non-root user": set_in("securityContext.runAsUser", 0),
    "running as non-root": set_in("securityContext.runAsNonRoot", False),
    "seccomp": set_in("securityContext.seccompProfile", {"type": "Unconfined"}),
    "SELinux": set_in("containers.0.securityContext.seLinuxOptions", {"type": "spc_t"}),
    "AppArmor": set_in("containers.0.securityContext.appArmorProfile", {"type": "Unconfined"}),
    "privileged containers": set_in("containers.0.securityContext.privileged", True),
    "privilege escalation": set_in("containers.0.securityContext.allowPrivilegeEscalation", None),
    "/proc mount type": set_in("containers.0.securityContext.procMount", "Unmasked"),
    "capabilities": set_in("containers.0.securityContext.capabilities", {"drop": ["NET_RAW"]}),
    "host ports": set_in("containers.0.ports.0.hostPort", 80),
    "host probes": set_in("containers.0.readinessProbe.httpGet", {"host": "10.0.0.1"}),
}


@pytest.mark.parametrize("control", BREAKS)
def test_the_check_sees_what_breaks_the_level(control: str) -> None:
    spec = copy.deepcopy(pods.pool_pod(RUNTIME, WHO)["spec"])
    BREAKS[control](spec)
    assert any(text.startswith(f"{control}:") for text in violations(spec)), violations(spec)
