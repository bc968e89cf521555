"""Where everything of the test cluster lives, and the addresses it uses. Decides nothing, touches nothing.

Three places, by who may need them:

* the state folder (`.cluster/` of the repository): what people read: the kubeconfig, logs, certificates;
* `/run/kappa-cluster` and `/var/lib/kappa-cluster`: sockets, PID records and data. They belong to the machine and not
  to the work tree, because a second clone (CI) has to find what a first one left behind, and because a unix socket's
  path holds 107 characters at most;
* the cache (`$KAPPA_CACHE`, else `~/.cache/kappa`): what is slow to make; survives `down`.

All addresses are of 198.18.0.0/15, the range reserved for benchmarks, so that they collide with no real network. The
node's own address sits on `lo`: nothing that listens there can be reached from another machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "1.20.2"
KUBERNETES_BUILD = 3  # count up when the way it is built changes: it names the folder in the cache
KUBERNETES_BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")

NODE_NAME = "kappa-node"
NODE_ADDRESS = "198.18.255.1"
POD_NETWORK = "198.18.0.0/16"
POD_RANGE = "198.18.0.0/17"  # what pods get; the upper half is left for the node's own address
SERVICE_NETWORK = "198.19.0.0/16"
FIRST_SERVICE_ADDRESS = "198.19.0.1"  # always the Service `kubernetes`; must be in the API server's certificate
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
ETCD_PORT = 12379  # not 2379: a distribution's own etcd may sit there
ETCD_PEER_PORT = 12380

CNI_NETWORK = "kappa"
CNI_PLUGINS = Path("/usr/lib/cni")
PAUSE_IMAGE = "docker.io/local/pause:1"
BASE_IMAGE = "docker.io/local/kappa-base:1"
CONTAINERD_NAMESPACE = "k8s.io"  # where the CRI plugin looks for images


def repository_root() -> Path:
    """The folder that holds `tests/`."""
    return Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """`$KAPPA_CACHE`, else `~/.cache/kappa`."""
    named = os.environ.get("KAPPA_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "kappa"


@dataclass(frozen=True)
class Settings:
    """The folders of one cluster; everything else is derived from them."""

    state: Path
    """What people read: kubeconfig, logs, certificates. Removed by `down`."""
    cache: Path
    """Binaries, base image, tools. Survives `down`."""
    run: Path = Path("/run/kappa-cluster")
    """Sockets and PID records. One per machine; short, for the sake of unix socket paths."""
    data: Path = Path("/var/lib/kappa-cluster")
    """etcd's, containerd's and the kubelet's data. overlayfs must be able to use its file system as an upper layer."""

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def conf(self) -> Path:
        return self.state / "conf"

    @property
    def pids(self) -> Path:
        return self.run / "pids"

    @property
    def owner(self) -> Path:
        """The file that names the state folder of the cluster that runs on this machine."""
        return self.run / "owner"

    @property
    def lock(self) -> Path:
        """Held by `up` and `down`. Outside `run`, which `down` removes."""
        return self.run.with_name(self.run.name + ".lock")

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def kubelet_root(self) -> Path:
        return self.data / "kubelet"

    @property
    def binaries(self) -> Path:
        return self.cache / f"kubernetes-{KUBERNETES_VERSION}-r{KUBERNETES_BUILD}"

    @property
    def images(self) -> Path:
        """buildah's storage."""
        return self.cache / "images"

    @property
    def tools(self) -> Path:
        """kubectl and helm."""
        return self.cache / "bin"

    @property
    def api_url(self) -> str:
        return f"https://{NODE_ADDRESS}:{API_PORT}"


def load(state: Path | None = None) -> Settings:
    """The settings from the environment: `--state`, else `$KAPPA_CLUSTER_STATE`, else `.cluster/` of the repository."""
    chosen = state or Path(os.environ.get("KAPPA_CLUSTER_STATE") or repository_root() / ".cluster")
    return Settings(state=chosen.absolute(), cache=cache_folder().absolute())
