"""`spec.async`: what comes out of it, what people are told, how long the pauses are. Which are good: test_crd.py."""

from typing import Any

import pytest

from kappa_api.delivery import DEFAULT_DELIVERY, Backoff, Delivery, Destination
from kappa_api.errors import SpecError
from kappa_api.function import parse_function
from kappa_gateway.routes import Entry

Json = Any


def resource(delivery: Json = None, name: str = "hello") -> Json:
    spec = {"code": {"image": "x"}} | ({} if delivery is None else {"async": delivery})
    return {"metadata": {"namespace": "shop", "name": name}, "spec": spec}


def test_everything() -> None:
    given = {
        "retries": 5,
        "backoff": {"seconds": 1, "factor": 3, "maxSeconds": 9, "jitterPercent": 0},
        "maxAgeSeconds": 60,
        "onSuccess": {"function": "next"},
        "onFailure": {"url": "https://a.example/x"},
        "resultSeconds": 0,
        "suspend": True,
    }
    expected = Delivery(
        retries=5,
        backoff=Backoff(1, 3, 9, 0),
        max_age=60,
        on_success=Destination(function="next"),
        on_failure=Destination(url="https://a.example/x"),
        result_seconds=0,
        suspend=True,
    )
    assert parse_function(resource(given)).spec.delivery == expected


def test_nothing_is_the_default() -> None:
    assert parse_function(resource()).spec.delivery == DEFAULT_DELIVERY


def test_faults_have_their_paths() -> None:
    with pytest.raises(SpecError) as caught:
        parse_function(
            resource({"retries": -1, "backoff": {"second": 1}, "onFailure": {"subject": "a.*"}, "batch": {}})
        )
    assert {problem.field for problem in caught.value.problems} == {
        "spec.async.retries",
        "spec.async.backoff.second",
        "spec.async.onFailure.subject",
        "spec.async.batch",
    }


def test_functions_that_say_the_same_share_it() -> None:
    """Ten thousand entries of the gateway."""
    first, second = (Entry.of(parse_function(resource({"retries": 7}, name))) for name in ("a", "b"))
    assert first.delivery is second.delivery
    assert first.delivery.retries == 7


@pytest.mark.parametrize(
    ("attempts", "random", "seconds"),
    [
        pytest.param(1, 0.5, 60, id="first"),
        pytest.param(2, 0.5, 120, id="second"),
        pytest.param(7, 0.5, 3600, id="bounded"),
        pytest.param(100, 0.5, 3600, id="far beyond"),
        pytest.param(1, 0.0, 54, id="as early as can be"),
        pytest.param(1, 1.0, 66, id="as late as can be"),
    ],
)
def test_pauses(attempts: int, random: float, seconds: float) -> None:
    assert Backoff().pause(attempts, random) == pytest.approx(seconds)
