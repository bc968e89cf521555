"""How many examples the property-based tests try.

As a rule few and always the same ones, so that a run says the same everywhere. `KAPPA_FUZZ=n` tries n times as many,
other ones each time; a failure prints how to see it again. With `KAPPA_SHRINK=0` it is not made smaller first.
"""

import os

from hypothesis import HealthCheck, Phase, settings

FACTOR = int(os.environ.get("KAPPA_FUZZ") or 0)
PHASES = (Phase.explicit, Phase.generate, Phase.shrink)


def tries(examples: int, steps: int = 50) -> settings:
    """Settings for a test, or (with `steps`) for a state machine."""
    return settings(
        max_examples=examples * max(1, FACTOR),
        stateful_step_count=steps,
        derandomize=not FACTOR,
        database=None,
        deadline=None,
        print_blob=bool(FACTOR),
        phases=PHASES[:-1] if os.environ.get("KAPPA_SHRINK") == "0" else PHASES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
