"""`up`, `down` and `status`: the order of things, and what to do with what an earlier run left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cluster_build
import cluster_certs
import cluster_cleanup
import cluster_containerd
import cluster_control
import cluster_dns
import cluster_node
from cluster_api import Api, ApiError
from cluster_packages import (
    BUILD_PACKAGES,
    IMAGE_PACKAGES,
    PAUSE_PACKAGES,
    RUNTIME_PACKAGES,
    demand_debian_root,
    install,
)
from cluster_processes import died, running
from cluster_run import ClusterError, Steps, run, say
from cluster_settings import KUBERNETES_VERSION, NODE_NAME, Settings

DAEMONS = (
    *("containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy", "dnsmasq", "dns-watcher"),
)


def up(settings: Settings, fresh: bool = False) -> None:
    """Have a working cluster, whatever there is now. `fresh`: not one that anybody has used before."""
    if not fresh and (version := _given_cluster(settings)):
        say(f"KUBECONFIG={os.environ['KUBECONFIG']} names a working cluster ({version}): nothing is started.")
        return
    demand_debian_root()
    with _lock(settings):
        owner = _owner(settings)
        if owner and not fresh and is_healthy(settings, owner):
            if owner.state == settings.state:
                say("The cluster is already up.")
            else:
                say(f"This machine already runs the cluster of {owner.state}: shared. (`up --fresh` replaces it.)")
                _share(owner, settings)
            _say_export(settings)
            return
        steps = Steps()
        if cluster_cleanup.is_needed(settings):
            say("Removing what is there of an earlier cluster:")
            cluster_cleanup.take_down(owner or settings, steps)
        _start(settings, steps)
        say(f"The cluster is up: Kubernetes {KUBERNETES_VERSION}, after {steps.total:.1f} s.")
        _say_export(settings)


def _start(settings: Settings, steps: Steps) -> None:
    _new_state_folder(settings)
    say("Starting the cluster:")
    with steps.step("Debian packages"):
        # All at once, so that a new machine runs apt-get update and install only once.
        to_build = () if cluster_build.is_built(settings) else BUILD_PACKAGES
        install([*RUNTIME_PACKAGES, *PAUSE_PACKAGES, *IMAGE_PACKAGES, *to_build], settings.cache / "packages.log")
    with steps.step(f"Kubernetes {KUBERNETES_VERSION} binaries"):
        cluster_build.build(settings)
    settings.run.mkdir(parents=True, exist_ok=True)
    settings.data.mkdir(parents=True, exist_ok=True)
    settings.owner.write_text(str(settings.state))
    with steps.step("certificates"):
        cluster_certs.create(settings)
    with steps.step("containerd, pause image"):
        cluster_node.prepare(settings)
        cluster_containerd.launch(settings)
        cluster_containerd.import_pause(settings)
    with steps.step("control plane ready"):
        cluster_control.launch_api(settings)
        cluster_node.launch_kubelet(settings)
        cluster_control.launch_rest(settings)
        cluster_node.launch_proxy(settings)
    with steps.step("cluster DNS answering"):
        cluster_dns.launch(settings)
    with steps.step("node Ready, service accounts there"):
        cluster_node.wait_until_ready(settings)
    if ended := died(settings):
        raise ClusterError(f"{ended[0].name} ended by itself; see {ended[0].log}")
    # Last, so that a kubeconfig that exists is one that worked.
    cluster_certs.write_kubeconfig(settings, cluster_certs.ADMIN, settings.kubeconfig)


def down(settings: Settings, everything: bool = False) -> None:
    """Stop the cluster and take away every trace of it but the cache. `everything`: another work tree's cluster too."""
    demand_debian_root()
    with _lock(settings):
        owner = _owner(settings)
        if owner and owner.state != settings.state and owner.state.exists() and not everything:
            say(f"The cluster on this machine is that of {owner.state}; it stays up. (`down --all` stops it.)")
        elif cluster_cleanup.is_needed(settings):
            steps = Steps()
            say("Stopping the cluster:")
            cluster_cleanup.take_down(owner or settings, steps)
            if owner:
                _remove_state(owner)
            say(f"The cluster is gone, after {steps.total:.1f} s. The cache stays: {settings.cache}")
        else:
            say("There is no cluster on this machine.")
        _remove_state(settings)
    if not cluster_cleanup.is_needed(settings):
        settings.lock.unlink(missing_ok=True)


