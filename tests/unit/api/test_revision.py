"""The revision id: changed by what runs, by nothing else."""

from dataclasses import replace

import pytest

from kappa_api.delivery import Delivery
from kappa_api.function import Archive, Auth, Code, FunctionSpec, Http, PodNeeds, Scaling
from kappa_api.revision import REVISION_LENGTH, revision_id
from kappa_api.routes import Route

SPEC = FunctionSpec(code=Code(files={"main.py": "x"}), runtime="python", handler="main.handler")
POD = PodNeeds()


def test_form() -> None:
    found = revision_id(SPEC)
    assert len(found) == REVISION_LENGTH
    assert int(found, 16) >= 0


def test_it_never_changes() -> None:
    """Another id for the same spec would replace every instance of every cluster at the next upgrade of Kappa."""
    assert revision_id(SPEC) == "df328ee1"


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, runtime="python3"),
        replace(SPEC, handler="main.other"),
        replace(SPEC, signature="asgi"),
        replace(SPEC, code=Code(files={"main.py": "y"})),
        replace(SPEC, code=Code(files={"other.py": "x"})),
        replace(SPEC, code=Code(config_map="c")),
        replace(SPEC, code=Code(archive=Archive("https://a/b", "0" * 64))),
        replace(SPEC, code=Code(image="x")),
        replace(SPEC, code=Code(image="x", command=("a",))),
        replace(SPEC, code=Code(image="x", args=("a",))),
        replace(SPEC, pod=replace(POD, env=({"name": "A", "value": "1"},))),
        replace(SPEC, pod=replace(POD, env_from=({"secretRef": {"name": "s"}},))),
        replace(SPEC, pod=replace(POD, resources={"limits": {"cpu": 1}})),
        replace(SPEC, pod=replace(POD, volumes=({"name": "v"},))),
        replace(SPEC, pod=replace(POD, volume_mounts=({"name": "v", "mountPath": "/v"},))),
        replace(SPEC, pod=replace(POD, service_account_name="robot")),
        replace(SPEC, timeout_seconds=31),
        replace(SPEC, concurrency=2),
    ],
    ids=repr,
)
def test_what_runs_changes_it(other: FunctionSpec) -> None:
    assert revision_id(other) != revision_id(SPEC)


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, scaling=Scaling(1, 2, 3)),
        replace(SPEC, http=Http((Route("/x"),), Auth(), True, 7)),
        replace(SPEC, code=Code(files=dict(reversed({"main.py": "x"}.items())))),
        replace(SPEC, delivery=Delivery(retries=9)),
    ],
    ids=repr,
)
def test_the_rest_does_not(other: FunctionSpec) -> None:
    assert revision_id(other) == revision_id(SPEC)


def test_content_counts_where_the_spec_only_points() -> None:
    spec = replace(SPEC, code=Code(config_map="c"))
    assert revision_id(spec, "one") != revision_id(spec, "two")


def test_archive_counts_by_its_digest() -> None:
    one, two = (replace(SPEC, code=Code(archive=Archive(url, "0" * 64))) for url in ("https://a/x", "https://b/y"))
    assert revision_id(one) == revision_id(two)
