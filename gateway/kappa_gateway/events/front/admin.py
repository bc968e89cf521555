"""The admin port's part of events: what Triggers do here, and the dead letters. Behind the guard of `admin.py`.

Names that become parts of a subject are checked: `*` and `>` are no names.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from kappa_api import names
from kappa_api.trigger_report import AsyncReport, GatewayReport
from kappa_gateway.events.bus import UnavailableError
from kappa_gateway.events.dead import MOST_LISTED, RevisionError
from kappa_gateway.events.work import ASYNC, OUTCOME, TRIGGER

if TYPE_CHECKING:
    from kappa_gateway.app import Gateway
    from kappa_gateway.events.engine import Events

Json = Any
Handler = Callable[["Events", web.Request], Awaitable[Json]]
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_REVISION: Final = re.compile(r"[a-z0-9]{1,64}")
_MOST_SEQS: Final = 10_000
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "x-api-key", "proxy-authorization"})


class AdminError(Exception):
    """What is wrong with a request. `status`: of the answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def add_routes(app: web.Application, gateway: "Gateway") -> None:
    """Adds them to the application of the admin port."""

    def served(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            try:
                if gateway.events is None:
                    raise AdminError(501, "events_off", f"this installation has no NATS: set {names.ENV_NATS_URL}")
                return web.json_response(await handler(gateway.events, request))
            except AdminError as error:
                return _problem(error)
            except RevisionError as error:
                return _problem(AdminError(409, "conflict", str(error)))
            except UnavailableError as error:
                return _problem(AdminError(503, "events_away", str(error)))

        return serve

    async def triggers(request: web.Request) -> web.Response:
        report = GatewayReport(gateway.settings.name, gateway.epoch).to_json()
        if gateway.events is not None:
            report["triggers"] = gateway.events.host.triggers.report()
            report["functions"] = await _functions(gateway.events)
        return web.json_response(report)

    app.router.add_get(names.PATH_TRIGGERS, triggers)
    app.router.add_get(names.PATH_DEAD, served(_list))
    app.router.add_get(names.PATH_DEAD + r"/{seq:\d{1,18}}", served(_show))
    app.router.add_post(names.PATH_DEAD + "/replay", served(_replay))
    app.router.add_delete(names.PATH_DEAD, served(_purge))
    app.router.add_delete(names.PATH_DEAD + r"/{seq:\d{1,18}}", served(_purge_one))


def _problem(error: AdminError) -> web.Response:
    return web.json_response({"error": {"code": error.code, "message": str(error)}}, status=error.status)


async def _functions(events: "Events") -> Json:
    """Those that have asynchronous invocations waiting, or dead letters."""
    try:
        dead = await events.dead.counts()
    except UnavailableError:
        dead = {}
    waiting = {key: tally for (kind, key), tally in events.ledger.tallies.items() if kind == ASYNC and tally.backlog}
    keys = {key for kind, key in dead if kind == ASYNC} | set(waiting)
    now = time.time() * 1000
    found = {}
    for key in sorted(keys):
        tally = waiting.get(key)
        report = AsyncReport(dead_letters=dead.get((ASYNC, key), 0))
        if tally is not None:
            age = max(0.0, now - tally.oldest_ms) / 1000 if tally.oldest_ms else 0.0
            report = replace(report, waiting=tally.backlog, oldest_seconds=round(age, 3))
        found[key] = report.to_json()
    return found


async def _list(events: "Events", request: web.Request) -> Json:
    query = request.query
    limit = _number(query, "limit", 100, MOST_LISTED)
    letters = await events.dead.list(*_place(query), limit, _number(query, "after", 0, 1 << 63))
    more = letters[-1].seq if len(letters) == limit else None
    return {"letters": [letter.to_json() for letter in letters], "next": more}


async def _show(events: "Events", request: web.Request) -> Json:
    seq = int(request.match_info["seq"])
    letter = await events.dead.get(seq) if seq else None
    if letter is None:
        raise AdminError(404, "not_found", f"no dead letter has the number {seq}")
    found = letter.to_json(body=True)
    if "headers" in found:
        found["headers"] = [_without_credentials(line) for line in found["headers"]]
    return found


def _without_credentials(line: str) -> str:
    """Who looks into dead letters need not become their callers."""
    name = line.partition(":")[0]
    return f"{name}: (not shown)" if name.lower() in _CREDENTIALS else line


async def _replay(events: "Events", request: web.Request) -> Json:
    try:
        body = await request.json()
    except ValueError as error:
        raise AdminError(400, "bad_request", "the body is not JSON") from error
    if not isinstance(body, dict):
        raise AdminError(400, "bad_request", "the body must be a JSON object")
    known = {"seqs", "all", "kind", "namespace", "name", "function", "revision"}
    if unknown := sorted(set(body) - known):
        raise AdminError(400, "bad_request", f"{unknown[0]}: is not a field; known: {', '.join(sorted(known))}")
    function, revision = _text(body, "function", _NAME), _text(body, "revision", _REVISION)
    seqs = _seqs(body)
    if seqs:
        return {"replayed": await events.dead.replay(seqs, function=function, revision=revision)}
    return {"replayed": await events.dead.replay_all(*_place(body), function=function, revision=revision)}


async def _purge(events: "Events", request: web.Request) -> Json:
    query = dict(request.query)
    body: dict[str, Json] = {**query, "all": query.get("all") == "true"}
    if "seqs" in query:
        pieces = query["seqs"].split(",")
        if not all(piece.isascii() and piece.isdigit() and len(piece) < 19 for piece in pieces):
            raise AdminError(400, "bad_request", "seqs: must be numbers, separated by commas")
        body["seqs"] = [int(piece) for piece in pieces]
    seqs = _seqs(body)
    if seqs:
        return {"purged": await events.dead.purge(seqs=seqs)}
    return {"purged": await events.dead.purge(*_place(body))}


async def _purge_one(events: "Events", request: web.Request) -> Json:
    return {"purged": await events.dead.purge(seqs=[int(request.match_info["seq"])])}


def _seqs(body: Mapping[str, Json]) -> list[int]:
    """The numbers that a request names; empty where it says `all`, which nobody means by leaving something out."""
    seqs = body.get("seqs", [])
    good = isinstance(seqs, list) and all(type(seq) is int and 0 < seq < 1 << 63 for seq in seqs)
    if not good or len(seqs) > _MOST_SEQS:
        raise AdminError(400, "bad_request", f"seqs: must be a list of at most {_MOST_SEQS} numbers")
    if bool(seqs) == (body.get("all") is True):
        raise AdminError(400, "bad_request", "say which: either seqs, or all with kind, namespace and name as you like")
    if seqs and any(body.get(key) for key in ("kind", "namespace", "name")):
        raise AdminError(400, "bad_request", "kind, namespace and name go with all, not with seqs")
    return list(seqs)


def _place(query: Mapping[str, Json]) -> tuple[str, str, str]:
    kind = query.get("kind") or ""
    if kind not in ("", ASYNC, TRIGGER, OUTCOME):
        raise AdminError(400, "bad_request", f"kind: must be {ASYNC}, {TRIGGER} or {OUTCOME}")
    return kind, _text(query, "namespace", _NAME), _text(query, "name", _NAME)


def _text(query: Mapping[str, Json], key: str, pattern: re.Pattern[str]) -> str:
    value = query.get(key) or ""
    if not isinstance(value, str) or (value and not pattern.fullmatch(value)):
        raise AdminError(400, "bad_request", f"{key}: is not a name")
    return value


def _number(query: Mapping[str, str], key: str, default: int, most: int) -> int:
    text = query.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise AdminError(400, "bad_request", f"{key}: must be a number")
    return max(0 if key == "after" else 1, min(int(text), most))
