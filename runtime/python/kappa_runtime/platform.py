"""The platform's side of the runtime: `/_kappa/health`, `/_kappa/revision`, `/_kappa/drain` (section 6 of the
design)."""

import json
from collections.abc import Callable
from typing import Any, Protocol

from kappa_api.names import PATH_DRAIN, PATH_HEALTH, PATH_REVISION
from kappa_api.tokens import accepts
from kappa_api.wire import ByteCode, LoadError, Specialize, WireError
from kappa_runtime.exchange import JSON, Consumer, Exchange
from kappa_runtime.instance import Instance
from kappa_runtime.settings import Settings

METHODS = {PATH_HEALTH: ("GET", "HEAD"), PATH_REVISION: ("PUT",), PATH_DRAIN: ("POST",)}
SIGNATURES = ("event", "asgi")
#: Told how a load ended: (why it failed, None) or (None, what was compiled, if that was asked for).
Done = Callable[[LoadError | None, ByteCode | None], None]


class Control(Protocol):
    """What the platform can make the server do."""

    settings: Settings
    instance: Instance

    def specialize(self, spec: Specialize, done: Done) -> None: ...

    def drain(self, done: Callable[[], None]) -> None: ...

    def tasks(self) -> int: ...


def begin(control: Control, exchange: Exchange) -> None:
    """Answers a request below `/_kappa/`, or sets its consumer."""
    request = exchange.request
    path = request.target.partition(b"?")[0].decode("latin-1")
    methods = METHODS.get(path)
    if methods is None:
        exchange.fail(404, "not_found", f"there is no {path[:200]}")
    elif request.method not in methods:
        exchange.fail(405, "method_not_allowed", f"use {methods[0]}", [(b"allow", methods[0].encode())])
    elif path == PATH_HEALTH:
        reply_health(control, exchange, 200)
    elif not control.settings.token or not accepts(control.settings.token, request.header(b"authorization")):
        exchange.keep_alive = False
        exchange.fail(401, "unauthorized", "the pod's token is needed", [(b"www-authenticate", b"Bearer")])
    elif path == PATH_DRAIN:
        control.drain(lambda: reply_health(control, exchange, 200))
    else:
        exchange.consumer = SpecializeRequest(control, exchange)
        exchange.consumer.begin()


def reply_health(control: Control, exchange: Exchange, status: int) -> None:
    exchange.reply(status, [JSON], _json(control.instance.health().to_json() | {"tasks": control.tasks()}))


class SpecializeRequest(Consumer):
    """Collects the body of `PUT /_kappa/revision`."""

    def __init__(self, control: Control, exchange: Exchange) -> None:
        self._control, self._exchange = control, exchange
        self._body = bytearray()

    def begin(self) -> None:
        limit = self._control.settings.max_code_bytes
        if not self._control.instance.may_specialize():
            self._exchange.keep_alive = self._exchange.complete
            reply_health(self._control, self._exchange, 409)
        elif self._exchange.request.length > limit:
            self._too_large()
        else:
            self._exchange.proceed()

    def body(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._control.settings.max_code_bytes:
            self._body.clear()
            self._too_large()

    def complete(self) -> None:
        body, self._body = bytes(self._body), bytearray()
        try:
            spec = Specialize.from_json(json.loads(body))
        except (WireError, ValueError, RecursionError) as error:
            self._exchange.fail(400, "bad_request", f"not a specialize message: {error}")
            return
        if problem := check(spec):
            self._exchange.fail(400, "bad_request", problem)
        elif not self._control.instance.may_specialize():  # another one was faster
            reply_health(self._control, self._exchange, 409)
        else:
            self._control.specialize(spec, self._done)

    def _done(self, error: LoadError | None, byte_code: ByteCode | None) -> None:
        if error is not None:
            self._exchange.reply(422, [JSON], _json(error.to_json()))
        elif byte_code is None:
            reply_health(self._control, self._exchange, 200)
        else:
            answer = self._control.instance.health().to_json() | {"byteCode": byte_code.to_json()}
            self._exchange.reply(200, [JSON], _json(answer))

    def _too_large(self) -> None:
        self._exchange.keep_alive = False
        self._exchange.fail(413, "too_large", f"code may have {self._control.settings.max_code_bytes} bytes")


def check(spec: Specialize) -> str:
    """What is wrong with a message whose form is right, or an empty string."""
    safe = spec.revision.replace("-", "").replace("_", "").replace(".", "")
    if not (safe.isascii() and safe.isalnum()) or spec.revision.startswith(".") or len(spec.revision) > 100:
        return "revision must be letters, digits, '-', '_' and '.'"
    if spec.signature not in SIGNATURES:
        return f"signature must be one of {', '.join(SIGNATURES)}"
    if spec.concurrency < 1 or spec.timeout_seconds < 1:
        return "concurrency and timeoutSeconds must be at least 1"
    if not all(part.isidentifier() for part in spec.handler.split(".")) or "." not in spec.handler:
        return "handler must be module.attribute"
    if any("=" in name or "\0" in name + value or not name for name, value in spec.env.items()):
        return "env has a name or value that a process cannot have"
    return ""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
