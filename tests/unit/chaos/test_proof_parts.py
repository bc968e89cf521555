"""The parts of `make chaos-events` that decide: who hands in again, what the function does, when schedules fire."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import proof_functions
import pytest
from kappa_collector import Collector
from kappa_virtual import VirtualLoop
from proof_feed import Driver, RefusedError, Retrying
from proof_ledger import Ledger
from proof_schedules import once, times


def _run(what: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(what)


class Feed:
    """Takes each event the third time that it is handed in, unless it never does."""

    name, parallel = "kv", 2

    def __init__(self, never: str = "") -> None:
        self.seen: list[str] = []
        self.never = never

    async def send(self, ident: str) -> None:
        self.seen.append(ident)
        if ident == self.never or self.seen.count(ident) < 3:
            raise RefusedError("not yet")


def test_what_is_refused_is_handed_in_again_until_it_is_taken() -> None:
    async def check() -> None:
        ledger, feed = Ledger(), Feed()
        driver = Driver(feed, ledger, asyncio.get_running_loop().time, end=2000.0)  # type: ignore[arg-type]
        await driver.run(4, seconds=2.0)
        assert sorted(feed.seen) == sorted([f"proof-kv-{number}" for number in range(4)] * 3)
        assert all(item.accepted and item.tries == 3 for item in ledger.items.values())
        assert driver.refusals == {"not yet": 8}

    _run(check())


def test_what_is_never_taken_is_given_up_and_not_accepted() -> None:
    async def check() -> None:
        ledger, feed = Ledger(), Feed(never="proof-kv-1")
        driver = Driver(feed, ledger, asyncio.get_running_loop().time, end=1060.0)  # type: ignore[arg-type]
        await driver.run(2, seconds=1.0)
        assert [bool(item.accepted) for item in ledger.items.values()] == [True, False]

    _run(check())


async def _handled(event: Any, draws: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """The handler's answer (its error as text), and what it told; `draws`: what chance brings."""
    told: list[str] = []
    async with Collector(lambda words: told.append(" ".join(words))) as collector:
        spec = proof_functions.manifest("events", collector.port, Retrying())["spec"]
        scope: dict[str, Any] = {}
        exec(spec["code"]["inline"], scope)
        monkeypatch.setattr(random, "random", iter(draws).__next__)
        try:
            answer = await scope["handler"](event, None)
        except RuntimeError as error:
            answer = str(error)
        scope["_lines"]["at"][1].close()
    return answer, told


async def test_the_function_tells_and_fails_every_tenth_time(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"body": '{"id": "proof-async-7"}'}
    assert await _handled(event, [0.1], monkeypatch) == ({"done": True}, ["run proof-async-7 ok"])
    answer, told = await _handled(event, [0.09], monkeypatch)
    assert answer == "every tenth run fails"
    assert told == ["run proof-async-7 failed"]


async def test_of_a_batch_only_some_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"messageId": f"m{number}", "body": f'{{"id": "proof-redis-{number}"}}'} for number in range(3)]
    answer, told = await _handled({"Records": records}, [0.5, 0.01, 0.5], monkeypatch)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert told == ["run proof-redis-0 ok", "run proof-redis-1 failed", "run proof-redis-2 ok"]


def test_firings_are_spread_over_the_run_at_whole_seconds() -> None:
    assert times(4, 100.5, 10.0) == [101, 104, 106, 109]
    made = once("proof-schedule-3", 1_760_000_000, "events", Retrying())
    assert made["spec"]["source"] == {"schedule": {"at": "2025-10-09T08:53:20Z", "data": {"id": "proof-schedule-3"}}}
