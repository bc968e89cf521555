"""The node: its address, its cgroup, kubelet and kube-proxy.

What is changed on the machine (an address on `lo`, cgroups, two sysctls) is written down before it is changed, for
`cluster_cleanup` to undo.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from cluster_api import Api, ApiError
from cluster_certs import KUBELET, KUBELET_SERVER, PROXY
from cluster_processes import start
from cluster_run import run, wait_for
from cluster_settings import CLUSTER_DOMAIN, CNI_PLUGINS, NODE_ADDRESS, NODE_NAME, POD_NETWORK, Settings

CGROUP = "kappa"
"""The cgroup that holds all pods. Of our own, so that `down` knows which processes are pods of this cluster."""

SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet")
"""What gets changed and put back: by us the first, by kube-proxy the second."""

FIXED_FOLDERS = ("/var/log/pods", "/var/log/containers", "/var/lib/kubelet")
"""Where the kubelet writes whatever it is told (pod logs, a device socket). Removed if they were not there before."""


def prepare(settings: Settings) -> None:
    """Give the machine the node's address, its cgroup and IP forwarding."""
    remember(settings)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    if NODE_ADDRESS not in run(["ip", "-o", "-4", "addr", "show", "dev", "lo"]):
        run(["ip", "addr", "add", f"{NODE_ADDRESS}/32", "dev", "lo"])
    for hierarchy in cgroup_hierarchies():
        _make_cgroup(hierarchy)


def remember(settings: Settings) -> None:
    """Write down how the machine was, once: an `up` after a crash must not take the crashed state for it."""
    target = before_file(settings)
    if target.exists():
        return
    before: dict[str, object] = {name: Path("/proc/sys", name).read_text().strip() for name in SYSCTLS}
    before["absent"] = [folder for folder in FIXED_FOLDERS if not Path(folder).exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(before))


def before_file(settings: Settings) -> Path:
    """Where `remember` writes."""
    return settings.run / "before.json"


def cgroup_hierarchies() -> list[Path]:
    """Where cgroups are mounted: one folder per controller (version 1) or a single one (version 2)."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            found.append(Path(folder))
    return found


def _make_cgroup(hierarchy: Path) -> None:
    ours = hierarchy / CGROUP
    ours.mkdir(exist_ok=True)
    # Version 1: a cpuset takes no process before it has CPUs and memory nodes, and does not inherit them.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (ours / name).exists() and not (hierarchy / "cgroup.controllers").exists():
            (ours / name).write_text((hierarchy / name).read_text())
    # Version 2: controllers have to be handed down.
    if (hierarchy / "cgroup.controllers").exists():
        for controller in (hierarchy / "cgroup.controllers").read_text().split():
            for folder in (hierarchy, ours):
                with contextlib.suppress(OSError):  # not all can be
                    (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def kubelet_config(settings: Settings) -> dict[str, object]:
    """The KubeletConfiguration."""
    pki = settings.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{KUBELET_SERVER.file}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{KUBELET_SERVER.file}.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxPods": 250,
        "serializeImagePulls": False,
        # The defaults (5 requests and events a second) are for a kubelet among thousands, and would be what a start
        # of many pods waits for.
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
        # How often it looks at itself, and so how soon after a start it says Ready; it reports less often.
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "1m",
        # There is no registry to fetch an image from again: never collect images, and do not evict pods from a build
        # machine's full disk before it is really full.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "volumePluginDir": str(settings.data / "volume-plugins"),
    }


def launch_kubelet(settings: Settings) -> None:
    """Start the kubelet. Best before the API server is ready: it first spends 5 s looking for a Docker."""
    config = settings.conf / "kubelet.json"
    config.write_text(json.dumps(kubelet_config(settings), indent=1))
    endpoint = f"unix://{settings.containerd_socket}"
    start(
        settings,
        "kubelet",
        [
            settings.binaries / "kubelet",
            f"--config={config}",
            f"--kubeconfig={settings.pki / f'{KUBELET.file}.kubeconfig'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
            f"--root-dir={settings.kubelet_root}",
            "--container-runtime=remote",
            f"--container-runtime-endpoint={endpoint}",
            f"--image-service-endpoint={endpoint}",
            f"--cni-bin-dir={CNI_PLUGINS}",
            f"--cni-conf-dir={settings.conf / 'cni'}",
        ],
    )


def launch_proxy(settings: Settings) -> None:
    """Start kube-proxy."""
    start(
        settings,
        "kube-proxy",
        [
            settings.binaries / "kube-proxy",
            f"--kubeconfig={settings.pki / f'{PROXY.file}.kubeconfig'}",
            f"--hostname-override={NODE_NAME}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_NETWORK}",
            f"--nodeport-addresses={NODE_ADDRESS}/32",
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
            "--oom-score-adj=0",
            # Both default to seconds; a new Service should work when the test that made it looks.
            "--iptables-min-sync-period=100ms",
        ],
    )


def wait_until_ready(settings: Settings, seconds: float = 90.0) -> None:
    """Return when the node is Ready and pods can be created (their default service account exists)."""
    api = Api(settings)
    log = settings.logs / "kubelet.log"

    def node_ready() -> bool:
        try:
            node = api.get(f"/api/v1/nodes/{NODE_NAME}")
        except (ApiError, OSError):
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    wait_for("the node becoming Ready", node_ready, seconds, log)
    for namespace in ("kube-system", "default"):
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        manager_log = settings.logs / "kube-controller-manager.log"
        wait_for(f"{namespace}'s default service account", lambda path=path: api.ok(path), seconds, manager_log)  # type: ignore[misc]
