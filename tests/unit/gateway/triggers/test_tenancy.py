"""Which subjects, topics and names a namespace may use, row by row."""

import pytest

from kappa_gateway.events.tenancy import name_problem, subject_problem, topic_problem

SHARED = ("telemetry.>", "public", "plant.hall1.")


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("team.orders", True),
        ("team.>", True),
        ("team.*.x", True),
        ("team", False),
        ("teams.orders", False),
        ("team-b.orders", False),
        (">", False),
        ("*.orders", False),
        ("", False),
        ("kappa.work.>", False),
        ("kappa", False),
        ("$JS.API.>", False),
        ("_INBOX.x", False),
        ("telemetry.x", True),
        ("telemetry.>", True),
        ("telemetryx.y", False),
        ("public", True),
        ("public.x", True),
        ("plant.hall1.oven", True),
        ("plant.hall2.oven", False),
        ("plant.>", False),
    ],
)
def test_subjects(subject: str, allowed: bool) -> None:
    assert (subject_problem("team", subject, SHARED) == "") is allowed


def test_what_is_the_platforms_cannot_be_shared() -> None:
    for subject in ("kappa.work.x", "$SYS.x", "_INBOX.x"):
        assert subject_problem("team", subject, ("kappa", "$SYS", "_INBOX"))
    assert subject_problem("kappa", "kappa.work.async.team.f")


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("team/oven/1", True),
        ("team/#", True),
        ("team/+/x", True),
        ("team", False),
        ("+/x", False),
        ("#", False),
        ("team-b/x", False),
        ("$SYS/x", False),
        ("kappa/x", False),
        ("telemetry/x", True),
        ("plant/hall1/x", True),
        ("plant/hall2/x", False),
        ("team/a.b", False),
    ],
)
def test_topics(topic: str, allowed: bool) -> None:
    assert (topic_problem("team", topic, SHARED) == "") is allowed


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("team_stock", True),
        ("team-b_stock", False),
        ("team-stock", False),
        ("team", False),
        ("", False),
        ("KAPPA_WORK", False),
        ("kappa-state", False),
        ("kappa-owners", False),
        ("KV_kappa-state", False),
        ("OBJ_kappa-bodies", False),
        ("$G", False),
        ("public", True),
        ("public_files", True),
        ("publicity", False),
    ],
)
def test_names_of_streams_and_buckets(name: str, allowed: bool) -> None:
    assert (name_problem("team", name, SHARED) == "") is allowed


def test_a_namespace_that_is_the_beginning_of_another_one_gets_nothing_of_it() -> None:
    assert name_problem("a", "a-b_x")
    assert not name_problem("a-b", "a-b_x")
    assert subject_problem("a", "a-b.x")


@pytest.mark.parametrize(
    ("name", "allowed"), [("kappa-apps_orders", True), ("kappa-state", False), ("kappa-keys", False)]
)
def test_a_namespace_may_begin_like_the_platforms_own_buckets(name: str, allowed: bool) -> None:
    assert (name_problem("kappa-apps", name, ("kappa-keys",)) == "") is allowed
    assert name_problem("kappa", "kappa_work")
