"""Limits as callers meet them: rates, queues, bodies, slow clients, connections; a function's limits and no other's."""

import asyncio
import base64
import hashlib
from typing import Any

import pytest
from kappa_gateway_rig import Caller, reply

from kappa_api.callers import API_KEYS_SECRET_TYPE
from kappa_api.limits import Rate
from kappa_gateway.server import FREE_REFUSALS, LONGEST_REST, REST_SECONDS
from kappa_gateway.settings import Limits

HELLO = "/fn/default/hello"
GET = f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n\r\n"


def post(size: int, *lines: str, path: str = HELLO) -> str:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: gw", f"content-length: {size}", *lines, "", ""])


async def caller_at(rig: Any, address: str) -> Caller:
    """A caller with an address of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20, local_addr=(address, 0))
    caller = Caller(reader, writer)
    rig._callers.append(caller)
    return caller


def rejected(rig: Any, name: str = "hello") -> dict[str, int]:
    found: dict[str, int] = rig.gateway.catalog.functions[f"default/{name}"].counters.rejected
    return found


def key_hash(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


class Hold:
    """A function that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, seen: Any, reader: Any, writer: Any) -> None:
        await self.go.wait()
        writer.write(reply())


# --- rates ------------------------------------------------------------------------------------------------------------
async def test_a_rate_for_all_callers(rig: Any) -> None:
    rig.function(concurrency=10, http={"limits": {"rate": {"requests": 2, "perSeconds": 60}}})
    rig.function("other", concurrency=10)
    upstream = await rig.instance(concurrency=10)
    await rig.instance("other", concurrency=10)
    caller = await rig.caller()
    assert [(await caller.ask(GET)).status for _ in range(2)] == [200, 200]
    answer = await caller.ask(GET)
    assert (answer.status, answer.error["code"]) == (429, "rate_limited")
    assert answer.error["message"] == "default/hello takes 2 in 60 s from all callers together"
    assert 25 <= int(answer.headers["retry-after"]) <= 30
    assert answer.headers["ratelimit-policy"] == '"function";q=2;w=60'
    assert answer.headers["ratelimit"].startswith('"function";r=0;t=')
    assert answer.headers["kappa-error-source"] == "gateway"
    assert (await (await caller_at(rig, "127.0.0.9")).ask(GET)).status == 429
    assert (await caller.ask(GET.replace("hello", "other"))).status == 200, "on the same connection"
    assert len(upstream.seen) == 2
    assert rejected(rig) == {"function_rate": 2}
    assert rejected(rig, "other") == {}
    await rig.settled()


async def test_a_rate_for_each_caller(rig: Any) -> None:
    rig.function(concurrency=10, http={"limits": {"callerRate": {"requests": 1, "perSeconds": 60, "burst": 2}}})
    await rig.instance(concurrency=10)
    first, second = await caller_at(rig, "127.0.0.2"), await caller_at(rig, "127.0.0.3")
    assert [(await first.ask(GET)).status for _ in range(3)] == [200, 200, 429]
    again = await caller_at(rig, "127.0.0.2")
    answer = await again.ask(GET.replace("host: gw", "host: gw\r\nx-forwarded-for: 203.0.113.9"))
    assert (answer.status, answer.headers["ratelimit-policy"]) == (429, '"caller";q=1;w=60')
    assert [(await second.ask(GET)).status for _ in range(3)] == [200, 200, 429]
    assert rejected(rig) == {"caller_rate": 3}
    assert rig.gateway.admission.room.used == 2


async def test_callers_behind_a_proxy(make_rig: Any) -> None:
    """The address that the trusted proxy saw counts; what a caller writes before it changes nothing."""
    rig = await make_rig(trust_forwarded=True)
    rig.function(concurrency=10, http={"limits": {"callerRate": {"requests": 1, "perSeconds": 60}}})
    await rig.instance(concurrency=10)
    proxy = await rig.caller()

    async def ask(forwarded: str) -> int:
        return int((await proxy.ask(GET.replace("host: gw", f"host: gw\r\nx-forwarded-for: {forwarded}"))).status)

    assert [await ask("198.51.100.1"), await ask("198.51.100.1"), await ask("10.0.0.1, 198.51.100.1")] == [
        200,
        429,
        429,
    ]
    assert [await ask("198.51.100.2"), await ask("2001:db8::1"), await ask("2001:db8::2")] == [200, 200, 429]


