"""The cluster of the end-to-end tests: images built, chart installed, everything gone afterwards.

The cluster is the one of `KUBECONFIG`, else the one that `make cluster` started. On the latter the images are built and
brought in here. Elsewhere they must be pullable: KAPPA_E2E_REGISTRY and KAPPA_E2E_TAG say which. KAPPA_E2E_URL is the
gateway's address where this machine does not reach Service addresses (a port-forward, a node port).
KAPPA_E2E_KEEP=1 leaves everything installed, for a look at what failed.

A cluster on which somebody else has installed Kappa is refused: these tests would remove it, with all Functions.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kappa_e2e import CHART, Cluster

Json = Any

REPOSITORY = Path(__file__).resolve().parents[2]
COMPONENTS = ("operator", "gateway", "runtime-python", "nats")
SYSTEM, NAMESPACE = "kappa-system", "kappa-e2e"
LOCAL_TAG = "e2e"
OWN_KUBECONFIG = REPOSITORY / ".cluster" / "kubeconfig"
POD_SECURITY = "pod-security.kubernetes.io/enforce"
#: On the namespaces of these tests: what bears it may be removed.
MARK = "kappa.dev/e2e"


def say(text: str) -> None:
    print(f"e2e: {text}", file=sys.__stderr__, flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None, check: bool = True) -> str:
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True)
    if check and done.returncode:
        pytest.fail(f"{' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


def kappa_cluster(*arguments: str | Path) -> str:
    return run(sys.executable, REPOSITORY / "tests" / "cluster" / "kappa_cluster.py", *arguments)


@pytest.fixture(scope="session")
def tools() -> str:
    """The folder with kubectl and helm."""
    return kappa_cluster("tools").strip().splitlines()[-1]


@pytest.fixture(scope="session")
def cluster(tools: str) -> Cluster:
    """A cluster that answers, with nothing of Kappa on it yet."""
    kubeconfig = os.environ.get("KUBECONFIG") or str(OWN_KUBECONFIG)
    if not Path(kubeconfig).exists():
        pytest.fail("there is no cluster: run `make cluster` first, or set KUBECONFIG", pytrace=False)
    found = Cluster(kubeconfig, tools, NAMESPACE, SYSTEM)
    run("kubectl", "get", "nodes", env=found.env)
    if Path(kubeconfig).resolve() != OWN_KUBECONFIG:
        _refuse_if_used(found)
    return found


def _refuse_if_used(cluster: Cluster) -> None:
    there = run("kubectl", "get", "namespace", SYSTEM, "-o", "name", "--ignore-not-found", env=cluster.env)
    crds = run("kubectl", "get", "crd", "functions.kappa.dev", "-o", "name", "--ignore-not-found", env=cluster.env)
    ours = run("kubectl", "get", "namespace", "-l", f"{MARK}=true", "-o", "name", env=cluster.env)
    if (there or crds) and not ours:
        pytest.fail(
            "Kappa is installed on this cluster already, and not by these tests, which would remove it", pytrace=False
        )


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> dict[str, str]:
    """The chart's image values."""
    if os.environ.get("KAPPA_E2E_TAG"):
        return {"registry": os.environ.get("KAPPA_E2E_REGISTRY", ""), "tag": os.environ["KAPPA_E2E_TAG"]}
    if Path(cluster.kubeconfig).resolve() != OWN_KUBECONFIG:
        pytest.fail("this cluster cannot be given images: push them, and say so with KAPPA_E2E_TAG", pytrace=False)
    for component in COMPONENTS:
        start = time.monotonic()
        dockerfile = REPOSITORY / "images" / component / "Dockerfile"
        kappa_cluster("build", f"kappa-{component}:{LOCAL_TAG}", "-f", dockerfile, REPOSITORY)
        say(f"image kappa-{component} after {time.monotonic() - start:.1f} s")
    return {"registry": "", "tag": LOCAL_TAG}


