"""Waiting, retries, deadlines and callers that leave, through real connections."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from kappa_gateway_rig import reply
from kappa_ports import free_port

from kappa_api.tokens import accepts, internal_token
from kappa_gateway.settings import Limits

HELLO = "/fn/default/hello"


def get(path: str = HELLO) -> str:
    return f"GET {path} HTTP/1.1\r\nhost: gw\r\n\r\n"


def post(body: str = "x") -> str:
    return f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: {len(body)}\r\n\r\n{body}"


async def test_a_call_waits_for_an_instance(rig: Any) -> None:
    rig.function()
    caller = await rig.caller()
    caller.send(get())
    await rig.until(lambda: "default/hello" in rig.gateway.catalog.functions and rig.queue().waiting == 1)
    await rig.instance()
    assert (await caller.answer()).status == 200
    stats = rig.gateway.stats().functions["default/hello"]
    assert (stats.arrivals, stats.invocations, stats.cold_starts, stats.errors) == (1, 1, 1, 0)
    assert stats.waiting_seconds > 0
    await rig.settled()


async def test_demand_is_reported_at_once_and_repeated(make_rig: Any) -> None:
    from aiohttp import web

    reports: list[Any] = []
    got = asyncio.Event()

    async def demand(request: web.Request) -> web.Response:
        assert accepts(internal_token(b"secret"), request.headers["authorization"])
        reports.append(await request.json())
        got.set()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/v1/demand", demand)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rig = await make_rig(operator=f"127.0.0.1:{runner.addresses[0][1]}")
    rig.function()
    callers = [await rig.caller() for _ in range(3)]
    for caller in callers:
        caller.send(get())
    async with asyncio.timeout(3):
        while not reports or reports[-1]["functions"] != {"default/hello": {"waiting": 3, "inService": 0}}:
            got.clear()
            await got.wait()
        assert reports[-1]["gateway"] == "gw-1"
        got.clear()
        await got.wait()  # repeated while they wait
    await rig.instance(concurrency=3)
    for caller in callers:
        assert (await caller.answer()).status == 200
    await runner.cleanup()


async def test_demand_finds_the_operator_that_leads(make_rig: Any) -> None:
    """One that cannot be reached, one that does not lead, then the right one: the Lease is read again each time."""
    reported = asyncio.Event()
    answers = [503, 421, 204]

    async def demand(request: web.Request) -> web.Response:
        status = answers.pop(0)
        if status == 204:
            reported.set()
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/v1/demand", demand)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    right = f"127.0.0.1:{runner.addresses[0][1]}"
    rig = await make_rig()
    addresses = iter(["", f"127.0.0.1:{free_port()}", OSError("no API"), right, right, right])

    async def find() -> str:
        found = next(addresses)
        if isinstance(found, Exception):
            raise found
        return str(found)

    rig.gateway.demand._find_operator = find
    rig.function()
    (await rig.caller()).send(get())
    async with asyncio.timeout(5):
        await reported.wait()
    assert answers == []
    await runner.cleanup()


async def test_concurrency_is_never_exceeded_and_order_is_kept(rig: Any) -> None:
    rig.function()
    running = most = 0
    go = asyncio.Event()
    order: list[str] = []

    async def slow(seen: Any, reader: Any, writer: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(seen.target)
        await go.wait()
        await asyncio.sleep(0.002)
        running -= 1
        writer.write(reply())

    for _ in range(2):
        await rig.instance(behave=slow, concurrency=2)
    callers = [await rig.caller() for _ in range(30)]
    for number, caller in enumerate(callers):
        caller.send(get(f"{HELLO}/{number}"))
        await rig.until(lambda n=number: rig.queue().arrivals == n + 1)
    go.set()
    for caller in callers:
        assert (await caller.answer()).status == 200
    assert most == 4
    # four at a time are under way at once; within that, first come first served
    assert all(abs(int(target[1:]) - place) < 4 for place, target in enumerate(order))
    await rig.settled()


@pytest.mark.parametrize("refusal", ["busy", "draining", "empty", "misdirected"])
async def test_refusals_never_reach_the_caller(rig: Any, refusal: str) -> None:
    rig.function()

    async def refuse(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply(503, b"no", f"kappa-refused: {refusal}"))

    first = await rig.instance(behave=refuse)
    caller = await rig.caller()
    caller.send(post())
    await first.arrived.wait()
    second = await rig.instance()
    assert (await caller.answer()).status == 200
    assert second.seen[0].body == b"x"
    assert rig.gateway.stats().functions["default/hello"].invocations == 1
    if refusal == "draining":
        assert len(first.seen) == 1
        assert rig.queue().free == 1
    await rig.settled()


async def test_an_instance_that_was_empty_is_tried_again(rig: Any) -> None:
    rig.function()
    times = 0

    async def loading(seen: Any, reader: Any, writer: Any) -> None:
        nonlocal times
        times += 1
        writer.write(reply() if times > 3 else reply(503, b"", "kappa-refused: empty"))

    await rig.instance(behave=loading)
    assert (await rig.get(HELLO, method="POST")).status == 200
    assert times == 4
    await rig.settled()


async def test_connection_refused_is_tried_until_the_instance_listens(rig: Any) -> None:
    rig.function()
    upstream = await rig.instance(listen=False)
    caller = await rig.caller()
    caller.send(post())
    await rig.until(lambda: sum(rig.gateway.retries.values()) >= 2)
    await upstream.start()
    assert (await caller.answer()).status == 200
    await rig.settled()


async def test_a_plain_503_of_the_function_is_its_answer(rig: Any) -> None:
    rig.function()

    async def busy(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply(503, b"mine"))

    upstream = await rig.instance(behave=busy)
    answer = await rig.get(HELLO)
    assert (answer.status, answer.body, answer.headers["kappa-error-source"]) == (503, b"mine", "function")
    assert len(upstream.seen) == 1


async def die(seen: Any, reader: Any, writer: Any) -> None:
    writer.transport.abort()


async def test_a_lost_post_is_not_sent_twice(rig: Any) -> None:
    rig.function()
    upstream = await rig.instance(behave=die)
    answer = await rig.get(HELLO, method="POST", body=b"x")
    assert (answer.status, answer.error["code"]) == (502, "instance_died")
    assert answer.headers["kappa-error-source"] == "gateway"
    assert len(upstream.seen) == 1
    assert rig.gateway.stats().functions["default/hello"].errors == 1
    await rig.settled()


@pytest.mark.parametrize(("method", "idempotent"), [("GET", False), ("PUT", False), ("DELETE", False), ("POST", True)])
async def test_a_lost_idempotent_call_is_sent_elsewhere(rig: Any, method: str, idempotent: bool) -> None:
    rig.function(http={"idempotent": idempotent})
    other = asyncio.Event()

    async def die_then(seen: Any, reader: Any, writer: Any) -> None:
        await other.wait()
        await die(seen, reader, writer)

    dying = await rig.instance(behave=die_then)
    caller = await rig.caller()
    caller.send(f"{method} {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 1\r\n\r\nx")
    await dying.arrived.wait()
    healthy = await rig.instance()
    other.set()
    assert (await caller.answer()).status == 200
    assert healthy.seen[0].body == b"x"
    await rig.settled()


async def test_a_call_that_kills_its_instance_does_not_go_round_for_ever(rig: Any) -> None:
    rig.function()

    instances = [await rig.instance(behave=die) for _ in range(6)]
    answer = await rig.get(HELLO)
    assert (answer.status, answer.error["code"]) == (502, "instance_died")
    assert sum(len(one.seen) for one in instances) == 4
    await rig.settled()


async def test_a_short_reply_cut_in_the_middle_is_a_502(rig: Any) -> None:
    rig.function()

    async def cut(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    await rig.instance(behave=cut)
    answer = await rig.get(HELLO, method="POST", body=b"x")
    assert (answer.status, answer.error["code"]) == (502, "instance_died")


async def test_a_stream_cut_in_the_middle_is_visibly_broken(rig: Any, caplog: pytest.LogCaptureFixture) -> None:
    rig.function()

    async def cut(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()

    await rig.instance(behave=cut)
    caller = await rig.caller()
    caller.send(get())
    _, headers = await caller.head()
    assert not (await caller.closed()).endswith(b"0\r\n\r\n")
    await rig.settled()
    assert rig.gateway.stats().functions["default/hello"].errors == 1
    assert told(caplog, "in the middle of its reply") == [headers["kappa-request-id"]]


async def test_deadline_while_in_service(rig: Any) -> None:
    rig.function(timeoutSeconds=1)
    forever = asyncio.Event()

    async def hang(seen: Any, reader: Any, writer: Any) -> None:
        await forever.wait()

    upstream = await rig.instance(behave=hang)
    caller = await rig.caller()
    answer = await caller.ask(get())
    assert (answer.status, answer.error["code"]) == (504, "deadline")
    await rig.settled()
    forever.set()
    await upstream.left.wait()
    await rig.until(lambda: rig.gateway.pools.counts() == (0, 0))  # it was also asked whether it lives
    # the caller's connection is still good
    upstream.behave = (await rig.instance()).behave
    assert (await caller.ask(get())).status == 200


async def test_deadline_while_waiting(rig: Any) -> None:
    rig.function(timeoutSeconds=1)
    answer = await rig.get(HELLO)
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "no_capacity", "1")
    await rig.settled()


def told(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """Request ids of the log lines with these words."""
    return [getattr(record, "requestId", "") for record in caplog.records if words in record.getMessage()]


async def test_a_stream_beyond_the_deadline_is_cut(rig: Any, caplog: pytest.LogCaptureFixture) -> None:
    rig.function(timeoutSeconds=1)

    async def endless(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    await rig.instance(behave=endless)
    caller = await rig.caller()
    caller.send(get())
    assert not (await caller.closed()).endswith(b"0\r\n\r\n")
    await rig.settled()
    assert len(told(caplog, "broken off: the function did not answer before the deadline")) == 1


async def test_a_deadline_at_the_very_end_does_not_harm_the_next_request(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.function()
    await rig.instance()
    serve = rig.gateway.proxy.serve

    async def late(call: Any) -> bool:
        keep = await serve(call)
        call.expire()
        return bool(keep)

    monkeypatch.setattr(rig.gateway.proxy, "serve", late)
    caller = await rig.caller()
    for _ in range(3):
        assert (await caller.ask(get())).status == 200
    await rig.settled()


async def test_too_many_waiting(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(waiting_per_function=2))
    rig.function()
    for number in range(2):
        (await rig.caller()).send(get())
        await rig.until(lambda n=number: rig.queue().waiting == n + 1)
    answer = await rig.get(HELLO)
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (429, "queue_full", "1")


async def test_a_caller_that_leaves_while_waiting(rig: Any) -> None:
    rig.function()
    first, second = await rig.caller(), await rig.caller()
    first.send(get(HELLO + "/first"))
    await rig.until(lambda: rig.queue().waiting == 1)
    second.send(get(HELLO + "/second"))
    await rig.until(lambda: rig.queue().waiting == 2)
    first.close()
    await rig.until(lambda: rig.queue().waiting == 1)
    upstream = await rig.instance()
    assert (await second.answer()).status == 200
    assert [seen.target for seen in upstream.seen] == ["/second"]
    await rig.settled()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_caller_that_leaves_while_in_service(rig: Any, begun: bool) -> None:
    rig.function()
    leave = asyncio.Event()

    async def stream(seen: Any, reader: Any, writer: Any) -> None:
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            await writer.drain()
        leave.set()
        assert await reader.read() == b""
        writer.close()

    upstream = await rig.instance(behave=stream)
    caller = await rig.caller()
    caller.send(get())
    await leave.wait()
    if begun:
        await caller.head()
    caller.close()
    await rig.settled()
    await upstream.left.wait()
    stats = rig.gateway.stats().functions["default/hello"]
    assert (stats.invocations, stats.errors, stats.in_service) == (1, 0, 0)


async def test_a_caller_that_leaves_while_sending_its_body(rig: Any) -> None:
    rig.function()
    upstream = await rig.instance(read_body=False, behave=_read_all)
    caller = await rig.caller()
    caller.send(f"POST {HELLO} HTTP/1.1\r\nhost: gw\r\ncontent-length: 1000000\r\n\r\n".encode() + bytes(200_000))
    await upstream.arrived.wait()
    caller.close()
    await rig.settled()
    await upstream.left.wait()
    assert rig.gateway.pools.counts() == (0, 0)


async def _read_all(seen: Any, reader: Any, writer: Any) -> None:
    while await reader.read(65536):
        pass
    writer.close()


async def test_draining_instances_get_nothing_new(rig: Any) -> None:
    rig.function()
    go = asyncio.Event()

    async def slow(seen: Any, reader: Any, writer: Any) -> None:
        await go.wait()
        writer.write(reply())

    old = await rig.instance(behave=slow, concurrency=5)
    caller = await rig.caller()
    caller.send(get())
    await old.arrived.wait()
    old.pod["metadata"]["labels"]["kappa.dev/state"] = "draining"
    rig.gateway.catalog.put_pod(old.pod)
    key = f"default/{old.pod['metadata']['name']}"
    assert rig.gateway.stats().draining == {key: 1}
    new = await rig.instance()
    assert (await rig.get(HELLO)).status == 200
    assert len(new.seen) == 1
    go.set()
    assert (await caller.answer()).status == 200
    assert rig.gateway.stats().draining == {key: 0}
    rig.gateway.catalog.remove_pod(key)
    assert rig.gateway.stats().draining == {}


async def test_a_deleted_function_answers_404_to_who_waits(rig: Any) -> None:
    rig.function()
    caller = await rig.caller()
    caller.send(get())
    await rig.until(lambda: rig.queue().waiting == 1)
    rig.gateway.catalog.remove_function("default/hello")
    assert (await caller.answer()).status == 404
    assert rig.gateway.catalog.functions == {}
    assert (await caller.ask(get())).status == 404


async def test_who_waits_for_code_that_does_not_load_learns_it_at_once(rig: Any) -> None:
    rig.function()
    caller = await rig.caller()
    caller.send(get())
    await rig.until(lambda: rig.queue().waiting == 1)
    condition = {"type": "Ready", "status": "False", "reason": "LoadFailed", "message": "ImportError: no"}
    status = {"observedGeneration": 1, "conditions": [condition]}
    rig.function(generation=1, status=status)
    for answer in (await caller.answer(), await caller.ask(get())):
        assert answer.status == 503
        assert answer.headers["kappa-error-source"] == "gateway"
        error = json.loads(answer.body)["error"]
        assert error["code"] == "not_ready"
        assert error["message"] == "the function cannot run (LoadFailed): its status says why"
    await rig.instance()
    assert (await caller.ask(get())).status == 200


async def test_idle_connections_that_the_instance_closed_are_not_used(rig: Any) -> None:
    rig.function()

    async def once(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(reply())
        await writer.drain()
        writer.close()

    upstream = await rig.instance(behave=once)
    for _ in range(3):
        assert (await rig.get(HELLO, method="POST")).status == 200
        await rig.until(lambda: rig.gateway.pools.counts() == (0, 0))
    assert upstream.connections == 3
