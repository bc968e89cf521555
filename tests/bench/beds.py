"""Where the cold-start benchmark runs: the embedded cluster, a cluster that has Kappa, or a real one that gets it here.

Each bed yields its API (in the benchmark's namespace) and the gateway's base URL, and leaves what it found.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from kappa_fixtures_local import Api, Backend, connect
from kappa_platform import free_place

from kappa_api import names
from kappa_local.platform import lifecycle

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "kappa"
OWN_KUBECONFIG = REPOSITORY / ".cluster" / "kubeconfig"
COMPONENTS = ("operator", "gateway", "runtime-python")
NAMESPACE, TAG = "kappa-bench", "bench"
RUNTIMES = f"/apis/{names.API_VERSION}/{names.RUNTIME_PLURAL}"


class BedError(RuntimeError):
    """There is no place to run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Bed:
    """`kind` is embedded or real, which decides the targets."""

    kind: str
    api: Api
    url: str

    def call_url(self, function: str) -> str:
        return f"{self.url}{names.FUNCTION_PATH}{NAMESPACE}/{function}"


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[Bed]:
    """A platform of its own on free ports, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kappa-bench-") as folder:
        place = free_place(Path(folder) / "state")
        await lifecycle.start(place, lambda text: print(f"  {text}"))
        try:
            async with connect(Backend("local", place.kubeconfig), NAMESPACE) as api, namespace(api):
                yield Bed("embedded", api, place.gateway_url)
        finally:
            lifecycle.stop(place)


def kubeconfig() -> Path | None:
    """KUBECONFIG, else what `make cluster` wrote, else None."""
    path = Path(os.environ.get("KUBECONFIG") or OWN_KUBECONFIG)
    return path if path.exists() else None


async def has_kappa(config: Path) -> bool:
    """Whether somebody has installed Kappa there. Raises BedError when no API answers."""
    try:
        async with connect(Backend("real", config), names.SYSTEM_NAMESPACE) as api:
            service = await api.get("/api/v1/namespaces/{ns}/services/gateway")
            return service.status == 200 and (await api.get(RUNTIMES)).status == 200
    except (aiohttp.ClientError, OSError) as error:
        raise BedError(f"the cluster of {config.name} does not answer ({error}); --embedded needs none") from error


@contextlib.asynccontextmanager
async def real(config: Path, functions: str = NAMESPACE, gateways: int = 1) -> AsyncIterator[Bed]:
    """A cluster that has Kappa; without it, the chart is installed as the end-to-end tests do, and removed.

    `functions`: the namespace that is made for them. `gateways`: how many, where the chart is installed here.
    """
    async with contextlib.AsyncExitStack() as stack:
        if not await has_kappa(config):
            stack.enter_context(_installed(config, functions, gateways))
        api = await stack.enter_async_context(connect(Backend("real", config), functions))
        await stack.enter_async_context(namespace(api))
        url = os.environ.get("KAPPA_E2E_URL", "")
        if not url:
            service = (await api.get(f"/api/v1/namespaces/{names.SYSTEM_NAMESPACE}/services/gateway")).ok()
            url = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
        yield Bed("real", api, url.rstrip("/"))


@contextlib.asynccontextmanager
async def pool_of(api: Api, size: int, runtime: str = "python") -> AsyncIterator[None]:
    """A Runtime's pool at this size, and afterwards as it was."""
    path = f"{RUNTIMES}/{runtime}"
    before = (await api.get(path)).ok()["spec"].get("pool")
    (await api.patch(path, {"spec": {"pool": {"min": size, "max": size}}})).ok()
    try:
        yield
    finally:
        (await api.patch(path, {"spec": {"pool": before}})).ok()


@contextlib.asynccontextmanager
async def namespace(api: Api) -> AsyncIterator[None]:
    """The namespace of the client, made for this run."""
    made = await api.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.ns}})
    if made.status == 409:  # whoever made it removes it
        yield
        return
    made.ok()
    try:
        yield
    finally:
        await api.delete(f"/api/v1/namespaces/{api.ns}")


@contextlib.contextmanager
def _installed(config: Path, functions: str, gateways: int) -> Iterator[None]:
    """The chart. Images are built here on our own cluster; KAPPA_E2E_TAG names them elsewhere."""
    tools = _run(sys.executable, REPOSITORY / "tests/cluster/kappa_cluster.py", "tools").strip().splitlines()[-1]
    env = os.environ | {"KUBECONFIG": str(config), "PATH": f"{tools}:{os.environ['PATH']}"}
    image = {"registry": os.environ.get("KAPPA_E2E_REGISTRY", ""), "tag": os.environ.get("KAPPA_E2E_TAG", "")}
    if not image["tag"]:
        if config.resolve() != OWN_KUBECONFIG:
            raise BedError("this cluster cannot be given images: push them, and say so with KAPPA_E2E_TAG")
        image["tag"] = TAG
        for component in COMPONENTS:
            print(f"  image kappa-{component} ...", flush=True)
            dockerfile = REPOSITORY / "images" / component / "Dockerfile"
            program = REPOSITORY / "tests/cluster/kappa_cluster.py"
            _run(sys.executable, program, "build", f"kappa-{component}:{TAG}", "-f", dockerfile, REPOSITORY)
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    values = {
        "image": image,
        "operator": {"resources": small},
        "gateway": {"resources": small, "replicas": gateways, "autoscaling": {"enabled": False}},
        "networkPolicy": {"functionNamespaces": [functions]},
        "nats": {"enabled": False},  # what is measured and broken here is the path of synchronous calls
    }
    system = names.SYSTEM_NAMESPACE
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values, file)
        file.flush()
        for namespace in (functions, system):
            _run("kubectl", "create", "namespace", namespace, env=env)
        try:
            print("  helm install ...", flush=True)
            _run("helm", "install", "kappa", CHART, "-n", system, "-f", file.name, "--wait", "--timeout=180s", env=env)
            yield
        finally:
            if not os.environ.get("KAPPA_E2E_KEEP"):
                _run("kubectl", "delete", "fn", "--all", "-n", functions, "--ignore-not-found", env=env, check=False)
                _run("helm", "uninstall", "kappa", "-n", system, "--wait", env=env, check=False)
                _run("kubectl", "delete", "namespace", functions, system, "--ignore-not-found", env=env, check=False)
                _run("kubectl", "delete", "-f", CHART / "crds", "--ignore-not-found", env=env, check=False)


def _run(*command: str | Path, env: dict[str, str] | None = None, check: bool = True) -> str:
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, timeout=900)
    if check and done.returncode:
        raise BedError(f"{' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")
    return done.stdout