@pytest.fixture(scope="session")
def values(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The values file of the installation: what a small machine needs to be otherwise, and nothing else."""
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    path = tmp_path_factory.mktemp("e2e") / "values.yaml"
    path.write_text(
        json.dumps(
            {
                "image": images,
                "operator": {"resources": small},
                "gateway": {
                    "resources": small,
                    "auth": {"apiKeys": {"namespaces": [NAMESPACE]}},
                    "events": {"secretNamespaces": [NAMESPACE]},
                },
                "nats": {
                    "image": {"registry": images["registry"], "repository": "kappa-nats", "tag": images["tag"]},
                    "storage": {"persistent": False},
                    "resources": small,
                },
                "networkPolicy": {"functionNamespaces": [NAMESPACE]},
            }
        )
    )
    return path


@pytest.fixture(scope="session")
def kappa(cluster: Cluster, values: Path) -> Iterator[Cluster]:
    """Kappa, installed by its chart; `url` is set."""
    env = cluster.env
    _remove(cluster)
    for namespace in (NAMESPACE, SYSTEM):
        run("kubectl", "create", "namespace", namespace, env=env)
        run("kubectl", "label", "namespace", namespace, f"{MARK}=true", f"{POD_SECURITY}=restricted", env=env)
    start = time.monotonic()
    run(
        *("helm", "install", "kappa", CHART, "-n", SYSTEM),
        *("-f", values, "--wait", "--timeout", "180s"),
        env=env,
    )
    say(f"helm install --wait after {time.monotonic() - start:.1f} s")
    url = os.environ.get("KAPPA_E2E_URL", "")
    if not url:
        service = json.loads(run("kubectl", "-n", SYSTEM, "get", "service", "gateway", "-o", "json", env=env))
        url = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
    yield replace(cluster, url=url.rstrip("/"))
    if not os.environ.get("KAPPA_E2E_KEEP"):
        _remove(cluster)


def _remove(cluster: Cluster) -> None:
    """Whatever an earlier run left, Functions first: their pods are deleted with them."""
    env = cluster.env
    for kind in ("triggers", "fn"):
        run("kubectl", "delete", kind, "--all", "-n", NAMESPACE, "--ignore-not-found", env=env, check=False)
    run("helm", "uninstall", "kappa", "-n", SYSTEM, "--wait", "--ignore-not-found", env=env)
    run("kubectl", "delete", "namespace", NAMESPACE, SYSTEM, "--ignore-not-found", "--wait", env=env)
    run("kubectl", "delete", "-f", CHART / "crds", "--ignore-not-found", "--wait", env=env)


@pytest.fixture(scope="session")
def render(tools: str) -> Any:
    """`helm template` with values and a Kubernetes version; the objects by (kind, name)."""

    def template(values: Json | None = None, *flags: str) -> dict[tuple[str, str], Json]:
        command = [f"{tools}/helm", "template", "kappa", str(CHART), "-n", "kappa-system", "-f", "-", *flags]
        done = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        objects = [item for item in yaml.safe_load_all(done.stdout) if item]
        found = {(item["kind"], f"{_folder(item)}{item['metadata']['name']}"): item for item in objects}
        assert len(found) == len(objects)
        return found

    return template


def _folder(item: Json) -> str:
    namespace = item["metadata"].get("namespace", "")
    return "" if namespace in ("", "kappa-system") else f"{namespace}/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test may hang. The first one pays for images and installation, hence the length."""
    for item in items:
        item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """What the platform said and did goes into the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    found = getattr(item, "funcargs", {}).get("kappa")
    if report.when == "call" and report.failed and found is not None:
        kubectl = ["kubectl", "-n", SYSTEM]
        for title, command in {
            "nats": [*kubectl, "logs", "-l", "app.kubernetes.io/component=nats", "--tail=20", "--prefix"],
            "triggers": ["kubectl", "-n", NAMESPACE, "get", "triggers", "-o", "wide"],
            "operator": [*kubectl, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=60", "--prefix"],
            "gateway": [*kubectl, "logs", "-l", "app.kubernetes.io/component=gateway", "--tail=60", "--prefix"],
            "system pods": [*kubectl, "get", "pods", "-o", "wide"],
            "function pods": ["kubectl", "-n", NAMESPACE, "get", "pods", "-o", "wide", "--show-labels"],
            "functions": ["kubectl", "-n", NAMESPACE, "get", "fn", "-o", "wide"],
            "events": ["kubectl", "-n", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"],
        }.items():
            report.sections.append((f"Kappa's {title}", run(*command, env=found.env, check=False)[-8000:]))
