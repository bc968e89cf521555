"""The kubelet's loop: takes each new pod onto the one node, gives it a worker, ends the worker when the pod goes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from kappa_local.errors import bad_request
from kappa_local.kubelet.addresses import Network
from kappa_local.kubelet.container import Host
from kappa_local.kubelet.env import PodFacts
from kappa_local.kubelet.guard import Guard
from kappa_local.kubelet.logs import LogOptions
from kappa_local.kubelet.status import ContainerView, pod_status, running, unschedulable
from kappa_local.kubelet.worker import Worker
from kappa_local.metadata import now
from kappa_local.node import PODS
from kappa_local.recorder import Recorder
from kappa_local.rest import Rest
from kappa_local.store import Event
from kappa_local.types import Key, Obj

log = logging.getLogger(__name__)

NO_PROCESS = "kappa.dev/local-process"
"""A pod with this annotation set to "none" is Running and Ready at once, without a process: for tests of scale."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class KubeletSettings:
    """`images`: image name -> command. `backoff`: seconds before the second restart of a container, doubled each
    time up to `backoff_limit`; smaller is friendlier to tests. `stop_grace`: what pods get when kappa_local itself
    stops.
    """

    state_dir: Path
    images: Mapping[str, list[str]] = field(default_factory=dict)
    node: str = "kappa-local"
    backoff: float = 10.0
    backoff_limit: float = 300.0
    stop_grace: float = 2.0


