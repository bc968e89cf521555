"""What a fuzz target is: a strategy for inputs, and a check that raises when the program treats one wrongly."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Target:
    """`check` gets one input. `found`: inputs that once broke the program, tried first by every run. `slow`: one case
    costs so many times what a usual one costs."""

    name: str
    what: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]
    found: tuple[Any, ...] = field(default=())
    slow: int = 1
