"""What programs ask of the Kubernetes API, recorded by a proxy in front of it; and what the chart lets them ask.

Both come as sets of `Right`s, so that a test can subtract one from the other in both directions.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

Json = Any

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"}


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One thing that may be done. `namespace` is empty for the whole cluster; `name` for any object."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""

    def covers(self, other: "Right") -> bool:
        """Whether who has this right may do the other."""
        return (
            (self.verb, self.resource, self.group) == (other.verb, other.resource, other.group)
            and self.namespace in ("", other.namespace)
            and self.name in ("", other.name)
        )

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        what = f"{self.group}/{self.resource}" if self.group else self.resource
        return f"{self.verb} {what}" + (f"[{self.name}]" if self.name else "") + where


def right_of(method: str, path: str, query: Any) -> Right | None:
    """The right that a request needs, as the API server's authorizer would put it; None for discovery and health."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    name, sub = found["name"] or "", found["sub"]
    if method in ("GET", "HEAD"):
        watches = query.get("watch", "") in ("1", "true")
        verb = "watch" if watches else "get" if name else "list"
    else:
        verb = _VERBS[method] if name or method == "POST" else f"{_VERBS[method]}collection"
    resource = f"{found['resource']}/{sub}" if sub else found["resource"]
    # Authorizers see no name when an object is created.
    return Right(verb, resource, found["group"] or "", found["namespace"] or "", "" if verb == "create" else name)


@dataclass
class Recorder:
    """A proxy before an API server. `rights`: what was asked for through it, the namespaces and names as asked."""

    upstream: str
    url: str = ""
    rights: set[Right] = field(default_factory=set)
    session: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        right = right_of(request.method, request.path, request.query)
        if right is not None:
            self.rights.add(right)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        assert self.session is not None
        async with self.session.request(
            request.method, self.upstream + request.path_qs, data=await request.read(), headers=headers
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            reply = web.StreamResponse(status=answer.status, headers=kept)
            await reply.prepare(request)
            async for chunk in answer.content.iter_any():
                await reply.write(chunk)
            await reply.write_eof()
            return reply


@asynccontextmanager
async def recording(upstream: str) -> AsyncIterator[Recorder]:
    """A recorder that listens on a free port."""
    recorder = Recorder(upstream)
    app = web.Application(client_max_size=16 << 20)
    app.router.add_route("*", "/{path:.*}", recorder.handle)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        recorder.session = session
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        recorder.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield recorder
        finally:
            await asyncio.wait_for(runner.cleanup(), 5)


def granted(chart: Path, account: str, namespace: str) -> set[Right]:
    """What the roles in the chart's rbac*.yaml give to the ServiceAccount `account`, where only `default` has
    API keys and sources with Secrets.

    The file's few template expressions are all of one kind: whole lines that do not change what is granted, and the
    release's namespace. A line within a condition counts as granted.
    """
    text = (chart / "templates" / "rbac.yaml").read_text()
    for file in ("rbac-api-keys.yaml", "rbac-sources.yaml"):
        secrets = (chart / "templates" / file).read_text().partition("{{- else }}")[2]
        secrets = secrets.partition("{{- with $events.kubernetes.rules }}")[0]
        text += secrets.replace("namespace: {{ . }}", "namespace: default")
    for release in ("{{ .Release.Namespace }}", "{{ $.Release.Namespace }}"):
        text = text.replace(release, namespace)
    lines = [line for line in text.splitlines() if not line.strip().startswith("{{")]
    assert not any("{{" in line for line in lines), "rbac.yaml has a template expression that this test does not know"
    objects = [item for item in yaml.safe_load_all("\n".join(lines)) if item]
    roles = {(item["kind"], item["metadata"]["name"]): item for item in objects if item["kind"].endswith("Role")}
    found: set[Right] = set()
    for binding in objects:
        subjects = [s["name"] for s in binding.get("subjects") or () if s["kind"] == "ServiceAccount"]
        if account not in subjects:
            continue
        role = roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]
        where = binding["metadata"].get("namespace", "") if binding["kind"] == "RoleBinding" else ""
        found.update(_rights(role["rules"], where))
    return found


def _rights(rules: Iterable[Json], namespace: str) -> Iterable[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or [""]:
                        yield Right(verb, resource, group, namespace, name)
