"""A small client for our own API server: JSON in and out, and watches. Standard library only.

`up`, `down` and the DNS watcher use it instead of kubectl, which then need not be there to start a cluster.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any

from cluster_settings import API_PORT, NODE_ADDRESS, Settings

Json = dict[str, Any]


class ApiError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Api:
    """Speaks for one identity of `cluster_certs`. A connection per call: this is no hot path."""

    def __init__(self, settings: Settings, identity: str = "admin") -> None:
        pki = settings.pki
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(str(pki / f"{identity}.crt"), str(pki / f"{identity}.key"))

    def _connect(self, timeout: float | None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(NODE_ADDRESS, API_PORT, context=self._context, timeout=timeout)

    def text(self, method: str, path: str, body: Json | None = None, timeout: float = 10.0) -> str:
        """The response's text. `ApiError` for a status of 400 and above; `OSError` when nobody answers."""
        connection = self._connect(timeout)
        try:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, body=data, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read().decode(errors="replace")
        except http.client.HTTPException as e:
            raise OSError(f"{method} {path}: {e!r}") from e
        finally:
            connection.close()
        if response.status >= 400:
            raise ApiError(response.status, content)
        return content

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """The response's JSON object."""
        answer: Json = json.loads(self.text(method, path, body))
        return answer

    def get(self, path: str) -> Json:
        """GET, as JSON."""
        return self.call("GET", path)

    def ok(self, path: str) -> bool:
        """Whether GET succeeds; False when nobody answers too."""
        try:
            self.text("GET", path, timeout=5.0)
        except (ApiError, OSError):
            return False
        return True

    def watch(self, path: str, resource_version: str, seconds: int = 300) -> Iterator[Json]:
        """The events of a watch, until the server ends it (after `seconds`, or when the version is too old)."""
        connection = self._connect(seconds + 30.0)
        try:
            query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={resource_version}"
            connection.request("GET", f"{path}?{query}")
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.status, response.read().decode(errors="replace"))
            while line := response.readline():
                event: Json = json.loads(line)
                yield event
        except http.client.HTTPException as e:
            raise OSError(f"watch {path}: {e!r}") from e
        finally:
            connection.close()
