"""Taking the cluster off the machine: nothing that `up` made may stay, whether it ended well or crashed.

Everything is found by something only this cluster has: PID records, its cgroup, its socket's path, its folders, its
chain names. Each step also works alone, for after a crash any part may be missing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path

from cluster_api import Api, ApiError
from cluster_node import CGROUP, FIXED_FOLDERS, SYSCTLS, before_file, cgroup_hierarchies
from cluster_processes import end, kill_all, records, start_ticks, stop
from cluster_run import ClusterError, Steps, run, say, wait_for
from cluster_settings import CNI_NETWORK, NODE_ADDRESS, Settings

_DRAIN_SECONDS = 60.0
_OUR_CHAINS = ("KUBE-", "CNI-")


def is_needed(settings: Settings) -> bool:
    """Whether anything of a cluster is on this machine."""
    groups = any((folder / CGROUP).exists() for folder in cgroup_hierarchies())
    return settings.run.exists() or settings.data.exists() or groups


def take_down(settings: Settings, steps: Steps) -> None:
    """Stop everything and restore the machine. Does not touch the state folder or the cache."""
    with steps.step("pods deleted"):
        _drain(settings)
    with steps.step("processes stopped"):
        # The API server before etcd: it hangs for a minute when its store is gone. containerd after the kubelet, which
        # would otherwise see all its pods fail.
        for name in ("kubelet", "kube-proxy", "dns-watcher", "dnsmasq", "containerd", "kube-apiserver", "etcd"):
            stop(settings, name)
        for record in records(settings):
            stop(settings, record.name)
        _end_shims(settings)
        kill_all(_in_cgroup())
    with steps.step("machine restored"):
        _remove_shim_sockets(settings)
        _unmount(settings)
        _remove_cgroups()
        for program in ("iptables", "ip6tables"):
            _clean_rules(program)
        run(["ip", "addr", "del", f"{NODE_ADDRESS}/32", "dev", "lo"], check=False)
        _remove_files_elsewhere(settings)
        _restore_sysctls(settings)
        for folder in (settings.data, settings.run):
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                raise ClusterError(f"{folder} could not be removed; something still uses it: see `findmnt -R {folder}`")


def _drain(settings: Settings) -> None:
    """Have the kubelet itself end all pods, if it can: then containers, mounts and networks go in good order."""
    alive = {record.name for record in records(settings) if start_ticks(record.pid) == record.started}
    # Whoever would make new pods goes first. (Kappa's operator, which does so too, is a pod and ends with them.)
    stop(settings, "kube-controller-manager")
    stop(settings, "kube-scheduler")
    if not {"kube-apiserver", "etcd", "kubelet", "containerd"} <= alive or not (settings.pki / "admin.crt").exists():
        return
    api = Api(settings)

    def gone() -> bool:
        pods = api.get("/api/v1/pods")["items"]
        for pod in pods:
            meta = pod["metadata"]
            # Again and again: an operator that still runs may have made one in between.
            with contextlib.suppress(ApiError):
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}?gracePeriodSeconds=1"
                api.call("DELETE", path)
        # The objects may stay for up to ten seconds longer: the kubelet looks at them that rarely. Nobody needs them.
        return not pods or not (_in_cgroup() or _network_results())

    try:
        wait_for("the end of all pods", gone, _DRAIN_SECONDS, pause=0.3)
    except (ApiError, OSError, ClusterError) as e:
        say(f"    pods did not end by themselves ({e}); they are killed")


def _network_results() -> list[Path]:
    """What the pod network noted about each pod that is attached to it."""
    return list(Path("/var/lib/cni/results").glob(f"{CNI_NETWORK}-*"))


def _end_shims(settings: Settings) -> None:
    """End the shims of our containerd: those that were started with our socket's path as an argument."""
    address = str(settings.containerd_socket)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "-address" in arguments and address in arguments and "shim" in arguments[0]:
            pid = int(folder.name)
            ticks = start_ticks(pid)
            if ticks is not None:
                end(pid, ticks, 2.0)


