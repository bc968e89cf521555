"""Max-min fairness, quotas, the cap on idle memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_operator.autoscaler.share import Claim, IdleInstance, Limit, over_memory, share

ROWS = {
    # claims, quotas, capacity, most per function that is limited
    "room for all": ([Claim("a/x", 5), Claim("b/y", 5)], {}, 10, {}),
    "not known to be full": ([Claim("a/x", 500)], {}, None, {}),
    "the hog is cut, the small one is not": ([Claim("a/hog", 100), Claim("b/one", 1)], {}, 10, {"a/hog": 9}),
    "equals share": ([Claim("a/x", 100), Claim("b/y", 100)], {}, 10, {"a/x": 5, "b/y": 5}),
    "what cannot be halved goes by name": ([Claim("a/x", 9), Claim("b/y", 9)], {}, 3, {"a/x": 2, "b/y": 1}),
    "busy ones stay": ([Claim("a/x", 9, busy=8), Claim("b/y", 9)], {}, 10, {"a/x": 8, "b/y": 2}),
    "more busy than there is room": ([Claim("a/x", 9, busy=8), Claim("b/y", 9)], {}, 4, {"a/x": 7, "b/y": 1}),
    "no first one where there is none for each": ([Claim("a/x", 9, busy=1), Claim("b/y", 1)], {}, 1,
                                                  {"a/x": 1, "b/y": 0}),
    "a first one comes before promises": ([Claim("a/x", 9, least=9), Claim("b/y", 1)], {}, 9, {"a/x": 8}),
    "idle ones give way to calls": ([Claim("a/x", 1, idle=True), Claim("b/y", 9)], {}, 9, {"a/x": 0}),
    "idle ones keep what is left": ([Claim("a/x", 1, idle=True), Claim("b/y", 9)], {}, 10, {}),
    "those expected first stay": ([Claim("a/x", 1, idle=True, expected=0.1), Claim("b/y", 1, idle=True, expected=0.9)],
                                  {}, 1, {"a/x": 0}),
    "an idle one keeps what is promised": ([Claim("a/x", 3, least=2, idle=True), Claim("b/y", 9)], {}, 6,
                                           {"a/x": 2, "b/y": 4}),
    "a quota of none": ([Claim("a/x", 1)], {"a": 0}, None, {"a/x": 0}),
    "minReplicas before growth": ([Claim("a/x", 9), Claim("b/y", 4, least=4)], {}, 6, {"a/x": 2}),
    "a quota holds in its namespace": ([Claim("a/x", 9), Claim("a/y", 9), Claim("b/z", 9)], {"a": 4}, None,
                                       {"a/x": 2, "a/y": 2}),
    "a quota, then the cluster": ([Claim("a/x", 9), Claim("b/z", 9)], {"a": 4}, 6, {"a/x": 3, "b/z": 3}),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_share(row: tuple[list[Claim], dict[str, int], int | None, dict[str, int]]) -> None:
    claims, quotas, capacity, expected = row
    limits = share(claims, quotas, capacity)
    assert {key: limit.most for key, limit in limits.items()} == expected


def test_the_reasons_say_what_is_missing() -> None:
    limits = share([Claim("a/x", 9), Claim("b/z", 9)], {"a": 4}, 10)
    assert limits == {
        "a/x": Limit(4, "the quota of namespace a is 4 instances, 4 of them for this function", "NamespaceQuota"),
        "b/z": Limit(6, "the cluster is full (10 instances): the fair share is 6"),
    }


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(0, 5)), max_size=8),
    st.integers(0, 60),
)
def test_nobody_gets_more_while_one_who_wants_more_has_less(wants: list[tuple[int, int, int]], capacity: int) -> None:
    claims = [Claim(f"n/{i}", max(w, b), b, least) for i, (w, b, least) in enumerate(wants)]
    busy = sum(c.busy for c in claims)
    limits = share(claims, {}, capacity)
    got = {c.key: limits[c.key].most if c.key in limits else c.wanted for c in claims}
    free = capacity - sum(got.values())
    assert free >= 0 or sum(got.values()) == busy
    assert sum(got.values()) <= max(capacity, busy)
    holders = sum(n > 0 for n in got.values())
    for poor in claims:
        if got[poor.key] >= poor.wanted:
            continue
        assert free <= 0
        assert got[poor.key] or holders >= capacity
        for rich in claims:
            promised = max(rich.busy, min(rich.least, rich.wanted))
            assert got[rich.key] <= max(got[poor.key] + 1, promised)


def test_over_memory_lets_the_least_expected_go_first() -> None:
    idle = [
        IdleInstance("a/soon", 100, 50, expected=0.9),
        IdleInstance("a/old", 100, 50),
        IdleInstance("a/new", 100, 5),
    ]
    assert over_memory(idle, 300) == frozenset()
    assert over_memory(idle, 250) == {"a/old"}
    assert over_memory(idle, 100) == {"a/old", "a/new"}
    assert over_memory(idle, 0) == {"a/old", "a/new", "a/soon"}