async def test_a_verified_identity_is_the_caller(rig: Any) -> None:
    """Wherever it calls from; and whoever has none costs it nothing."""
    limits = {"callerRate": {"requests": 1, "perSeconds": 60}}
    rig.function(
        concurrency=10, http={"limits": limits, "auth": {"type": "apiKey", "apiKey": {"secrets": [{"name": "k"}]}}}
    )
    await rig.instance(concurrency=10)
    data = {name: base64.b64encode(key_hash(name).encode()).decode() for name in ("anna", "bert")}
    meta = {"name": "k", "namespace": "default"}
    rig.gateway.guard.keys.put({"metadata": meta, "type": API_KEYS_SECRET_TYPE, "data": data})

    async def ask(address: str, key: str) -> int:
        caller = await caller_at(rig, address)
        return int((await caller.ask(GET.replace("host: gw", f"host: gw\r\nx-api-key: {key}"))).status)

    assert [await ask("127.0.0.2", "stranger") for _ in range(2)] == [401, 401]
    assert [await ask("127.0.0.2", "anna"), await ask("127.0.0.3", "anna"), await ask("127.0.0.2", "bert")] == [
        200,
        429,
        200,
    ]


async def test_the_gateways_own_rate(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(rate=Rate(1, 60)))
    rig.function(concurrency=10)
    rig.function("own", concurrency=10, http={"limits": {"rate": {"requests": 3, "perSeconds": 60}}})
    await rig.instance(concurrency=10)
    await rig.instance("own", concurrency=10)
    assert [(await rig.get(HELLO)).status for _ in range(2)] == [200, 429]
    assert [(await rig.get("/fn/default/own")).status for _ in range(4)] == [200, 200, 200, 429]


async def test_limits_follow_the_function(rig: Any) -> None:
    rig.function(generation=1, concurrency=10)
    await rig.instance(concurrency=10)
    assert [(await rig.get(HELLO)).status for _ in range(3)] == [200] * 3
    limits = {"rate": {"requests": 1, "perSeconds": 3600}}
    rig.function(generation=2, concurrency=10, http={"limits": limits})
    assert [(await rig.get(HELLO)).status for _ in range(2)] == [200, 429]
    rig.function(generation=3, concurrency=9, http={"limits": limits})
    assert (await rig.get(HELLO)).status == 429, "a change of something else is no new burst"
    rig.function(generation=4, concurrency=10)
    assert (await rig.get(HELLO)).status == 200


# --- queues -----------------------------------------------------------------------------------------------------------
async def test_a_function_may_let_fewer_wait(rig: Any) -> None:
    hold = Hold()
    rig.function(http={"limits": {"maxWaiting": 2, "rate": {"requests": 3, "perSeconds": 3600}}})
    await rig.instance(behave=hold)
    calls = [asyncio.create_task(rig.get(HELLO)) for _ in range(3)]
    await rig.until(lambda: rig.queue().waiting == 2)
    for _ in range(2):
        answer = await rig.get(HELLO)
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (429, "queue_full", "1")
    assert rejected(rig) == {"queue_full": 2}
    assert rig.queue().arrivals == 5, "the autoscaler is to see what was asked for"
    hold.go.set()
    assert [(await call).status for call in calls] == [200] * 3
    assert rig.gateway.catalog.functions["default/hello"].counters.finished == 3
    assert (await rig.get(HELLO)).error["code"] == "rate_limited", "a full queue cost nobody his rate"
    await rig.settled()


