"""A `Guard` in virtual time with the requests that it is asked about: for unit tests of callers' identity."""

import base64
import hashlib
from types import SimpleNamespace
from typing import Any

from aiohttp.http import HttpVersion11, RawRequestMessage

from kappa_api.function import Http, parse_function
from kappa_api.limits import Rate
from kappa_gateway.auth.failures import Failures
from kappa_gateway.auth.fetch import Fetcher
from kappa_gateway.auth.guard import Access, Guard
from kappa_gateway.auth.identity import Identity
from kappa_gateway.auth.settings import AuthSettings
from kappa_gateway.caller_keys import by_address
from kappa_gateway.catalog import State
from kappa_gateway.peers import Peers
from kappa_gateway.request import Request, read
from kappa_gateway.settings import Limits

Json = Any
KEY = "default/hello"


def request(*lines: str, method: str = "GET", target: str = "/") -> Request:
    """A request with these header lines, as the gateway reads it."""
    raw = [(b"Host", b"gw"), *((n.encode(), v.encode("latin-1")) for n, v in (line.split(": ", 1) for line in lines))]
    message = SimpleNamespace(
        method=method,
        path=target,
        version=HttpVersion11,
        raw_headers=tuple(raw),
        should_close=False,
    )
    found: RawRequestMessage = message  # type: ignore[assignment]
    return read(found, Limits(), trust_forwarded=False)


def bearer(token: str) -> Request:
    return request(f"Authorization: Bearer {token}")


def http(**fields: Json) -> Http:
    """`spec.http` with these fields."""
    spec = {"runtime": "python", "handler": "main.handler", "code": {"inline": "x"}, "http": fields}
    return parse_function({"metadata": {"name": "hello", "namespace": "default"}, "spec": spec}).spec.http


def hashed(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def secret(name: str, *, namespace: str = "default", kind: str = "kappa.dev/api-keys", **values: str) -> Json:
    """A Secret as the API server gives it."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"metadata": {"name": name, "namespace": namespace}, "type": kind, "data": data}


class AuthWorld:
    """One function and its guard. `now` is both clocks. `failures`: how many credentials of an address may be no good,
    as a rule any number."""

    def __init__(
        self,
        auth: Json,
        *,
        cors: Json = None,
        fetcher: Fetcher | None = None,
        now: float = 1000.0,
        failures: Rate | None = None,
    ) -> None:
        self.now = now
        self.failures = Failures(failures, Peers("kappa-system/gw-0"), 1000)
        clocks = {"clock": lambda: self.now, "wall": lambda: self.now}
        self.guard = Guard(AuthSettings(), self.failures, **clocks, fetcher=fetcher)
        access = Access.of(http(auth=auth, **({"cors": cors} if cors else {})))
        self.entry = SimpleNamespace(key=KEY, access=access)
        self.state = State(KEY)
        self.call: Any = None

    async def admit(self, asked: Request, address: bytes = b"192.0.2.7") -> Identity | None:
        """Who calls. Raises GatewayError. `call` is the call afterwards."""
        call = self.call = SimpleNamespace(
            client=SimpleNamespace(caller=by_address(address)),
            entry=self.entry,
            state=self.state,
            request=asked,
            deadline=self.now + 30,
            cors=b"",
            extra=b"",
            identity=None,
        )
        lines = self.guard.admit(call)  # type: ignore[arg-type]
        if lines is None:
            await self.guard.ask(call)  # type: ignore[arg-type]
        self.lines = lines or b""
        found: Identity | None = call.identity
        return found

    def header(self, name: str) -> list[str]:
        """What the function sees of a header that the caller sent."""
        lines = [line.decode("latin-1").rstrip("\r\n").split(": ", 1) for line in self.call.request.lines]
        return [value for key, value in lines if key.lower() == name]
