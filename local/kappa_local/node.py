"""The one node: this machine, as a Node object. Pure."""

from __future__ import annotations

import os
import platform

from kappa_local.discovery import GIT_VERSION
from kappa_local.types import Obj

PODS = "10000"


def node(name: str, address: str, now: str) -> Obj:
    cpus = str(os.cpu_count() or 1)
    capacity = {"cpu": cpus, "memory": f"{_memory_kib()}Ki", "pods": PODS, "ephemeral-storage": "100Gi"}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kappa_local runs pods as processes",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": platform.system().lower(),
                "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                    platform.machine(), platform.machine()
                ),
            },
        },
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "nodeInfo": {
                "kubeletVersion": GIT_VERSION,
                "kubeProxyVersion": "",
                "containerRuntimeVersion": "process://1",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "operatingSystem": platform.system().lower(),
                "architecture": platform.machine(),
                "osImage": platform.system(),
                "kernelVersion": platform.release(),
            },
        },
    }


def _memory_kib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    except (ValueError, OSError):
        return 8 * 1024 * 1024
