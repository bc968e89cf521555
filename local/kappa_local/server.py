"""The HTTP face: authentication, routing by path, errors as Status objects. One handler; the verbs are in
`handlers`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from kappa_local import codec, discovery, errors, handlers, openapi
from kappa_local.errors import ApiError
from kappa_local.handlers import LogReader
from kappa_local.requestinfo import parse
from kappa_local.rest import Rest
from kappa_local.types import Obj

log = logging.getLogger(__name__)

BODY_LIMIT = 3 * 1024 * 1024
"""Bytes of a request body, as in the real server. An object's size is bounded by it."""


@dataclass
class ApiServer:
    """`token` None lets every program of this machine in. kubectl sends no token over plain HTTP; client libraries
    do.
    """

    rest: Rest
    logs: LogReader
    token: str | None = None
    address: str = ""
    _openapi: tuple[int, dict[str, bytes]] = (-1, {})

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            check_origin(request.headers)
            if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
                raise errors.unauthorized()
            return await self._route(request)
        except ApiError as e:
            headers = {"Retry-After": "1"} if e.code in (429, 504) else {}
            return respond(e.status(), e.code, headers)
        except ConnectionResetError:
            raise
        except Exception as e:
            log.exception("%s %s", request.method, request.path_qs)
            return respond(errors.internal(f"{type(e).__name__}: {e}").status(), 500)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        info = parse(path)
        if info is not None and info.plural:
            resource = self.rest.registry.find(info.group, info.version, info.plural)
            if resource is None:
                return self._missing(info.group, info.version)
            body = await read_body(request)
            return await handlers.handle(handlers.Call(self.rest, self.logs, request, info, resource, body))
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        if path.startswith("/openapi/v3"):
            return self._openapi_v3(path.removeprefix("/openapi/v3").strip("/"))
        if path == "/openapi/v2":
            protobuf, plain = openapi.version_2()
            if "protobuf" in request.headers.get("Accept", ""):
                return web.Response(body=protobuf, content_type=openapi.V2_TYPE)
            return respond(plain)
        if info is not None:
            if not self.rest.registry.has_version(info.group, info.version):
                return not_found_page()
            return respond(discovery.resources(self.rest.registry, info.group, info.version))
        return self._root(path)

    def _missing(self, group: str, version: str) -> web.StreamResponse:
        """A group that nobody serves is a plain page; a resource that a served group lacks is a Status."""
        if not self.rest.registry.has_version(group, version):
            return not_found_page()
        raise errors.no_such_resource()

    def _root(self, path: str) -> web.StreamResponse:
        registry = self.rest.registry
        if path in ("/healthz", "/readyz", "/livez"):
            return web.Response(text="ok")
        if path == "/metrics":
            return web.Response(text=f"kappa_local_tasks {len(asyncio.all_tasks())}\n")
        if path == "/version":
            return respond(discovery.version())
        if path == "/api":
            return respond(discovery.core_versions(self.address))
        if path == "/apis":
            return respond(discovery.groups(registry))
        if path.startswith("/apis/") and path.count("/") == 2:
            name = path.removeprefix("/apis/")
            if name in registry.group_versions():
                return respond(discovery.group(registry, name, alone=True))
        if path == "/":
            return respond(
                {
                    "paths": [
                        "/api",
                        "/api/v1",
                        "/apis",
                        "/healthz",
                        "/livez",
                        "/metrics",
                        "/openapi/v3",
                        "/readyz",
                        "/version",
                    ]
                }
            )
        return not_found_page()

    def _openapi_v3(self, at: str) -> web.StreamResponse:
        """Documents are made once per state of the registry: the core one has 300 definitions."""
        registry = self.rest.registry
        if self._openapi[0] != registry.revision:
            self._openapi = (registry.revision, {})
        cache = self._openapi[1]
        if at not in cache:
            if not at:
                cache[at] = codec.dumps(openapi.index(registry))
            else:
                parts = at.split("/")
                group, version = (parts[1], parts[2]) if len(parts) == 3 else ("", parts[-1])
                if not registry.has_version(group, version):
                    return not_found_page()
                cache[at] = codec.dumps(openapi.document(registry, group, version))
        return web.Response(body=cache[at], content_type="application/json")


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuses what a web page in a browser of this machine may send: it could start pods, and so programs.

    `Origin` and `Sec-Fetch-Site` are on every cross-site request that changes something; a name in `Host` that is not
    this machine's is a page that had its own name resolved to loopback.
    """
    host = headers.get("Host", "").rpartition(":")[0].strip("[]") or headers.get("Host", "")
    if (
        "Origin" in headers
        or "Sec-Fetch-Site" in headers
        or not (host.startswith("127.") or host in ("localhost", "::1"))
    ):
        raise errors.ApiError(403, "Forbidden", "kappa_local answers programs of this machine, not web pages")


def not_found_page() -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


def respond(body: Obj, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=codec.dumps(body), status=status, content_type="application/json", headers=headers)


async def read_body(request: web.BaseRequest) -> bytes:
    if not request.can_read_body:
        return b""
    if (request.content_length or 0) > BODY_LIMIT:
        raise errors.too_large(BODY_LIMIT)
    body = await request.content.read(-1)
    if len(body) > BODY_LIMIT:
        raise errors.too_large(BODY_LIMIT)
    return body
