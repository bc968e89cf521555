"""A NATS server for each test, with gateways' Trigger machinery on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kappa_nats import NatsServer
from kappa_trigger_world import TriggerWorld, trigger_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[TriggerWorld]:
    async with trigger_world(NatsServer(tmp_path / "nats")) as made:
        yield made
