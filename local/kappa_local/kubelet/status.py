"""A pod's status from what was observed of its containers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kappa_local.types import Obj

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


@dataclass
class ContainerView:
    """What the kubelet knows about one container. `state` is a ContainerState: one of waiting, running, terminated."""

    name: str
    image: str
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Obj = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0
    pid: int = 0

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def report(self) -> Obj:
        out: Obj = {
            "name": self.name,
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "restartCount": self.restarts,
            "image": self.image,
            "imageID": "",
            "started": self.started,
        }
        if self.pid:
            out["containerID"] = f"process://{self.pid}"
        return out


def running(now: str) -> Obj:
    return {"running": {"startedAt": now}}


def waiting(reason: str, message: str = "") -> Obj:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def terminated(code: int, started: str, now: str, reason: str = "", message: str = "", pid: int = 0) -> Obj:
    ended: Obj = {
        "exitCode": code,
        "reason": reason or ("Completed" if code == 0 else "Error"),
        "startedAt": started,
        "finishedAt": now,
    }
    if message:
        ended["message"] = message
    if code > 128:
        ended["signal"] = code - 128
    if pid:
        ended["containerID"] = f"process://{pid}"
    return {"terminated": ended}


def phase(
    restart_policy: str, inits: list[ContainerView], mains: list[ContainerView], *, stopping: bool = False
) -> Phase:
    """The phase that the real kubelet's getPhase gives. `stopping`: nothing is restarted any more."""
    policy = "Never" if stopping else restart_policy
    if any((view.exit_code or 0) != 0 for view in inits) and policy == "Never":
        return "Failed"
    if any(view.exit_code != 0 for view in inits):
        return "Pending"
    codes = [view.exit_code for view in mains]
    if all(code is not None for code in codes):
        if policy == "Always":
            return "Running"
        if all(code == 0 for code in codes):
            return "Succeeded"
        return "Running" if policy == "OnFailure" else "Failed"
    if any(view.running or view.restarts or view.exit_code is not None for view in mains):
        return "Running"
    return "Pending"


def conditions(
    pod: Obj, phase_now: Phase, inits: list[ContainerView], mains: list[ContainerView], now: str
) -> list[Obj]:
    """The four conditions. A condition keeps its transition time as long as its status stays."""
    done = phase_now in ("Succeeded", "Failed")
    unready = [view.name for view in mains if not view.ready]
    initialized = all(view.exit_code == 0 for view in inits)
    ready = not unready and not done and bool(mains)
    why: Obj = {}
    if phase_now == "Succeeded":
        why = {"reason": "PodCompleted"}
    elif not ready:
        why = {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()]
    before = {condition["type"]: condition for condition in (pod.get("status") or {}).get("conditions") or ()}
    gated = [gate for gate in gates if (before.get(gate) or {}).get("status") != "True"]
    pod_ready = ready and not gated
    why_pod = why if not ready else {"reason": "ReadinessGatesNotReady"} if gated else {}
    made = [
        ("Initialized", initialized, {} if initialized else {"reason": "ContainersNotInitialized"}),
        ("Ready", pod_ready, why_pod),
        ("ContainersReady", ready, why),
        ("PodScheduled", True, {}),
    ]
    own = {name for name, _, _ in made}
    out = []
    for name, value, extra in made:
        status = "True" if value else "False"
        old = before.get(name)
        since = old["lastTransitionTime"] if old is not None and old["status"] == status else now
        out.append({"type": name, "status": status, "lastProbeTime": None, "lastTransitionTime": since, **extra})
    return [*out, *(condition for kind, condition in before.items() if kind not in own)]


def unschedulable(message: str, now: str) -> Obj:
    """The condition of a pod that no node takes."""
    return {
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": now,
        "reason": "Unschedulable",
        "message": message,
    }


def pod_status(
    pod: Obj,
    ip: str,
    host_ip: str,
    inits: list[ContainerView],
    mains: list[ContainerView],
    now: str,
    *,
    stopping: bool = False,
) -> Obj:
    """The whole status. Keeps what others wrote (conditions of their own, the quality of service class)."""
    phase_now = phase(pod["spec"].get("restartPolicy", "Always"), inits, mains, stopping=stopping)
    old: Obj = pod.get("status") or {}
    out: Obj = {
        "phase": phase_now,
        "conditions": conditions(pod, phase_now, inits, mains, now),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": old.get("startTime") or now,
    }
    if inits:
        out["initContainerStatuses"] = [view.report() for view in inits]
    out["containerStatuses"] = [view.report() for view in mains]
    if "qosClass" in old:
        out["qosClass"] = old["qosClass"]
    return out