def status(settings: Settings) -> bool:
    """Print what runs; True when all of it does."""
    owner = _owner(settings)
    if owner is None:
        say("There is no cluster on this machine.")
        return False
    alive = {record.name: record for record in running(owner)}
    say(f"state folder  {owner.state}")
    for name in DAEMONS:
        found = alive.get(name)
        say(f"  {name:<26} {f'runs, pid {found.pid}' if found else 'DOES NOT RUN'}")
    healthy = is_healthy(settings, owner)
    say(f"API and node  {'ready' if healthy else 'NOT READY'}")
    _say_export(owner)
    return healthy


def is_healthy(settings: Settings, owner: Settings) -> bool:
    """Whether every daemon of `owner`'s cluster runs, the API answers and the node is Ready."""
    if {record.name for record in running(settings)} != set(DAEMONS) or not owner.kubeconfig.exists():
        return False
    try:
        node = Api(owner).get(f"/api/v1/nodes/{NODE_NAME}")
    except (ApiError, OSError):
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))


def _given_cluster(settings: Settings) -> str | None:
    """The version of the cluster that KUBECONFIG names, when there is one and it answers."""
    named = os.environ.get("KUBECONFIG")
    if not named:
        return None
    kubectl = shutil.which("kubectl") or shutil.which("kubectl", path=str(settings.tools))
    if kubectl is None:
        say(f"KUBECONFIG={named} is set, but there is no kubectl to try it with; starting a cluster of our own.")
        return None
    told = run([kubectl, "--request-timeout=10s", "version", "-o", "json"], check=False)
    with contextlib.suppress(ValueError, KeyError):  # no server, no serverVersion
        return str(json.loads(told)["serverVersion"]["gitVersion"])
    say(f"KUBECONFIG={named} names no cluster that answers; starting one of our own.")
    return None


def _owner(settings: Settings) -> Settings | None:
    """The settings of the work tree whose cluster is on this machine."""
    try:
        state = settings.owner.read_text().strip()
    except FileNotFoundError:
        return None
    return Settings(state=Path(state), cache=settings.cache)


def _new_state_folder(settings: Settings) -> None:
    """Empty, but for the logs of the last time: after a crash they are what one wants to read."""
    logs, kept = settings.logs, _previous_logs(settings)
    if logs.exists():
        shutil.rmtree(kept, ignore_errors=True)
        logs.rename(kept)
    for folder in (settings.pki, settings.conf):
        shutil.rmtree(folder, ignore_errors=True)
    settings.kubeconfig.unlink(missing_ok=True)
    for folder in (settings.pki, settings.conf, settings.logs):
        folder.mkdir(parents=True)


def _remove_state(settings: Settings) -> None:
    """Remove what we put there and nothing else: `--state` may have named a folder that holds other things too."""
    for folder in (settings.pki, settings.conf, settings.logs, _previous_logs(settings)):
        shutil.rmtree(folder, ignore_errors=True)
    settings.kubeconfig.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        settings.state.rmdir()


def _previous_logs(settings: Settings) -> Path:
    return settings.state / "logs.previous"


def _share(owner: Settings, settings: Settings) -> None:
    settings.state.mkdir(parents=True, exist_ok=True)
    shutil.copy(owner.kubeconfig, settings.kubeconfig)


def _say_export(settings: Settings) -> None:
    say(f"export KUBECONFIG={settings.kubeconfig}")


@contextlib.contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """One `up` or `down` at a time on this machine. The kernel lets go of it when we die."""
    with settings.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another `up` or `down` is at work; waiting for it.", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
