"""The control plane: etcd, API server, controller manager, scheduler, as plain processes.

Flags are those of Kubernetes 1.20. RBAC and service account tokens are on, for Kappa's least-privilege roles have to be
proved against something. Every port but the API server's is bound to 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cluster_api import Api
from cluster_certs import CONTROLLER_MANAGER, SCHEDULER, TO_KUBELET
from cluster_processes import start
from cluster_run import wait_for
from cluster_settings import (
    API_PORT,
    CLUSTER_DOMAIN,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE_ADDRESS,
    POD_NETWORK,
    SERVICE_NETWORK,
    Settings,
)

_ETCD_URL = f"http://127.0.0.1:{ETCD_PORT}"


def launch_api(settings: Settings) -> None:
    """Start etcd and the API server; do not wait for them."""
    _etcd(settings)
    _api_server(settings)


def launch_api_server(settings: Settings) -> None:
    """Start the API server alone, after a test has stopped it."""
    _api_server(settings)


def launch_rest(settings: Settings) -> None:
    """Wait until the API server is ready, then start what uses it.

    Started before that, they would fail and try again after a pause longer than this wait.
    """
    api = Api(settings)
    wait_for("the API server", lambda: api.ok("/readyz"), 90, settings.logs / "kube-apiserver.log")
    _controller_manager(settings)
    _scheduler(settings)


def _etcd(settings: Settings) -> None:
    peer = f"http://127.0.0.1:{ETCD_PEER_PORT}"
    start(
        settings,
        "etcd",
        [
            *("etcd", "--name", "kappa", "--data-dir", settings.data / "etcd", "--log-level", "warn"),
            *("--listen-client-urls", _ETCD_URL, "--advertise-client-urls", _ETCD_URL),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"kappa={peer}"),
        ],
    )


def _api_server(settings: Settings) -> None:
    pki = settings.pki
    flags = {
        "etcd-servers": _ETCD_URL,
        "bind-address": NODE_ADDRESS,
        "advertise-address": NODE_ADDRESS,
        "secure-port": API_PORT,
        "insecure-port": 0,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-client-certificate": pki / f"{TO_KUBELET.file}.crt",
        "kubelet-client-key": pki / f"{TO_KUBELET.file}.key",
        "kubelet-preferred-address-types": "InternalIP",  # the node's name is in no DNS
        "service-account-issuer": f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        "service-account-key-file": pki / "service-accounts.key",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "service-cluster-ip-range": SERVICE_NETWORK,
        "profiling": "false",
    }
    _start(settings, "kube-apiserver", flags)


def _controller_manager(settings: Settings) -> None:
    pki = settings.pki
    kubeconfig = pki / f"{CONTROLLER_MANAGER.file}.kubeconfig"
    flags = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "port": 0,
        "leader-elect": "false",  # there is one, and taking the lease costs seconds
        "use-service-account-credentials": "true",
        "service-account-private-key-file": pki / "service-accounts.key",
        "root-ca-file": pki / "ca.crt",
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "cluster-cidr": POD_NETWORK,
        "service-cluster-ip-range": SERVICE_NETWORK,
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        "node-monitor-grace-period": "2m",  # a busy 2-core machine must not evict the pods of its only node
        "profiling": "false",
    }
    _start(settings, "kube-controller-manager", flags)


def _scheduler(settings: Settings) -> None:
    kubeconfig = settings.pki / f"{SCHEDULER.file}.kubeconfig"
    flags = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "port": 0,
        "leader-elect": "false",
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        "profiling": "false",
    }
    _start(settings, "kube-scheduler", flags)


def _start(settings: Settings, name: str, flags: Mapping[str, object]) -> None:
    command: list[str | Path] = [settings.binaries / name]
    command += [f"--{flag}={value}" for flag, value in flags.items()]
    start(settings, name, command)
