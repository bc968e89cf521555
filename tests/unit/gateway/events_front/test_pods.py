"""Pods that send events: the token of one that is gone is good no more, and nobody is refused on suspicion."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from kappa_gateway.events.front import pods as module
from kappa_gateway.events.front.pods import ANSWER_SECONDS, LATE_SECONDS, SILENCE_SECONDS, Pods
from kappa_gateway.kube import ApiError

POD = "default/p1"


class Api:
    """The API server: phases of pods by `namespace/name`. `error`: what it answers instead."""

    def __init__(self) -> None:
        self.pods: dict[str, str] = {}
        self.error: Exception | None = None
        self.asked = 0

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[list[Any], str]]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        key = f"{path.split('/')[4]}/{query['fieldSelector'].removeprefix('metadata.name=')}"
        yield [{"status": {"phase": self.pods[key]}}] if key in self.pods else [], "1"


class World:
    def __init__(self) -> None:
        self.api: Api | None = Api()
        self.watched: set[str] = set()
        self.now = 1000.0
        self.pods = Pods(self.watched.__contains__, lambda: self.api, lambda: self.now)

    async def ask(self, after: float = 0.0) -> tuple[bool, int]:
        """Whether it is there, and how often the API server was asked so far."""
        self.now += after
        return await self.pods.there(POD), self.api.asked if self.api else 0


async def test_the_watch_is_enough() -> None:
    world = World()
    world.watched.add(POD)
    assert await world.ask() == (True, 0)
    world.watched.clear()
    assert await world.ask(LATE_SECONDS - 1) == (True, 0)
    assert await world.ask(2) == (False, 1)


async def test_one_that_is_too_new_for_the_watch_is_asked_for() -> None:
    world = World()
    assert world.api is not None
    world.api.pods[POD] = "Running"
    assert [await world.ask(), await world.ask(ANSWER_SECONDS - 1), await world.ask(2)] == [
        (True, 1),
        (True, 1),
        (True, 2),
    ]


@pytest.mark.parametrize("phase", ["", "Failed", "Succeeded"])
async def test_one_that_is_gone_is_refused(phase: str) -> None:
    world = World()
    assert world.api is not None
    if phase:
        world.api.pods[POD] = phase
    assert await world.ask() == (False, 1)
    assert await world.ask(ANSWER_SECONDS - 1) == (False, 1)
    assert await world.ask(2) == (False, 2)
    world.watched.add(POD)  # made anew under the name
    assert await world.ask() == (True, 2)


@pytest.mark.parametrize("error", [ApiError(500, "no"), OSError(), TimeoutError(), ValueError("no JSON")])
async def test_silence_refuses_nobody_and_is_not_asked_for_all_the_time(error: Exception) -> None:
    world = World()
    assert world.api is not None
    world.api.error = error
    assert [await world.ask(), await world.ask(SILENCE_SECONDS - 1)] == [(True, 1), (True, 1)]
    world.api.error = None
    assert await world.ask(2) == (False, 2)


async def test_without_an_api_server_the_token_counts() -> None:
    world = World()
    world.api = None
    assert await world.ask() == (True, 0)


async def test_not_everybody_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 2)
    world = World()
    assert world.api is not None
    for name in ("a", "b", "c", "a"):
        assert not await world.pods.there(f"default/{name}")
    assert world.api.asked == 4
