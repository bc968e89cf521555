"""A real Kubernetes with Kappa on it, for the end-to-end tests: kubectl, helm, the gateway's address, and load."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

Json = Any

POLL_SECONDS = 0.1
CHART = Path(__file__).resolve().parents[2] / "charts" / "kappa"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said. `text` is both streams."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call of a function brought. `seconds`: until the whole body was there."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    seconds: float

    @property
    def json(self) -> Json:
        return json.loads(self.body)


@dataclass(slots=True)
class Load:
    """Calls that go on in the background. `failures` has every call that was not answered with 200, in words."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    bodies: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, reply: Reply) -> None:
        self.calls += 1
        self.slowest = max(self.slowest, reply.seconds)
        if reply.status == 200:
            self.bodies[reply.body.decode(errors="replace")] += 1
        else:
            self.failures.append(f"{reply.status} {reply.body[:300]!r} after {reply.seconds:.2f} s")


@dataclass(frozen=True, slots=True)
class Cluster:
    """`kubeconfig` and the folder with kubectl and helm; `namespace` is where the tests' Functions are.

    `url` is the gateway's base URL as this machine reaches it.
    """

    kubeconfig: str
    tools: str
    namespace: str
    system: str
    url: str = ""

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"KUBECONFIG": self.kubeconfig, "PATH": f"{self.tools}:{os.environ['PATH']}"}

    async def run(self, *command: str, stdin: str = "") -> Answer:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self.env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        return Answer(process.returncode or 0, out.decode(), err.decode())

    async def kubectl(self, *arguments: str, namespace: str = "", stdin: str = "") -> str:
        """Runs kubectl in the tests' namespace and returns what it printed; fails with what it said when it failed."""
        answer = await self.run("kubectl", "-n", namespace or self.namespace, *arguments, stdin=stdin)
        assert answer.ok, f"kubectl {' '.join(arguments)}: {answer.text}"
        return answer.out

    async def get(self, kind: str, name: str = "", *, namespace: str = "", selector: str = "") -> Json:
        """One object, or the `items` of a list."""
        flags = ["-l", selector] if selector else []
        found = json.loads(
            await self.kubectl("get", kind, *([name] if name else []), *flags, "-o", "json", namespace=namespace)
        )
        return found if name else found["items"]

    async def apply(self, *objects: Json) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        await self.kubectl("apply", "-f", "-", stdin=text)

    async def refused(self, *objects: Json) -> str:
        """Applies what must be refused; returns why it was."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        answer = await self.run("kubectl", "-n", self.namespace, "apply", "-f", "-", stdin=text)
        assert not answer.ok, f"the server took it: {answer.text}"
        return answer.err

    async def status(self, name: str) -> Json:
        return (await self.get("fn", name)).get("status", {})

    async def until(self, name: str, done: Callable[[Json], bool], seconds: float = 30.0) -> Json:
        """The Function's status as soon as `done` holds for it and it is about the newest spec."""

        async def look() -> Json:
            found = await self.get("fn", name)
            status = found.get("status", {})
            fresh = status.get("observedGeneration") == found["metadata"]["generation"]
            return (fresh and done(status)), status

        return await eventually(look, seconds, f"status of {name}")

    async def pods(self, name: str) -> list[Json]:
        found: list[Json] = await self.get("pods", selector=f"kappa.dev/function={name}")
        return found

    @asynccontextmanager
    async def session(self, *, keep_alive: bool = True) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(limit=0, force_close=not keep_alive)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            yield session

    async def call(
        self,
        path: str,
        *,
        session: aiohttp.ClientSession | None = None,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Reply:
        """Calls the gateway. `path` without a slash is a function of the tests' namespace. Status 0: no answer."""
        if session is None:
            async with self.session(keep_alive=False) as own:
                return await self.call(path, session=own, method=method, headers=headers, data=data)
        url = self.url + (path if path.startswith("/") else f"/fn/{self.namespace}/{path}")
        start = time.monotonic()
        try:
            async with session.request(method, url, headers=headers, data=data) as answer:
                body = await answer.read()
                return Reply(answer.status, body, dict(answer.headers), time.monotonic() - start)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Reply(0, repr(error).encode(), {}, time.monotonic() - start)

    @asynccontextmanager
    async def load(self, path: str, workers: int, *, pause: float = 0.0) -> AsyncIterator[Load]:
        """Calls `path` from `workers` callers, each as soon as its last call is done. Half of them keep connections."""
        load, stop = Load(), asyncio.Event()

        async def work(session: aiohttp.ClientSession) -> None:
            while not stop.is_set():
                load.add(await self.call(path, session=session))
                await asyncio.sleep(pause)

        async with self.session() as kept, self.session(keep_alive=False) as fresh, asyncio.TaskGroup() as tasks:
            for number in range(workers):
                tasks.create_task(work(kept if number % 2 else fresh))
            try:
                yield load
            finally:
                stop.set()


async def eventually(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """Asks `look` for (done, value) until done, and returns the value; fails with the last value after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        done, value = await look()
        if done:
            return value
        assert time.monotonic() < deadline, f"{what}, after {seconds} s: {json.dumps(value, indent=1, default=str)}"
        await asyncio.sleep(POLL_SECONDS)


def ready(status: Json) -> Json:
    """The Ready condition of a Function's status, or an empty one."""
    return next((item for item in status.get("conditions", ()) if item["type"] == "Ready"), {})


def is_ready(status: Json) -> bool:
    return bool(ready(status).get("status") == "True")


def function(name: str, code: str | Json, **fields: Json) -> Json:
    """A Function manifest. `code` as text is inline; runtime and handler are the usual ones unless it is an image."""
    source = {"inline": code} if isinstance(code, str) else code
    usual = {} if "image" in source else {"runtime": "python", "handler": "main.handler"}
    spec = usual | {"code": source} | fields
    return {"apiVersion": "kappa.dev/v1", "kind": "Function", "metadata": {"name": name}, "spec": spec}


def returns(value: Json, sleep: float = 0.0) -> str:
    """Code whose handler returns `value`, after a while."""
    lines = ["import time", "def handler(event, context):"]
    return "\n".join([*lines, f"    time.sleep({sleep})", f"    return {value!r}"]) + "\n"


def names_of(objects: Sequence[Json]) -> list[str]:
    return [item["metadata"]["name"] for item in objects]


def pod_spec(objects: Json, component: str) -> Json:
    """Of what helm rendered: the pods of a Deployment."""
    return objects["Deployment", f"kappa-{component}"]["spec"]["template"]["spec"]


def rights(role: Json) -> set[str]:
    """`verb group/resource[/name]` of every rule."""
    return {
        f"{verb} {group + '/' if group else ''}{resource}"
        + "".join(f"[{name}]" for name in rule.get("resourceNames", ()))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
