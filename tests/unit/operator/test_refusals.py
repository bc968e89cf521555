"""Refused pods, quantities, and the settings that admins give: what they say, and what is said of nonsense."""

import pytest

from kappa_operator.quantity import parse_quantity
from kappa_operator.refusals import refusal
from kappa_operator.settings import Settings, SettingsError

#: As a Kubernetes API server words it.
REAL = (
    'pods "fn-abc" is forbidden: exceeded quota: team-a, requested: limits.memory=256Mi,pods=1, '
    "used: limits.memory=1Gi,pods=4, limited: limits.memory=1Gi,pods=4"
)


def test_a_used_up_quota_is_named_with_what_is_missing() -> None:
    assert refusal(REAL) == (
        "QuotaExceeded",
        "ResourceQuota team-a is used up: one more instance needs limits.memory=256Mi,pods=1; "
        "used limits.memory=1Gi,pods=4 of limits.memory=1Gi,pods=4",
    )


@pytest.mark.parametrize(
    "message",
    [
        'pods "x" is forbidden: failed quota: team-a: must specify limits.memory',
        'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged',
        "",
    ],
)
def test_other_refusals_keep_the_servers_words(message: str) -> None:
    assert refusal(message) == ("PodRefused", message)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("256Mi", 256 << 20),
        ("1G", 10**9),
        ("1.5Gi", 3 << 29),
        ("1e9", 10**9),
        ("512", 512),
        ("100m", 0),
        ("2Ei", 2 << 60),
        ("", 0),
        ("many", 0),
        ("Mi", 0),
        ("1Zi", 0),
        ("infE", 0),
    ],
)
def test_quantities(text: str, number: int) -> None:
    assert parse_quantity(text) == number


SECRET = {"KAPPA_PLATFORM_SECRET": "s" * 32}


def test_bounds_from_the_environment() -> None:
    env = {**SECRET, "KAPPA_MAX_INSTANCES_PER_NAMESPACE": "20", "KAPPA_IDLE_MEMORY_LIMIT": "4Gi"}
    found = Settings.from_env(env)
    assert (found.max_instances_per_namespace, found.idle_memory_bytes) == (20, 4 << 30)
    none = Settings.from_env(SECRET)
    assert (none.max_instances_per_namespace, none.idle_memory_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAPPA_MAX_INSTANCES_PER_NAMESPACE", "-1"),
        ("KAPPA_MAX_INSTANCES_PER_NAMESPACE", "some"),
        ("KAPPA_IDLE_MEMORY_LIMIT", "4 GB"),
        ("KAPPA_IDLE_MEMORY_LIMIT", "-4Gi"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({**SECRET, name: value})