async def test_refused_before_the_body_is_read(rig: Any) -> None:
    """A small body is thrown away and the connection stays; a large one ends it. Neither was waited for."""
    rig.function(http={"limits": {"rate": {"requests": 1, "perSeconds": 3600}}})
    await rig.instance()
    caller = await rig.caller()
    assert (await caller.ask(GET)).status == 200
    answer = await caller.ask(post(1000))
    assert (answer.status, "connection" in answer.headers) == (429, False)
    caller.send(bytes(600))
    caller.send(bytes(400))
    assert (await caller.ask(GET)).status == 429, "the next request on the same connection"
    answer = await caller.ask(post(10_000_000))
    assert (answer.status, answer.headers["connection"]) == (429, "close")
    other = await rig.caller()
    answer = await other.ask(post(1000, "expect: 100-continue"))
    assert (answer.status, answer.headers["connection"]) == (429, "close"), "the body may never come"


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_connection_that_is_refused_in_a_loop_rests(make_rig: Any, proxied: bool) -> None:
    """But not one of a proxy, which carries other callers' requests as well."""
    rig = await make_rig(trust_forwarded=proxied)
    rig.function(http={"limits": {"rate": {"requests": 1, "perSeconds": 3600}}})
    rig.function("other")
    await rig.instance()
    await rig.instance("other")
    caller = await rig.caller()
    loop, count = asyncio.get_running_loop(), 30
    begun = loop.time()
    for number in range(count):
        answer = await caller.ask(GET)
        assert answer.status == (429 if number else 200)
    least = sum(min(LONGEST_REST, REST_SECONDS * n) for n in range(1, count - 1 - FREE_REFUSALS))
    if not proxied:  # a lower bound: nothing that the machine does makes it fail
        assert loop.time() - begun >= least
    assert (rig.gateway.server.rests > 0) is not proxied
    assert rig.gateway.server.clients[0]._refusals > FREE_REFUSALS
    other = GET.replace("hello", "other")
    assert [(await caller.ask(other)).status for _ in range(2)] == [200, 200]
    await rig.until(lambda: rig.gateway.server.clients[0]._refusals == 0)
    caller.send(GET * 7)
    caller.close()
    await rig.until(lambda: rig.gateway.connections() == 0)


# --- memory -----------------------------------------------------------------------------------------------------------
async def test_bodies_of_one_function_do_not_fill_the_memory(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(held_total_bytes=100_000))
    hold = Hold()
    budget = rig.gateway.bodies.budget
    rig.function()
    rig.function("other")
    await rig.instance(behave=hold)
    await rig.instance("other")
    callers = [await rig.caller() for _ in range(5)]
    for number, caller in enumerate(callers):
        caller.send(post(10_000).encode() + bytes(10_000))
        await rig.until(lambda number=number: budget.used == 10_000 * (number + 1))
    answer = await rig.get(HELLO, method="POST", body=bytes(10_000))
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    assert rejected(rig) == {"held_bodies": 1}
    assert (await rig.get("/fn/default/other", method="POST", body=bytes(20_000))).status == 200
    callers.pop().close()  # one gives up
    await rig.until(lambda: budget.used == 40_000)
    hold.go.set()
    assert [(await caller.answer()).status for caller in callers] == [200] * 4
    await rig.settled()
    assert budget.used == 0
    assert rig.gateway.catalog.functions["default/hello"].held == 0


async def test_large_bodies_count_until_they_are_sent(rig: Any) -> None:
    budget = rig.gateway.bodies.budget
    hold = Hold()
    rig.function()
    upstream = await rig.instance(behave=hold)
    caller = await rig.caller()
    caller.send(post(300_000).encode() + bytes(200_000))
    await rig.until(lambda: budget.used >= 3 * 65536)
    caller.send(bytes(100_000))
    await asyncio.wait_for(upstream.arrived.wait(), 5)
    await rig.until(lambda: budget.used == 0)
    hold.go.set()
    assert (await caller.answer()).status == 200
    await rig.settled()


