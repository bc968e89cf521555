"""The `restricted` level of Kubernetes' Pod Security Standards, as a list of what a pod spec breaks.

Written from the standards' page, not from our own code: each check names the standard's control. Also the fields of
init and ephemeral containers count, and a setting of the pod holds for containers that do not say otherwise.
"""

from collections.abc import Iterator
from typing import Any

Json = Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
SECCOMP = {"RuntimeDefault", "Localhost"}
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")


def violations(spec: Json, annotations: Json = None) -> list[str]:
    """What keeps this pod spec from the restricted level; empty when nothing does."""
    return [*_pod(spec, annotations or {}), *(text for name in CONTAINERS for text in _containers(spec, name))]


def _pod(spec: Json, annotations: Json) -> Iterator[str]:
    context = spec.get("securityContext") or {}
    yield from (f"host namespaces: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    for volume in spec.get("volumes") or ():
        yield from (f"volume types: {kind}" for kind in volume if kind != "name" and kind not in VOLUMES)
    for each in context.get("sysctls") or ():
        if each.get("name") not in SYSCTLS:
            yield f"sysctls: {each.get('name')}"
    for key, value in annotations.items():
        ours = key.startswith("container.apparmor.security.beta.kubernetes.io/")
        if ours and value != "runtime/default" and not value.startswith("localhost/"):
            yield f"AppArmor: {value}"
    yield from _context(context, "the pod")


def _containers(spec: Json, kind: str) -> Iterator[str]:
    pod = spec.get("securityContext") or {}
    for container in spec.get(kind) or ():
        name, context = container.get("name"), container.get("securityContext") or {}
        yield from _context(context, name)
        if context.get("privileged"):
            yield f"privileged containers: {name}"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"privilege escalation: {name}"
        if context.get("procMount") not in (None, "Default"):
            yield f"/proc mount type: {name}"
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            yield f"capabilities: {name} does not drop ALL"
        if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
            yield f"capabilities: {name} adds some"
        if not context.get("runAsNonRoot", pod.get("runAsNonRoot")):
            yield f"running as non-root: {name}"
        profile = context.get("seccompProfile") or pod.get("seccompProfile") or {}
        if profile.get("type") not in SECCOMP:
            yield f"seccomp: {name}"
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield f"host ports: {name}"
        for probe in HANDLERS:
            for action in ("httpGet", "tcpSocket"):
                if ((container.get(probe) or {}).get(action) or {}).get("host"):
                    yield f"host probes: {name}"


def _context(context: Json, where: str) -> Iterator[str]:
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"HostProcess: {where}"
    if context.get("runAsUser") == 0:
        yield f"running as non-root user: {where}"
    if context.get("runAsNonRoot") is False:
        yield f"running as non-root: {where}"
    if (context.get("appArmorProfile") or {}).get("type") not in (None, "RuntimeDefault", "Localhost"):
        yield f"AppArmor: {where}"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"SELinux: {where}"
    if "seccompProfile" in context and context["seccompProfile"].get("type") not in SECCOMP:
        yield f"seccomp: {where}"
