"""What a fuzz target is: a strategy for inputs, a check that raises when the program treats one wrongly, and the form
in which inputs are bytes, for runs that are guided by coverage."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Form:
    """Cases as bytes. `read` raises ValueError for bytes that are no case, and undoes `write`. `words`: what mutation
    puts in besides what it sees compared; worth it for what is longer than a byte or two."""

    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    words: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Target:
    """`check` gets one input. `found`: inputs that once broke the program, tried first by every run; further ones are
    in files (see `fuzz_kept`). `slow`: one case costs so many times what a usual one costs."""

    name: str
    what: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]
    form: Form
    found: tuple[Any, ...] = field(default=())
    slow: int = 1