# --- slow clients -----------------------------------------------------------------------------------------------------
async def test_a_head_that_dribbles(make_rig: Any) -> None:
    """Each byte comes in time, the head does not."""
    rig = await make_rig(limits=Limits(head_seconds=0.2))
    rig.function()
    caller = await rig.caller()

    async def dribble() -> None:
        for letter in f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nx-a: {'a' * 1000}":
            caller.send(letter)
            await asyncio.sleep(0.01)

    dribbling = asyncio.create_task(dribble())
    answer = await asyncio.wait_for(caller.answer(), 5)
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    dribbling.cancel()


async def test_a_body_that_dribbles(make_rig: Any) -> None:
    """It never pauses for long, yet would take minutes."""
    rig = await make_rig(limits=Limits(body_idle_seconds=0.2, body_rate=1000))
    rig.function()
    upstream = await rig.instance()
    caller = await rig.caller()
    caller.send(post(10_000))

    async def dribble() -> None:
        while True:
            caller.send("x")
            await asyncio.sleep(0.02)

    dribbling = asyncio.create_task(dribble())
    answer = await asyncio.wait_for(caller.answer(), 5)
    dribbling.cancel()
    assert (answer.status, answer.error["code"], answer.headers["connection"]) == (408, "request_timeout", "close")
    assert upstream.seen == []
    assert rig.queue().arrivals == 0, "it never had a place in the queue"


