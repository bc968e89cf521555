"""The modules in `sources/`, by the kind of source that a Trigger names."""

import asyncio
import importlib
from types import ModuleType
from typing import Any

from kappa_api.sources import READERS
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Place


def load_kind(kind: str) -> ModuleType:
    """Loaded when the first Trigger wants it: drivers of databases cost memory. Raises KeyError for what is no kind."""
    if kind not in READERS:
        raise KeyError(kind)
    return importlib.import_module(f"kappa_gateway.events.sources.{kind}")


async def loaded(kind: str) -> ModuleType:
    """As `load_kind`, without holding up the loop while a module is read for the first time."""
    return await asyncio.to_thread(load_kind, kind)


def shape_of(module: Any, trigger: Trigger) -> str:
    """One of names.SHAPES. A module has `SHAPE`, or `shape(trigger)` where that depends on the spec."""
    found: str = module.shape(trigger) if hasattr(module, "shape") else module.SHAPE
    return found


def place_of(module: Any, trigger: Trigger) -> Place:
    """A module has `PLACE`, or `place(trigger)` where that depends on the spec."""
    found: Place = module.place(trigger) if hasattr(module, "place") else module.PLACE
    return found
