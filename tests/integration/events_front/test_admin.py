"""The admin port's part of events, and the command for people that asks it: on a real NATS server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from kappa_events_rig import answers, failure
from kappa_gateway_rig import reply

from kappa_api.delivery import Delivery
from kappa_api.tokens import internal_token
from kappa_api.trigger_report import GatewayReport
from kappa_gateway import dead
from kappa_gateway.admin import make_admin
from kappa_gateway.events.delivery.target import Target

FAILING = {"async": {"retries": 0}}


class Admin:
    """The admin port of a gateway, as the operator and `kappa_gateway.dead` reach it."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session, self.port = session, port

    async def ask(self, method: str, path: str, body: Any = None, token: str = internal_token(b"secret")) -> Any:
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"authorization": f"Bearer {token}"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        async with self._session.request(method, url, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def command(self, *arguments: str) -> int:
        env = {"KAPPA_PLATFORM_SECRET": "secret", "KAPPA_ADMIN_PORT": str(self.port), "KAPPA_BIND": "127.0.0.1"}
        return await asyncio.to_thread(dead.main, arguments, env)


@pytest_asyncio.fixture
async def admin(front: Any) -> AsyncIterator[Admin]:
    runner = web.AppRunner(make_admin(front.gateway), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        yield Admin(session, runner.addresses[0][1])
    await runner.cleanup()


async def died(front: Any, function: str, count: int = 1) -> Any:
    """So many dead letters of a function, which fails once per call and then works. Returns the instance."""
    front.function(function, **FAILING)
    instance = await front.instance(function, answers(*[failure()] * count, reply()))
    for number in range(count):
        answer = await front.get(f"/async/default/{function}/{number}", method="POST", body=b"call %d" % number)
        asked = await front.get(answer.headers["location"], "prefer: wait=20")
        assert json.loads(asked.body)["state"] == "failed"
    return instance


async def test_nobody_without_the_token(admin: Admin) -> None:
    for method, path in (("GET", "/v1/triggers"), ("GET", "/v1/dead"), ("DELETE", "/v1/dead"), ("GET", "/v1/dead/1")):
        assert (await admin.ask(method, path, token="guess"))[0] == 401


async def test_list_show_replay(front: Any, admin: Admin) -> None:
    instance = await died(front, "lists", 3)
    place = "namespace=default&name=lists&kind=async"
    status, found = await admin.ask("GET", f"/v1/dead?{place}&limit=2")
    assert status == 200
    first, second = found["letters"]
    assert (first["function"], first["attempts"], first["error"]["type"]) == ("default/lists", 1, "ValueError")
    assert found["next"] == second["seq"]
    _, rest = await admin.ask("GET", f"/v1/dead?{place}&after={found['next']}")
    (third,) = rest["letters"]
    assert rest["next"] is None
    _, shown = await admin.ask("GET", f"/v1/dead/{second['seq']}")
    assert (shown["method"], shown["path"], shown["body"]) == ("POST", "/1", "call 1")
    assert (await admin.ask("POST", "/v1/dead/replay", {"seqs": [second["seq"]]})) == (200, {"replayed": 1})
    await front.until(lambda: len(instance.seen) == 4)
    assert instance.seen[3].body == b"call 1"
    assert (await admin.ask("GET", f"/v1/dead/{second['seq']}"))[0] == 404
    everything = {"all": True, "namespace": "default", "name": "lists"}
    assert (await admin.ask("POST", "/v1/dead/replay", everything | {"revision": "r9"}))[0] == 409
    assert (await admin.ask("POST", "/v1/dead/replay", everything | {"revision": "r1"})) == (200, {"replayed": 2})
    await front.until(lambda: len(instance.seen) == 6)
    assert third["seq"] > second["seq"]


async def test_credentials_are_not_shown(front: Any, admin: Admin) -> None:
    front.function("secrets", **FAILING)
    instance = await front.instance("secrets", answers(failure(), reply()))
    lines = ("Authorization: Bearer beep", "cookie: session=beep", "x-mine: beep")
    answer = await front.get("/async/default/secrets", *lines, method="POST")
    await front.get(answer.headers["location"], "prefer: wait=20")
    _, found = await admin.ask("GET", "/v1/dead?name=secrets")
    seq = found["letters"][0]["seq"]
    _, shown = await admin.ask("GET", f"/v1/dead/{seq}")
    assert [line for line in shown["headers"] if "beep" in line] == ["x-mine: beep"]
    assert "Authorization: (not shown)" in shown["headers"]
    await admin.ask("POST", "/v1/dead/replay", {"seqs": [seq]})
    await front.until(lambda: len(instance.seen) == 2)
    assert instance.seen[1].get("authorization") == "Bearer beep"  # a replay is the call as it was


async def test_replay_to_another_function(front: Any, admin: Admin) -> None:
    await died(front, "old")
    front.function("new")
    instance = await front.instance("new")
    asked = {"all": True, "name": "old", "function": "new"}
    assert (await admin.ask("POST", "/v1/dead/replay", asked)) == (200, {"replayed": 1})
    await front.until(lambda: len(instance.seen) == 1)
    assert instance.seen[0].body == b"call 0"


async def test_purge(front: Any, admin: Admin) -> None:
    await died(front, "purged", 3)
    _, found = await admin.ask("GET", "/v1/dead?name=purged")
    seqs = [letter["seq"] for letter in found["letters"]]
    assert (await admin.ask("DELETE", f"/v1/dead/{seqs[0]}")) == (200, {"purged": 1})
    assert (await admin.ask("DELETE", f"/v1/dead?seqs={seqs[0]},{seqs[1]}")) == (200, {"purged": 1})
    assert (await admin.ask("DELETE", "/v1/dead?all=true&name=purged&namespace=other")) == (200, {"purged": 0})
    assert (await admin.ask("DELETE", "/v1/dead?all=true&name=purged")) == (200, {"purged": 1})
    assert (await admin.ask("GET", "/v1/dead?name=purged"))[1] == {"letters": [], "next": None}


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("GET", "/v1/dead?kind=x", None, "kind: must be"),
        ("GET", "/v1/dead?namespace=*", None, "namespace: is not a name"),
        ("GET", "/v1/dead?name=a.b", None, "name: is not a name"),
        ("GET", "/v1/dead?limit=-1", None, "limit: must be"),
        ("DELETE", "/v1/dead", None, "say which"),
        ("DELETE", "/v1/dead?name=x", None, "say which"),
        ("DELETE", "/v1/dead?all=true&seqs=1", None, "say which"),
        ("DELETE", "/v1/dead?seqs=1,x", None, "seqs: must be"),
        ("DELETE", "/v1/dead?all=true&name=%3E", None, "name: is not a name"),
        ("POST", "/v1/dead/replay", {}, "say which"),
        ("POST", "/v1/dead/replay", [], "JSON object"),
        ("POST", "/v1/dead/replay", b"{", "not JSON"),
        ("POST", "/v1/dead/replay", {"all": "yes"}, "say which"),
        ("POST", "/v1/dead/replay", {"seqs": ["1"]}, "seqs: must be"),
        ("POST", "/v1/dead/replay", {"seqs": [1], "name": "x"}, "go with all"),
        ("POST", "/v1/dead/replay", {"seqs": [1], "functon": "x"}, "functon: is not a field"),
        ("POST", "/v1/dead/replay", {"seqs": [1], "function": "a.b"}, "function: is not a name"),
    ],
)
async def test_what_is_refused(admin: Admin, method: str, path: str, body: Any, says: str) -> None:
    status, found = await admin.ask(method, path, body)
    assert status == 400
    assert says in found["error"]["message"]


