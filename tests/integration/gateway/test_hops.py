"""Chains of synchronous calls: the number of hops goes on to the instance; one that is too long ends with 508."""

import json
import logging
from typing import Any

import pytest
from kappa_auth_world import hashed, secret
from kappa_gateway_rig import running

from kappa_gateway.events.settings import EventSettings


async def test_the_number_goes_on(rig: Any) -> None:
    rig.function("hello")
    instance = await rig.instance("hello")
    given: list[tuple[tuple[str, ...], list[str]]] = [
        ((), []),  # a call from outside costs its instance no header
        (("kappa-hops: 0",), []),
        (("kappa-hops: 1",), ["2"]),
        (("Kappa-Hops: 16",), ["17"]),
        (("kappa-hops: 2", "kappa-hops: 7", "kappa-hops: 3"), ["8"]),
        (("kappa-hops: x",), []),
        (("kappa-hops: -1",), []),
        (("kappa_hops: 5",), []),  # servers of one's own could take it for the platform's
    ]
    for lines, expected in given:
        assert (await rig.get("/fn/default/hello", *lines)).status == 200
        told = [value for name, value in instance.seen[-1].headers if name.lower().replace("_", "-") == "kappa-hops"]
        assert told == expected, lines


async def test_a_chain_that_is_too_long(rig: Any, caplog: pytest.LogCaptureFixture) -> None:
    rig.function("hello")
    instance = await rig.instance("hello")
    with caplog.at_level(logging.WARNING):
        for number in ("17", "18", "999999999999"):
            answer = await rig.get("/fn/default/hello", f"kappa-hops: {number}", method="POST", body=b"{}")
            assert (answer.status, answer.error["code"]) == (508, "loop_detected")
            assert "default/hello" in answer.error["message"]
            assert answer.headers["kappa-error-source"] == "gateway"
    assert instance.seen == []
    assert rig.gateway.catalog.functions["default/hello"].counters.rejected == {"loop": 3}
    assert caplog.text.count("a loop: default/hello") == 1  # said once, not for each call


async def test_strangers_are_turned_away_first(rig: Any) -> None:
    rig.function("hello", http={"auth": {"type": "apiKey", "apiKey": {"secrets": [{"name": "robots"}]}}})
    rig.gateway.guard.keys.put(secret("robots", r2d2=hashed("beep")))
    answer = await rig.get("/fn/default/hello", "kappa-hops: 99")
    assert answer.status == 401
    answer = await rig.get("/fn/default/hello", "kappa-hops: 99", "x-api-key: beep")
    assert answer.status == 508


@pytest.mark.parametrize(("most", "status"), [(0, 200), (2, 508), (3, 200)])
async def test_the_bound_is_a_setting(most: int, status: int) -> None:
    async with running(events=EventSettings(max_hops=most)) as rig:
        rig.function("hello")
        await rig.instance("hello")
        answer = await rig.get("/fn/default/hello", "kappa-hops: 3")
        assert answer.status == status
        if status == 508:
            assert json.loads(answer.body)["error"]["code"] == "loop_detected"