async def test_a_reader_that_dribbles_is_cut_at_the_deadline(rig: Any) -> None:
    """It takes a little now and then, so it is never idle; the function's time ends it and frees the instance."""
    rig.function(timeoutSeconds=1)

    async def endless(seen: Any, reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()

    upstream = await rig.instance(behave=endless)
    caller = await rig.caller()
    caller.send(GET)

    async def sip() -> None:
        while await caller.reader.read(100):
            await asyncio.sleep(0.01)

    sipping = asyncio.create_task(sip())
    await asyncio.wait_for(upstream.left.wait(), 10)
    await rig.settled()
    sipping.cancel()


# --- sizes, to the byte -----------------------------------------------------------------------------------------------
SIZES = [
    ("url", 414, "url_too_long", {"url_bytes": 300}, lambda n: f"GET {HELLO}?{'x' * n} HTTP/1.1\r\nhost: gw\r\n\r\n"),
    (
        "header",
        431,
        "headers_too_large",
        {"header_bytes": 300},
        lambda n: f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nx-a: {'x' * n}\r\n\r\n",
    ),
    (
        "all headers",
        431,
        "headers_too_large",
        {"head_bytes": 300},
        lambda n: f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\nx-a: {'x' * (n // 2)}\r\nx-b: {'x' * (n - n // 2)}\r\n\r\n",
    ),
    (
        "number of headers",
        431,
        "headers_too_large",
        {"header_count": 30},
        lambda n: f"GET {HELLO} HTTP/1.1\r\nhost: gw\r\n" + "".join(f"x-{i}: b\r\n" for i in range(n)) + "\r\n",
    ),
    ("body", 413, "body_too_large", {"body_bytes": 300}, lambda n: post(n) + "x" * n),
]


@pytest.mark.parametrize(("what", "status", "code", "limit", "make"), SIZES, ids=[row[0] for row in SIZES])
async def test_limits_of_size_are_sharp(
    make_rig: Any, what: str, status: int, code: str, limit: Any, make: Any
) -> None:
    """There is one size up to which requests pass; one more is refused with the code of that limit."""
    rig = await make_rig(limits=Limits(**limit))
    rig.function(concurrency=100)
    await rig.instance(concurrency=100)

    async def passes(size: int) -> bool:
        answer = await rig.ask(make(size))
        if answer.status == 200:
            return True
        assert (answer.status, answer.error["code"], answer.headers["connection"]) == (status, code, "close")
        return False

    low, high = 1, 2000
    assert await passes(low)
    assert not await passes(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await passes(middle) else (low, middle)
    if what == "body":
        assert low == 300


async def test_a_body_beyond_the_limit_is_refused_before_it_is_asked_for(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(body_bytes=1000))
    rig.function()
    await rig.instance()
    caller = await rig.caller()
    caller.send(post(1001, "expect: 100-continue"))
    assert (await caller.head())[0] == 413


# --- connections ------------------------------------------------------------------------------------------------------
async def test_no_more_connections_than_the_cap(make_rig: Any) -> None:
    """Those beyond it are told why, whatever they send; those within it do not notice."""
    rig = await make_rig(limits=Limits(connections=3, connections_per_address=3))
    rig.function(concurrency=10)
    hold = Hold()
    await rig.instance(behave=hold, concurrency=10)
    door = rig.gateway.server.door
    inside = [await rig.caller() for _ in range(3)]
    for caller in inside:
        caller.send(GET)
    await rig.until(lambda: rig.queue().in_service == 3)
    for sent in ("", GET, post(1_000_000) + "x" * 100_000):
        caller = await caller_at(rig, "127.0.0.7")
        caller.send(sent)
        answer = await caller.answer()
        assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
        assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "1")
        caller.close()
    assert (door.inside, dict(door.turned_away)) == (3, {"total": 3})
    hold.go.set()
    assert [(await caller.answer()).status for caller in inside] == [200] * 3
    inside.pop().close()
    await rig.until(lambda: door.inside == 2)
    assert (await (await rig.caller()).ask(GET)).status == 200


async def test_one_address_does_not_shut_out_the_others(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(connections=10))  # so five for an address
    rig.function(concurrency=10)
    await rig.instance(concurrency=10)
    greedy = [await caller_at(rig, "127.0.0.2") for _ in range(6)]
    answer = await greedy[5].answer()
    assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
    assert answer.error["message"].startswith("this address")
    assert dict(rig.gateway.server.door.turned_away) == {"address": 1}
    for caller in (greedy[0], await caller_at(rig, "127.0.0.3")):
        assert (await caller.ask(GET)).status == 200
    greedy[0].close()
    await rig.until(lambda: rig.gateway.server.door.inside == 5)
    assert (await (await caller_at(rig, "127.0.0.2")).ask(GET)).status == 200


async def test_proxies_are_not_capped_by_address(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(connections=4), trust_forwarded=True)
    rig.function(concurrency=10)
    await rig.instance(concurrency=10)
    assert [(await (await rig.caller()).ask(GET)).status for _ in range(4)] == [200] * 4


async def test_idle_connections_make_room(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(connections=3, connections_per_address=3))
    rig.function(concurrency=10)
    await rig.instance(concurrency=10)
    server = rig.gateway.server
    idle = [await rig.caller() for _ in range(3)]
    for caller in idle:
        assert (await caller.ask(GET)).status == 200
    await rig.until(lambda: all(client.idle for client in server.clients))
    server.clients[1]._next_keepalive_close_time -= 10  # this one has been idle for ten seconds
    newcomer = await caller_at(rig, "127.0.0.9")
    assert (await newcomer.ask(GET)).status == 200
    assert await idle[1].closed() == b""
    assert [(await caller.ask(GET)).status for caller in (idle[0], idle[2])] == [200, 200]
    assert (server.door.evicted, server.door.inside) == (1, 3)


async def test_a_flood_of_connections_leaves_nothing_behind(make_rig: Any) -> None:
    rig = await make_rig(limits=Limits(connections=5, connections_per_address=5))
    rig.function(concurrency=10)
    await rig.instance(concurrency=10)
    callers = [await rig.caller() for _ in range(300)]
    await rig.until(lambda: sum(rig.gateway.server.door.turned_away.values()) == 295)
    assert rig.gateway.connections() == 5
    for caller in callers:
        caller.close()
    await rig.until(lambda: rig.gateway.connections() == rig.gateway.server.door.inside == 0)
    assert (await rig.get(HELLO)).status == 200
