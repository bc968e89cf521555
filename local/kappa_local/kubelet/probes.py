"""Probes: what they ask (I/O) and what their answers mean (pure thresholds and timing)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from kappa_local.types import Obj

FIRST_PAUSE = 0.015
GROWTH = 1.25
"""While a container has never been ready it is asked again after 15 ms, then ever more slowly up to its period: a
start is noticed within a quarter of the time it took.
"""


@dataclass(frozen=True)
class ProbeSpec:
    """A probe's numbers, in seconds and counts, and what to ask."""

    action: Obj
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success: int = 1
    failure: int = 3

    @classmethod
    def of(cls, raw: Obj) -> ProbeSpec:
        return cls(
            raw,
            float(raw.get("initialDelaySeconds") or 0),
            float(raw.get("periodSeconds") or 10),
            float(raw.get("timeoutSeconds") or 1),
            int(raw.get("successThreshold") or 1),
            int(raw.get("failureThreshold") or 3),
        )


@dataclass
class Verdict:
    """Counts answers in a row; `value` changes when a threshold is reached, None until then.

    Failures count at most once per period, however often is asked: `failureThreshold` periods is the time a start may
    take.
    """

    spec: ProbeSpec
    value: bool | None = None
    last: bool | None = None
    _run: int = 0
    _counted: float = 0.0

    def add(self, good: bool, now: float) -> bool | None:
        repeated = good == self.last
        if repeated and not good and now - self._counted < self.spec.period * 0.99:
            return self.value
        self._run = self._run + 1 if repeated else 1
        self._counted = now
        self.last = good
        if self._run >= (self.spec.success if good else self.spec.failure):
            self.value = good
        return self.value


def pause(spec: ProbeSpec, verdict: Verdict, asked: int) -> float:
    """Seconds until the next question: quick while a start is awaited, the period afterwards."""
    if verdict.value is True or verdict.last:
        return spec.period
    return min(spec.period, FIRST_PAUSE * GROWTH ** min(asked, 64))


@dataclass(frozen=True)
class Target:
    """Where a probe goes: the pod's address, the container's named ports, and how to run a command in the container."""

    ip: str
    ports: Mapping[str, int]
    env: Mapping[str, str]
    cwd: str


async def ask(spec: ProbeSpec, target: Target, session: aiohttp.ClientSession) -> tuple[bool, str]:
    """(success, what was seen). Never raises."""
    try:
        async with asyncio.timeout(spec.timeout):
            if http := spec.action.get("httpGet"):
                return await _http(http, target, session)
            if tcp := spec.action.get("tcpSocket"):
                return await _tcp(tcp, target)
            if run := spec.action.get("exec"):
                return await _exec(run, target)
            return False, "kappa_local has httpGet, tcpSocket and exec probes only"
    except TimeoutError:
        return False, f"timeout after {spec.timeout:g}s"
    except (OSError, aiohttp.ClientError, ValueError, KeyError) as e:
        return False, str(e) or type(e).__name__
    except RuntimeError as e:
        if not session.closed:
            raise
        return False, str(e)  # the kubelet ends


def port_number(port: Any, target: Target) -> int:
    if isinstance(port, str) and not port.isdecimal():
        return target.ports[port]
    return int(port)


async def _http(http: Obj, target: Target, session: aiohttp.ClientSession) -> tuple[bool, str]:
    host = http.get("host") or target.ip
    scheme = str(http.get("scheme") or "HTTP").lower()
    path = str(http.get("path") or "/")
    url = f"{scheme}://{host}:{port_number(http['port'], target)}{path if path.startswith('/') else '/' + path}"
    headers = {item["name"]: item["value"] for item in http.get("httpHeaders") or ()}
    async with session.get(url, headers=headers, allow_redirects=False, ssl=False) as response:
        text = (await response.content.read(200)).decode(errors="replace")
        good = 200 <= response.status < 400
        return good, "" if good else f"HTTP probe failed with statuscode: {response.status} {text}".strip()


async def _tcp(tcp: Obj, target: Target) -> tuple[bool, str]:
    _, writer = await asyncio.open_connection(tcp.get("host") or target.ip, port_number(tcp["port"], target))
    writer.close()
    return True, ""


async def _exec(run: Obj, target: Target) -> tuple[bool, str]:
    child = await asyncio.create_subprocess_exec(
        *run["command"],
        env=dict(target.env),
        cwd=target.cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await child.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        raise
    return child.returncode == 0, output.decode(errors="replace")[:1024]


async def watch(
    spec: ProbeSpec, target: Target, session: aiohttp.ClientSession, tell: Callable[[bool, str], bool]
) -> None:
    """Asks for ever; tells each change of the verdict (value, what was seen). Ends when `tell` says so by
    returning False.
    """
    verdict = Verdict(spec)
    clock = asyncio.get_running_loop().time
    if spec.initial_delay:
        await asyncio.sleep(spec.initial_delay)
    asked = 0
    while True:
        good, seen = await ask(spec, target, session)
        before = verdict.value
        value = verdict.add(good, clock())
        if value is not None and value != before and not tell(value, seen):
            return
        await asyncio.sleep(pause(spec, verdict, asked))
        asked += 1
