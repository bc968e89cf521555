"""A quick slice of each fuzz target, the same inputs each time; and every input that was ever found, tried again."""

from typing import Any

import pytest
from fuzz_all import TARGETS
from fuzz_kept import kept
from fuzz_target import Target
from hypothesis import HealthCheck, given, settings

CASES = 60


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_slice(target: Target) -> None:
    @settings(
        max_examples=max(10, CASES // target.slow),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def slice_of(case: Any) -> None:
        target.check(case)

    slice_of()


FOUND = [(target, case) for target in TARGETS for case in kept(target)]


@pytest.mark.parametrize(("target", "case"), FOUND, ids=[target.name for target, _ in FOUND])
def test_what_was_found_once(target: Target, case: Any) -> None:
    target.check(case)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_cases_are_bytes_and_back(target: Target) -> None:
    """What guided runs begin with are cases, and the bytes of a case are those of the case they make."""

    @settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def there_and_back(case: Any) -> None:
        data = target.form.write(case)
        assert target.form.write(target.form.read(data)) == data

    there_and_back()
