"""What the demo plays, in order: a title for each step."""

from collections.abc import Awaitable, Callable, Sequence

from kappa_local.demo import events, steps
from kappa_local.demo.steps import Stage

STEPS: Sequence[tuple[str, Callable[[Stage], Awaitable[str]]]] = (
    ("Deploy a function", steps.deploy),
    ("Call it", steps.call),
    ("Try bad input", steps.bad_input),
    ("A burst: replicas rise and fall", steps.burst),
    ("Call a function at zero", steps.from_zero),
    ("Roll out a new revision under load", steps.roll),
    ("Roll out a revision that does not load", steps.broken),
    ("Call asynchronously, with a retry", events.asynchronous),
    ("Run a function by the clock", events.schedule),
    ("Clean up", steps.remove),
)
