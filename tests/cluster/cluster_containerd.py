"""containerd with its own configuration, socket, data and pod network, apart from any other containerd on the machine.

The pod network is the `ptp` plugin and not `bridge`: the node routes all traffic between pods, which so always meets
kube-proxy's rules. On a bridge it would need the `br_netfilter` module for that, and a bridge is one more thing that
can be left behind. Neither enforces NetworkPolicy.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

from cluster_processes import start
from cluster_run import ClusterError, run, wait_for
from cluster_settings import (
    CNI_NETWORK,
    CNI_PLUGINS,
    CONTAINERD_NAMESPACE,
    PAUSE_IMAGE,
    POD_RANGE,
    Settings,
)

# Reaps what ends in a shared PID namespace, waits for the sandbox's end, does nothing else.
_PAUSE_SOURCE = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) {} }
static void leave(int number) { (void)number; _exit(0); }
int main(void) {
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def config(settings: Settings) -> str:
    """containerd's configuration."""
    # restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE may not lower the score of a sandbox, and runc then
    #   fails with "can't get final child's PID from pipe: EOF".
    # netns_mounts_under_state_dir: so that `down` finds the network namespaces of this containerd and of no other.
    # runc's Root: likewise; the default is shared by every containerd of the machine.
    return f"""\
version = 2
root = "{settings.data}/containerd"
state = "{settings.run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{settings.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{settings.data}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{settings.run}/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{settings.conf}/cni"
"""


def network(settings: Settings) -> dict[str, object]:
    """The CNI configuration of the pod network."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{settings.data}/ipam",
    }
    pods = {"type": "ptp", "ipMasq": True, "ipam": ipam}
    return {
        "cniVersion": "0.4.0",
        "name": CNI_NETWORK,
        "plugins": [pods, {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}],
    }


def launch(settings: Settings) -> None:
    """Start containerd and wait until it answers."""
    cni = settings.conf / "cni"
    cni.mkdir(parents=True, exist_ok=True)
    (cni / "10-kappa.conflist").write_text(json.dumps(network(settings), indent=1))
    path = settings.conf / "containerd.toml"
    path.write_text(config(settings))
    record = start(settings, "containerd", ["containerd", "--config", path])
    wait_for("containerd", lambda: "Server:" in ctr(settings, "version", check=False), 30, Path(record.log))


def ctr(settings: Settings, *arguments: str | Path, check: bool = True) -> str:
    """Run containerd's own client against our containerd, in the namespace that Kubernetes uses."""
    return run(["ctr", "-a", settings.containerd_socket, "-n", CONTAINERD_NAMESPACE, *arguments], check=check)


def import_pause(settings: Settings) -> None:
    """Build the sandbox image (a static program of a few lines) and bring it in under the name the config says."""
    archive = settings.cache / "pause.tar"
    if not archive.exists():
        settings.cache.mkdir(parents=True, exist_ok=True)
        fresh = archive.with_suffix(".new")
        fresh.write_bytes(_pause_archive())
        fresh.rename(archive)
    ctr(settings, "images", "import", archive)
    if PAUSE_IMAGE not in ctr(settings, "images", "ls", "-q").split():
        raise ClusterError(f"containerd took {archive} but does not know {PAUSE_IMAGE}; remove that file and try again")


def _pause_archive() -> bytes:
    """A `docker save` archive with one layer that holds the program. Needs a C compiler and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "pause.c"), Path(folder, "pause")
        source.write_text(_PAUSE_SOURCE)
        run(["gcc", "-Os", "-static", "-s", "-o", program, source])
        layer = _tar({"pause": program.read_bytes()}, mode=0o755)
    image = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "kappa"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    described = {"config.json": json.dumps(image).encode(), "manifest.json": json.dumps(manifest).encode()}
    return _tar({"layer.tar": layer, **described}, mode=0o644)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _architecture() -> str:
    return run(["dpkg", "--print-architecture"]).strip()  # Debian's amd64 and arm64 are Go's names too
