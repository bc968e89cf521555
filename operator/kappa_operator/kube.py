"""Raw JSON calls to the Kubernetes API.

Only configuration, authentication and the HTTP layer of the `kubernetes` package are used: turning answers into its
typed models costs more time than everything else in a claim. Errors carry the server's own message.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_incluster_config, load_kube_config

from kappa_api import names

Json = Any

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
PAGE = 500
REQUEST_SECONDS = 30.0


class ApiError(Exception):
    """The API server refused or could not be reached (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message
        super().__init__(f"{status} {reason}: {message}")


class NotFoundError(ApiError):
    """404: the object is gone."""


class ConflictError(ApiError):
    """409, or 422 for a JSON patch whose `test` failed: somebody changed the object first, or it exists already."""


async def load_configuration(env: Mapping[str, str] | None = None) -> Any:
    """The connection settings: `KUBECONFIG` when it is set, else the service account of this pod."""
    env = os.environ if env is None else env
    configuration = Configuration()
    if path := env.get("KUBECONFIG"):
        await load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    else:
        load_incluster_config(client_configuration=configuration)
    configuration.connection_pool_maxsize = 64
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


class Kube:
    """One connection pool to one API server. Paths begin with a slash; bodies and answers are decoded JSON."""

    def __init__(self, configuration: Any) -> None:
        self.configuration = configuration
        self._rest = RESTClientObject(configuration)

    async def close(self) -> None:
        await self._rest.close()

    async def authorization(self) -> str:
        """The `Authorization` header to send now (tokens rotate), or an empty string."""
        found = (await self.configuration.auth_settings()).get("BearerToken")
        return str(found["value"]) if found and found["value"] else ""

    async def request(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = REQUEST_SECONDS,
    ) -> Json:
        """One call. Raises ApiError, or its subclasses NotFoundError and ConflictError."""
        data = await self._send(method, path, body, params, content_type, accept, timeout)
        return json.loads(data) if data else None

    async def text(self, path: str, params: Mapping[str, str]) -> str:
        """Plain text, such as a log. Raises ApiError."""
        data = await self._send("GET", path, None, params, "application/json", "*/*", REQUEST_SECONDS)
        return data.decode(errors="replace")

    async def _send(
        self,
        method: str,
        path: str,
        body: Json,
        params: Mapping[str, str] | None,
        content_type: str,
        accept: str,
        timeout: float,
    ) -> bytes:
        headers = {"Content-Type": content_type, "Accept": accept}
        if authorization := await self.authorization():
            headers["Authorization"] = authorization
        url = self.configuration.host.rstrip("/") + path + (f"?{urlencode(params)}" if params else "")
        try:
            answer = await self._rest.request(
                method, url, headers=headers, body=body, _request_timeout=aiohttp.ClientTimeout(total=timeout)
            )
            data: bytes = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}") from error
        if answer.status >= 400:
            raise _error(answer.status, data, content_type)
        return data

    async def get(self, path: str) -> Json:
        return await self.request("GET", path)

    async def create(self, path: str, body: Json) -> Json:
        return await self.request("POST", path, body)

    async def replace(self, path: str, body: Json) -> Json:
        return await self.request("PUT", path, body)

    async def merge(self, path: str, body: Json) -> Json:
        return await self.request("PATCH", path, body, content_type=MERGE_PATCH)

    async def patch(self, path: str, operations: list[Json]) -> Json:
        """RFC 6902. A `test` that fails raises ConflictError."""
        return await self.request("PATCH", path, operations, content_type=JSON_PATCH)

    async def delete(self, path: str, *, uid: str = "", grace: int | None = None) -> None:
        """Deletes; with `uid` only that very object. Gone already is as good."""
        options: dict[str, Json] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self.request("DELETE", path, options)
        except (NotFoundError, ConflictError):
            pass

    async def items(self, path: str, selector: str = "") -> AsyncIterator[Json]:
        """Every object of a list, page by page: at most one page is held in memory."""
        params = {"limit": str(PAGE)}
        if selector:
            params["labelSelector"] = selector
        while True:
            page = await self.request("GET", path, params=params)
            for item in page.pop("items", None) or ():
                yield item
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            params["continue"] = token


def _error(status: int, data: bytes, content_type: str) -> ApiError:
    try:
        answer = json.loads(data)
        reason, message = str(answer.get("reason") or ""), str(answer.get("message") or "")
    except (ValueError, AttributeError):
        reason, message = "", data[:200].decode(errors="replace")
    if status == 404:
        return NotFoundError(status, reason, message)
    if status == 409 or (status == 422 and content_type == JSON_PATCH):
        return ConflictError(status, reason, message)
    return ApiError(status, reason, message)


# --- paths ------------------------------------------------------------------------------------------------------------
FUNCTIONS = f"/apis/{names.API_VERSION}/{names.FUNCTION_PLURAL}"
RUNTIMES = f"/apis/{names.API_VERSION}/{names.RUNTIME_PLURAL}"
TRIGGERS = f"/apis/{names.API_VERSION}/{names.TRIGGER_PLURAL}"
PODS = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"


def function_path(namespace: str, name: str, sub: str = "") -> str:
    path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.FUNCTION_PLURAL}/{name}"
    return f"{path}/{sub}" if sub else path


def trigger_path(namespace: str, name: str, sub: str = "") -> str:
    path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.TRIGGER_PLURAL}/{name}"
    return f"{path}/{sub}" if sub else path


def core_path(plural: str, namespace: str, name: str = "") -> str:
    """Path of a namespaced object of the core API, or of its collection."""
    return f"/api/v1/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def lease_path(namespace: str, name: str = "") -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases" + (f"/{name}" if name else "")