def _in_cgroup() -> set[int]:
    found: set[int] = set()
    for hierarchy in cgroup_hierarchies():
        for path in (hierarchy / CGROUP).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found |= {int(line) for line in path.read_text().split()}
    return found - {0, os.getpid()}


def _remove_shim_sockets(settings: Settings) -> None:
    """Shims put their sockets into a folder that all containerds share; each bundle says which are its own."""
    for path in (settings.run / "containerd").glob("io.containerd.runtime.v2.task/*/*/address"):
        with contextlib.suppress(OSError):
            Path(path.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
    for folder in ("/run/containerd/s", "/run/containerd"):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # only when empty


def mounts_under(mountinfo: str, folders: tuple[Path, ...]) -> list[str]:
    """The mount points in a `/proc/self/mountinfo` that lie in `folders`, the last mounted first."""
    found = []
    for line in mountinfo.splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4])
        if any(Path(point).is_relative_to(folder) for folder in folders):
            found.append(point)
    return found[::-1]


def _unmount(settings: Settings) -> None:
    # More than once: what is mounted twice in one place shows its lower mount only after the upper one has gone.
    for _ in range(5):
        points = mounts_under(Path("/proc/self/mountinfo").read_text(), (settings.data, settings.run))
        if not points:
            return
        for point in points:
            run(["umount", "--lazy", point], check=False)


def _remove_cgroups() -> None:
    for hierarchy in cgroup_hierarchies():
        ours = hierarchy / CGROUP
        for folder in [*sorted((p for p in ours.rglob("*") if p.is_dir()), reverse=True), ours]:
            with contextlib.suppress(OSError):
                folder.rmdir()


def rules_to_clean(saved: str) -> str:
    """`iptables-save` output in, `iptables-restore --noflush` input out: removes our chains and the jumps to them."""
    tables: dict[str, tuple[list[str], list[str]]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
            tables[table] = ([], [])
        elif line.startswith(":") and line[1:].startswith(_OUR_CHAINS):
            tables[table][0].append(line[1:].split()[0])
        elif line.startswith("-A "):
            words = line.split()
            jump = next((b for a, b in itertools.pairwise(words) if a in ("-j", "-g")), "")
            if jump.startswith(_OUR_CHAINS) and not words[1].startswith(_OUR_CHAINS):
                tables[table][1].append("-D " + line[3:])
    out = []
    for table, (chains, jumps) in tables.items():
        if chains or jumps:
            out += [f"*{table}", *jumps, *(f"-F {c}" for c in chains), *(f"-X {c}" for c in chains), "COMMIT"]
    return "".join(f"{line}\n" for line in out)


def _clean_rules(program: str) -> None:
    if shutil.which(f"{program}-save") is None:
        return
    commands = rules_to_clean(run([f"{program}-save"], check=False))
    if commands:
        run([f"{program}-restore", "--noflush"], stdin=commands)


def _remove_files_elsewhere(settings: Settings) -> None:
    for path in _network_results():
        # <network>-<sandbox id>-<interface>; there is another one of the loopback network for each sandbox.
        sandbox = path.name.split("-")[-2]
        for result in path.parent.glob(f"*-{sandbox}-*"):
            result.unlink(missing_ok=True)
    absent = _before(settings).get("absent")
    for folder in FIXED_FOLDERS:
        if isinstance(absent, list) and folder in absent:
            shutil.rmtree(folder, ignore_errors=True)


def _restore_sysctls(settings: Settings) -> None:
    before = _before(settings)
    for name in SYSCTLS:
        if name in before:
            Path("/proc/sys", name).write_text(f"{before[name]}\n")


def _before(settings: Settings) -> dict[str, object]:
    try:
        known: dict[str, object] = json.loads(before_file(settings).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known
