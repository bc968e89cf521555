"""One target on random inputs of its strategy: hypothesis draws them, and shrinks what fails."""

import signal
import time
from typing import Any

import hypothesis
from fuzz_kept import keep, kept, kind_of
from fuzz_target import Target
from hypothesis import HealthCheck, Phase

FIRST_ROUND = 100
#: For one input that was found once: perhaps it hangs.
KNOWN_SECONDS = 20


class OverError(BaseException):
    """The time is up: not an error of the program, so no Exception."""


class Count:
    """What became of one target so far. `found`: files, by kind of fault."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.cases = 0
        self.seconds = 0.0
        self.found: dict[str, str] = {}

    @property
    def examples(self) -> int:
        """Of one round."""
        return max(10, FIRST_ROUND // self.target.slow)


def known(count: Count) -> None:
    """What was found once, tried again."""
    for case in kept(count.target):
        count.cases += 1
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(KNOWN_SECONDS)
        try:
            count.target.check(case)
        except Exception as error:
            _keep(count, case, error)
        finally:
            signal.alarm(0)


def attempt(count: Count, seed: int, until: float) -> None:
    """One round of random inputs; a failure is shrunk and kept."""
    smallest: list[Any] = []

    def one(case: Any) -> None:
        if time.monotonic() > until and not smallest:
            raise OverError
        count.cases += 1
        try:
            count.target.check(case)
        except Exception:
            smallest[:] = [case]
            raise

    test = hypothesis.given(count.target.inputs)(one)
    test = hypothesis.settings(
        max_examples=count.examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )(test)
    begun = time.monotonic()
    try:
        hypothesis.seed(seed)(test)()
    except OverError:
        pass
    except Exception as error:
        _keep(count, smallest[0] if smallest else None, error)
    finally:
        count.seconds += time.monotonic() - begun


def _keep(count: Count, case: Any, error: BaseException) -> None:
    if (kind := kind_of(error)) not in count.found:
        count.found[kind] = keep(count.target, case, error)


def _too_long(*_: object) -> None:
    raise TimeoutError("it hangs, or takes very long")
