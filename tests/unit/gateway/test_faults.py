"""When waiting for a function is in vain."""

from typing import Any

import pytest

from kappa_gateway.faults import fault_of

FAILED = {"type": "Ready", "status": "False", "reason": "LoadFailed", "message": "ImportError: x"}


def resource(generation: int = 2, observed: int = 2, active: str = "", **condition: str) -> dict[str, Any]:
    status = {"observedGeneration": observed, "activeRevision": active, "conditions": [{**FAILED, **condition}]}
    return {"metadata": {"generation": generation}, "status": status}


def test_a_function_that_never_loaded_says_why() -> None:
    assert fault_of(resource()) == "the function cannot run (LoadFailed): its status says why"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"metadata": {"generation": 1}}, id="no status yet"),
        pytest.param(resource(generation=3), id="the spec was changed since"),
        pytest.param(resource(active="abc"), id="an older revision can serve"),
        pytest.param(resource(status="Unknown", reason="Loading"), id="still loading"),
        pytest.param(resource(reason="ErrImagePull"), id="tried again by itself"),
        pytest.param(resource(type="Serving"), id="another condition"),
    ],
)
def test_otherwise_a_call_may_wait(given: dict[str, Any]) -> None:
    assert fault_of(given) == ""