class Kubelet:
    def __init__(self, rest: Rest, network: Network, settings: KubeletSettings) -> None:
        self._rest = rest
        self._network = network
        self._settings = settings
        self._pods = rest.builtin("pods")
        self._keys: dict[str, Key] = {}
        self._refused: dict[str, Key] = {}  # pods that the node cannot take
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._recorder = Recorder(rest, "kubelet", settings.node)
        self._host: Host | None = None

    async def start(self) -> None:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False),
            headers={"User-Agent": "kube-probe/1.32"},
        )
        self._host = Host(Guard(), session, self._settings.images, base_env(), self._backoff)
        self._rest.store.listen(self._observe)

    def _backoff(self, restarts: int) -> float:
        if restarts == 0:
            return 0.0
        return float(min(self._settings.backoff_limit, self._settings.backoff * 2 ** (restarts - 1)))

    # -- what the store tells

    def _observe(self, table: str, event: Event) -> None:
        if table == "nodes." and self._refused:
            asyncio.get_running_loop().call_soon(self._retry)
        if table != self._pods.table:
            return
        pod = event.entry.obj
        uid = pod["metadata"]["uid"]
        if event.type == "DELETED":
            self._gone(uid)
        elif pod["metadata"].get("deletionTimestamp"):
            self._deleting(uid, pod)
        elif event.type == "ADDED" and pod["spec"].get("nodeName") in (None, "", self._settings.node):
            # Not in the middle of the write that created it: the creator's answer is the pod as it was created.
            asyncio.get_running_loop().call_soon(self._accept, event.entry.key, uid)

    def _accept(self, key: Key, uid: str) -> None:
        entry = self._rest.store.table(self._pods.table).get(key)
        if entry is None or entry.obj["metadata"]["uid"] != uid or entry.obj["metadata"].get("deletionTimestamp"):
            return
        pod = entry.obj
        assert self._host is not None
        if why := self._misfit(pod):
            self._refuse(key, pod, why)
            return
        self._refused.pop(uid, None)
        self._keys[uid] = key
        ip = self._network.node if pod["spec"].get("hostNetwork") else self._network.take()
        if pod["spec"].get("hostNetwork"):
            ip = "127.0.0.1"
        if (pod["metadata"].get("annotations") or {}).get(NO_PROCESS) == "none":
            self._bind(key, pod, self._idle_status(pod, ip))
            return
        facts = PodFacts(ip, self._settings.node, self._network.node)
        base = self._settings.state_dir / "pods" / uid
        worker = Worker(pod, facts, base, self._host, self._lookup(key[0]), self)
        self._workers[uid] = worker
        self._bind(key, pod, worker.status(pod))
        self._recorder.record(
            pod, "Normal", "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {self._settings.node}"
        )
        self._tasks[uid] = asyncio.create_task(self._work(worker))

    def _misfit(self, pod: Obj) -> str:
        """Why the one node cannot take the pod, in the scheduler's words; empty when it can."""
        node = self._rest.store.table("nodes.").get(("", self._settings.node))
        if node is None:
            return ""
        labels = node.obj["metadata"].get("labels") or {}
        if any(labels.get(name) != value for name, value in (pod["spec"].get("nodeSelector") or {}).items()):
            return "1 node(s) didn't match Pod's node affinity/selector"
        most = int(((node.obj.get("status") or {}).get("allocatable") or {}).get("pods", PODS))
        return "1 Too many pods" if len(self._keys) >= most else ""

    def _retry(self) -> None:
        """There is room again, or the node has changed: those that were refused have another chance, oldest first."""
        for uid, key in list(self._refused.items()):
            self._accept(key, uid)

    def _refuse(self, key: Key, pod: Obj, why: str) -> None:
        uid = pod["metadata"]["uid"]
        if self._refused.get(uid) is not None:
            return
        self._refused[uid] = key
        message = f"0/1 nodes are available: {why}."
        status = {**(pod.get("status") or {}), "conditions": [unschedulable(message, now())]}
        self._rest.store.put(self._pods.table, key, {**pod, "metadata": dict(pod["metadata"]), "status": status})
        self._recorder.record(pod, "Warning", "FailedScheduling", message)

    def _bind(self, key: Key, pod: Obj, status: Obj) -> None:
        bound = {
            **pod,
            "metadata": dict(pod["metadata"]),
            "spec": {**pod["spec"], "nodeName": self._settings.node},
            "status": status,
        }
        self._rest.store.put(self._pods.table, key, bound)

    def _idle_status(self, pod: Obj, ip: str) -> Obj:
        moment = now()
        views = [
            ContainerView(raw["name"], raw.get("image", ""), running(moment), ready=True, started=True)
            for raw in pod["spec"]["containers"]
        ]
        return pod_status(pod, ip, self._network.node, [], views, moment)

    async def _work(self, worker: Worker) -> None:
        try:
            await worker.run()
        except Exception:
            log.exception("pod %s", worker.uid)
        finally:
            self._tasks.pop(worker.uid, None)
            if worker.uid not in self._keys:
                self._forget(worker)

    def _deleting(self, uid: str, pod: Obj) -> None:
        worker = self._workers.get(uid)
        if worker is None or uid not in self._tasks:
            asyncio.get_running_loop().call_soon(self.finished, uid)
            return
        worker.stop(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))

    def _gone(self, uid: str) -> None:
        key = self._keys.pop(uid, None)
        self._refused.pop(uid, None)
        if self._refused:
            asyncio.get_running_loop().call_soon(self._retry)
        worker = self._workers.get(uid)
        if worker is None:
            return
        worker.stop(0)
        if key is not None and uid not in self._tasks:
            self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        """Frees what a pod held. Only when its processes are gone and it has left the API: until then its logs can
        be read.
        """
        self._workers.pop(worker.uid, None)
        if worker.facts.ip != "127.0.0.1":
            self._network.free(worker.facts.ip)
        worker.clean()

    def _lookup(self, namespace: str) -> Callable[[str, str], Obj | None]:
        def lookup(plural: str, name: str) -> Obj | None:
            entry = self._rest.store.table(f"{plural}.").get((namespace, name))
            return entry.obj if entry is not None else None

        return lookup

    # -- what workers tell

    def _current(self, uid: str) -> tuple[Key, Obj] | None:
        key = self._keys.get(uid)
        entry = self._rest.store.table(self._pods.table).get(key) if key is not None else None
        if key is None or entry is None or entry.obj["metadata"]["uid"] != uid:
            return None
        return key, entry.obj

    def write(self, uid: str, status: Callable[[Obj], Obj]) -> None:
        found = self._current(uid)
        if found is None:
            return
        key, pod = found
        new = status(pod)
        if new != pod.get("status"):
            self._rest.store.put(self._pods.table, key, {**pod, "metadata": dict(pod["metadata"]), "status": new})

    def finished(self, uid: str) -> None:
        """A deleted pod's processes are gone: the object may go, if no finalizer holds it."""
        found = self._current(uid)
        if found is not None:
            key, pod = found
            meta = {**pod["metadata"], "deletionGracePeriodSeconds": 0}
            self._rest.release(self._pods, key, {**pod, "metadata": meta})

    def event(self, pod: Obj, kind: str, reason: str, message: str) -> None:
        self._recorder.record(pod, kind, reason, message)

    # -- logs and the end

    async def logs(self, pod: Obj, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The log of one container of a pod, as GET .../log asks for it."""
        names = [raw["name"] for raw in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))]
        main = [raw["name"] for raw in pod["spec"]["containers"]]
        pod_name = pod["metadata"]["name"]
        name = query.get("container") or (main[0] if len(main) == 1 else "")
        if not name:
            raise bad_request(
                f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(main)}]"
            )
        if name not in names:
            raise bad_request(f"container {name} is not valid for pod {pod_name}")
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is None:
            return
        previous = query.get("previous", "").lower() in ("true", "1")
        async for chunk in worker.logs(name, previous, log_options(query)):
            yield chunk

    async def stop(self) -> None:
        """Ends every process: SIGTERM, a short grace, SIGKILL."""
        for worker in tuple(self._workers.values()):
            worker.stop(self._settings.stop_grace)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._settings.stop_grace + 3)
        for task in tuple(self._tasks.values()):
            task.cancel()
        if self._host is not None:
            await self._host.session.close()
            await asyncio.to_thread(self._host.guard.close)


def log_options(query: Mapping[str, str]) -> LogOptions:
    since = None
    if query.get("sinceSeconds"):
        since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
    elif query.get("sinceTime"):
        since = datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00"))
    return LogOptions(
        follow=query.get("follow", "").lower() in ("true", "1"),
        tail=int(query["tailLines"]) if query.get("tailLines") else None,
        since=since,
        timestamps=query.get("timestamps", "").lower() in ("true", "1"),
        limit=int(query["limitBytes"]) if query.get("limitBytes") else None,
    )


def base_env() -> dict[str, str]:
    """What a pod's process gets of this machine's environment, and what every Python image would set."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    folder = str(Path(sys.executable).parent)
    kept["PATH"] = folder + os.pathsep + kept.get("PATH", os.defpath)
    return {"LANG": "C.UTF-8", **kept, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
