"""`/async/<id>`: what became of an asynchronous invocation, and taking it back while it waits.

Who has the id may ask: it has 128 random bits. Where the function has `http.auth`, its callers alone may, checked as
for a call. Of a function that is gone nobody can tell any more who they were: then the state is told, and not what the
function has answered.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp.streams import StreamReader

from kappa_gateway.errors import GatewayError
from kappa_gateway.events.front.replies import answer_json
from kappa_gateway.events.records import CANCELLED, Record

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.call import Call
    from kappa_gateway.events.engine import Events

Json = Any
#: As long as proxies between us and the caller keep a connection on which nothing comes.
MAX_WAIT_SECONDS: Final = 60.0
#: How long a gateway that stops may not know it.
STEP_SECONDS: Final = 5.0
METHODS: Final = ("GET", "HEAD", "DELETE")
_NO_STORE: Final = "cache-control: no-store\r\n"


class Invocations:
    """See the module."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def serve(self, events: "Events", call: "Call", payload: StreamReader, asked: str) -> bool:
        """`asked`: what stands for the id. Returns whether the connection may be kept. Raises GatewayError and
        UnavailableError."""
        request = call.request
        if request.method not in METHODS and not request.preflight:
            raise GatewayError("method_not_allowed", "ask with GET, cancel with DELETE", allow=", ".join(METHODS))
        try:
            record = _found(await events.results.find(asked))
        except ValueError as error:
            raise GatewayError("not_found", "this is no id of an asynchronous invocation") from error
        lines = await self._admit(call, record)
        if lines:
            return self._gateway.answer_preflight(call, lines, payload)
        if request.method == "DELETE":
            record = _found(await events.cancel(asked))
            if record.state != CANCELLED:
                raise GatewayError("conflict", f"it cannot be cancelled any more: it is {record.state}")
        elif request.wait:
            record = await self._wait(events, asked, record, min(request.wait, MAX_WAIT_SECONDS))
        honoured = f"preference-applied: wait={int(request.wait)}\r\n" if 0 < request.wait <= MAX_WAIT_SECONDS else ""
        shown = render(asked, record, whole=call.entry is not None)
        return answer_json(self._gateway, call, 200, shown, lines=_NO_STORE + honoured)

    async def _admit(self, call: "Call", record: Record) -> bytes:
        """Asks the function's guard. Returns header lines when the request is a preflight. Raises GatewayError."""
        state = self._gateway.catalog.functions.get(record.function)
        if state is None or state.entry is None:
            if call.request.preflight or call.request.method == "DELETE":
                raise GatewayError("not_found", f"no function {record.function}")
            return b""
        call.state, call.entry = state, state.entry
        call.deadline = call.arrived + state.entry.timeout
        if state.entry.access is not None:
            lines = self._gateway.guard.admit(call)
            if lines is None:
                await self._gateway.guard.ask(call)
            elif lines:
                return lines
        if call.request.method not in METHODS:
            raise GatewayError("cors_refused", "pages may ask for results only by spec.http.cors")
        return b""

    async def _wait(self, events: "Events", asked: str, record: Record, seconds: float) -> Record:
        """Until it has ended, or for so long. A gateway that stops lets nobody wait."""
        clock = self._gateway.clock
        end = clock() + seconds
        while not record.final and not self._gateway.closing and (left := end - clock()) > 0:
            record = _found(await events.results.wait(asked, min(left, STEP_SECONDS)))
        return record


def _found(record: Record | None) -> Record:
    if record is None:
        raise GatewayError(
            "not_found",
            "no invocation has this id: it never had, or its result is kept no longer (async.resultSeconds)",
        )
    return record


def render(asked: str, record: Record, *, whole: bool) -> dict[str, Json]:
    """The JSON form. `whole`: also what the function answered."""
    found: dict[str, Json] = {
        "id": asked,
        "function": record.function,
        "state": record.state,
        "attempts": record.attempts,
        "acceptedAt": _time(record.accepted),
        "changedAt": _time(record.changed),
        "nextAttemptAt": _time(record.due),
        "expiresAt": _time(record.until),
        "cause": record.cause,
    }
    if record.error:
        found["error"] = dict(record.error) if whole else {"type": record.error.get("type", "")}
    if record.result and whole:
        found["result"] = {**record.result, "headers": _joined(record.result.get("headers") or ())}
    return {key: value for key, value in found.items() if value not in ("", None)}


def _time(milliseconds: int) -> str:
    """RFC 3339, or an empty string for no time."""
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _joined(pairs: Json) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