async def test_the_command(front: Any, admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    await died(front, "shown", 2)
    assert await admin.command("list", "--name", "shown") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["SEQ", "KIND", "OF", "CAUSE", "ATTEMPTS", "DIED", "ERROR"]
    assert [row.split()[1:3] for row in rows] == [["async", "default/shown"]] * 2
    first = rows[0].split()[0]
    assert await admin.command("list", "--name", "shown", "-o", "json") == 0
    assert len(json.loads(capsys.readouterr().out)["letters"]) == 2
    assert await admin.command("show", first) == 0
    assert json.loads(capsys.readouterr().out)["body"] == "call 0"
    assert await admin.command("replay", first) == 0
    assert capsys.readouterr().out == "replayed 1\n"
    assert await admin.command("purge") == 1
    assert "say which" in capsys.readouterr().err
    assert await admin.command("purge", "--all", "--name", "shown") == 0
    assert capsys.readouterr().out == "purged 1\n"
    assert await admin.command("show", first) == 1
    assert f"no dead letter has the number {first}" in capsys.readouterr().err
    assert dead.main(["list"], {}) == 1
    assert "run it inside a gateway's pod" in capsys.readouterr().err
    assert dead.main(["list"], {"KAPPA_PLATFORM_SECRET": "x", "KAPPA_ADMIN_PORT": "1"}) == 1
    assert "does not answer" in capsys.readouterr().err


async def test_outcomes_that_nobody_took(front: Any, admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port of this machine is where the outcomes go; what is told of the URL is its host alone."""
    front.gateway.events.targets._outcomes = Target("", Delivery(retries=0))
    front.function("teller", **{"async": {"onSuccess": {"url": "http://127.0.0.1:1/secret-word"}}})
    await front.instance("teller")
    answer = await front.get("/async/default/teller/", method="POST", body=b"{}")
    await front.get(answer.headers["location"], "prefer: wait=20")

    async def listed() -> Any:
        return (await admin.ask("GET", "/v1/dead?kind=outcome&namespace=default&name=teller"))[1]["letters"]

    async with asyncio.timeout(20):
        while not (letters := await listed()):
            await asyncio.sleep(0.01)
    (letter,) = letters
    assert (letter["cause"], letter["destination"], letter["attempts"]) == ("destination_failed", "127.0.0.1:1", 1)
    assert await admin.command("list", "--kind", "outcome", "--name", "teller", "--namespace", "default") == 0
    told = capsys.readouterr().out
    assert "outcome  default/teller  destination_failed" in told
    assert await admin.command("show", str(letter["seq"])) == 0
    shown = capsys.readouterr().out
    assert json.loads(json.loads(shown)["body"])["type"] == "dev.kappa.invocation.succeeded"
    assert "secret-word" not in told + shown
    answered = await admin.ask("DELETE", "/v1/dead?all=true&kind=outcome&namespace=default&name=teller")
    assert answered == (200, {"purged": 1})
    assert await listed() == []


async def test_the_report(front: Any, admin: Admin) -> None:
    await died(front, "reported")
    meta = {"namespace": "default", "name": "reported", "uid": "u", "generation": 3}
    spec = {"function": "reported", "source": {"event": {}}}
    front.gateway.events.host.triggers.put({"metadata": meta, "spec": spec})
    status, found = await admin.ask("GET", "/v1/triggers")
    report = GatewayReport.from_json(found)
    assert status == 200
    assert (report.gateway, report.epoch) == ("gw-1", front.gateway.epoch)
    assert ("default/reported", 3) in [(row.key, row.generation) for row in report.triggers]
    assert report.functions["default/reported"].dead_letters == 1


async def test_without_nats(admin: Admin, front: Any) -> None:
    front.gateway.events, events = None, front.gateway.events
    try:
        assert (await admin.ask("GET", "/v1/dead"))[1]["error"]["code"] == "events_off"
        assert (await admin.ask("GET", "/v1/triggers"))[1]["triggers"] == []
        for path in ("/async/default/x", "/async/x", "/events/x", "/hooks/x/y"):
            answer = await front.get(path, method="POST")
            assert answer.error["code"] in ("events_off", "not_found")
        front.function("off")
        assert (await front.get("/async/default/off", method="POST")).status == 501
    finally:
        front.gateway.events = events
