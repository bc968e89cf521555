"""parse_runtime, and which functions cannot use its pool."""

from dataclasses import replace
from typing import Any

import pytest

from kappa_api.errors import SpecError
from kappa_api.function import Code, FunctionSpec, PodNeeds
from kappa_api.runtime import Pool, Runtime, own_pod_reason, parse_runtime

LIMITS = {"limits": {"memory": "256Mi"}}
PYTHON = Runtime("python", "u-1", "image:1", resources=LIMITS)
SPEC = FunctionSpec(code=Code(files={"main.py": ""}), runtime="python", handler="main.handler")


def test_everything() -> None:
    found = parse_runtime(
        {
            "metadata": {"name": "python", "uid": "u-1"},
            "spec": {
                "image": "image:1",
                "imagePullPolicy": "Always",
                "pool": {"min": 0, "max": 9},
                "resources": LIMITS,
            },
        }
    )
    assert found == Runtime("python", "u-1", "image:1", "Always", Pool(0, 9), LIMITS)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({}, ["spec.image"]),
        (None, ["spec.image"]),
        ({"image": "a b"}, ["spec.image"]),
        ({"image": "x", "imagePullPolicy": "Maybe"}, ["spec.imagePullPolicy"]),
        ({"image": "x", "pool": {"min": 6}}, ["spec.pool.min"]),
        ({"image": "x", "pool": {"min": -1, "top": 1}}, ["spec.pool.min", "spec.pool.top"]),
        ({"image": "x", "port": 80, "resources": []}, ["spec.resources", "spec.port"]),
    ],
)
def test_faults(spec: Any, fields: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_runtime({"metadata": {"name": "python"}, "spec": spec})
    assert [problem.field for problem in caught.value.problems] == fields
    assert caught.value.name == "python"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (SPEC, ""),
        (replace(SPEC, pod=PodNeeds(env=({"name": "A", "value": "1"},))), ""),
        (replace(SPEC, pod=PodNeeds(resources=LIMITS)), ""),
        (replace(SPEC, code=Code(image="x")), "code.image brings its own server"),
        (replace(SPEC, pod=PodNeeds(env=({"name": "A", "valueFrom": {}},))), "env uses valueFrom"),
        (replace(SPEC, pod=PodNeeds(env_from=({},))), "envFrom is set"),
        (replace(SPEC, pod=PodNeeds(volumes=({"name": "v"},))), "volumes are mounted"),
        (replace(SPEC, pod=PodNeeds(volume_mounts=({"name": "v"},))), "volumes are mounted"),
        (replace(SPEC, pod=PodNeeds(service_account_name="s")), "serviceAccountName is set"),
        (
            replace(SPEC, pod=PodNeeds(resources={"limits": {"memory": "1Gi"}})),
            "resources differ from those of the pool",
        ),
    ],
)
def test_own_pods(spec: FunctionSpec, reason: str) -> None:
    assert own_pod_reason(spec, PYTHON) == reason
