"""The little of the Kubernetes API that the gateway reads: list, watch and one Lease, as plain JSON.

Credentials, TLS and proxies are the official client's business (`kubernetes.aio`); its typed models are not used, since
decoding ten thousand objects with them costs seconds and a hundred megabytes.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

Json = Any

#: Objects per page of a list: bounds the memory and the length of one pause for parsing.
PAGE: Final = 200
#: Seconds of silence before the first probe, between probes, and how many may go unanswered: noticed within 25 s.
PROBES: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_MAX_LINE: Final = 16 * 1024 * 1024


class ApiError(Exception):
    """The API server answered with an error; `status` is the HTTP status, or the code in a watch's ERROR event."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Kube:
    """One connection pool to the API server."""

    def __init__(self, api: Any) -> None:
        self._api = api

    @classmethod
    async def connect(cls) -> "Kube":
        """From KUBECONFIG, or from the service account of this pod."""
        configuration = kubernetes_client.Configuration()
        if os.environ.get("KUBECONFIG"):
            await kubernetes_config.load_kube_config(client_configuration=configuration)
        else:
            kubernetes_config.load_incluster_config(client_configuration=configuration)
        return cls(kubernetes_client.ApiClient(configuration))

    async def close(self) -> None:
        await self._api.close()

    async def get(self, path: str) -> Json:
        """One object. Raises ApiError, aiohttp.ClientError, TimeoutError."""
        response = await self._request(path, {}, aiohttp.ClientTimeout(total=10))
        try:
            return await response.json(content_type=None)
        finally:
            response.release()

    async def post(self, path: str, body: Json) -> Json:
        """Creates an object that is only answered, such as a review. Raises as `get`."""
        response = await self._request(path, {}, aiohttp.ClientTimeout(total=5), body)
        try:
            return await response.json(content_type=None)
        finally:
            response.release()

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[list[Json], str]]:
        """A collection page by page: (objects, the resource version to watch from)."""
        token = ""
        while True:
            page = {**query, "limit": str(PAGE), **({"continue": token} if token else {})}
            response = await self._request(path, page, aiohttp.ClientTimeout(total=60))
            try:
                body = json.loads(await response.read())
            finally:
                response.release()
            meta = body.get("metadata") or {}
            yield body.get("items") or [], str(meta.get("resourceVersion", ""))
            token = meta.get("continue") or ""
            if not token:
                return

    async def watch(self, path: str, query: Mapping[str, str], seconds: int) -> AsyncIterator[tuple[str, Json]]:
        """(type, object) of each change until the server ends the stream, which it is asked to do after `seconds`."""
        asked = {**query, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        # Longer than what was asked for: a server that vanished without a word is noticed by this
        timeout = aiohttp.ClientTimeout(total=seconds + 15, sock_connect=5)
        response = await self._request(path, asked, timeout)
        if response.connection is not None and response.connection.transport is not None:
            probe(response.connection.transport.get_extra_info("socket"))
        try:
            pending = bytearray()
            async for piece in response.content.iter_any():
                pending += piece
                if b"\n" in piece:
                    *lines, rest = pending.split(b"\n")
                    pending = bytearray(rest)
                    for line in lines:
                        if line.strip():
                            yield _event(line)
                elif len(pending) > _MAX_LINE:
                    raise ApiError(0, "a watch event is too large")
        finally:
            response.close()

    async def _request(
        self, path: str, query: Mapping[str, str], timeout: aiohttp.ClientTimeout, body: Json = None
    ) -> aiohttp.ClientResponse:
        headers: dict[str, str] = {"accept": "application/json"}
        method, given = "GET", {}
        if body is not None:
            method, given, headers["Content-Type"] = "POST", {"body": body}, "application/json"
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + ("?" + urlencode(query) if query else "")
        answer = await self._api.rest_client.request(method, url, headers=headers, _request_timeout=timeout, **given)
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 300:
            text = (await response.text())[:200]
            response.release()
            raise ApiError(response.status, text)
        return response


def probe(connection: socket.socket) -> None:
    """Has the kernel ask whether the other end is there. A watch says nothing for minutes when nothing happens; one
    whose other end vanished without a word (a node, a firewall's memory) must not look the same until it should end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if hasattr(socket, name):  # macOS lacks some
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _event(line: bytes | bytearray) -> tuple[str, Json]:
    event = json.loads(line)
    kind, value = event["type"], event["object"]
    if kind == "ERROR":
        raise ApiError(int(value.get("code") or 0), str(value.get("message", "")))
    return kind, value
