"""Event patterns: each matcher, lists in events, $or, what is refused and where; and against a naive evaluation."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_api.patterns import MAX_DEPTH, PatternError, compile_pattern

EVENT = {
    "type": "order.placed",
    "source": "/shop/berlin",
    "data": {
        "total": 12.5,
        "count": 3,
        "open": True,
        "note": None,
        "city": "Berlin",
        "address": "10.1.2.3",
        "tags": ["new", "Gift"],
        "none": [],
        "lines": [{"item": "apple", "n": 2}, {"item": "pear", "n": 9}],
        "deep": {"er": {"x": "y"}},
    },
}

MATCHES = [
    ({"type": ["order.placed"]}, True),
    ({"type": ["other", "order.placed"]}, True),
    ({"type": ["order"]}, False),
    ({"type": [{"prefix": "order."}], "source": [{"suffix": "/berlin"}]}, True),
    ({"type": [{"prefix": "order."}], "source": [{"suffix": "/paris"}]}, False),
    ({"data": {"city": [{"prefix": {"equals-ignore-case": "BER"}}]}}, True),
    ({"data": {"city": [{"suffix": {"equals-ignore-case": "LIN"}}]}}, True),
    ({"data": {"city": [{"equals-ignore-case": "bERLIN"}]}}, True),
    ({"data": {"city": [{"wildcard": "B*l*n"}]}}, True),
    ({"data": {"city": [{"wildcard": "B*x*n"}]}}, False),
    ({"data": {"city": [{"wildcard": "Berlin"}]}}, True),
    ({"data": {"total": [12.5]}}, True),
    ({"data": {"count": [3.0]}}, True),
    ({"data": {"count": ["3"]}}, False),
    ({"data": {"count": [True]}}, False),
    ({"data": {"open": [True]}}, True),
    ({"data": {"open": [1]}}, False),
    ({"data": {"note": [None]}}, True),
    ({"data": {"missing": [None]}}, False),
    ({"data": {"total": [{"numeric": [">", 12, "<=", 12.5]}]}}, True),
    ({"data": {"total": [{"numeric": ["<", 12.5]}]}}, False),
    ({"data": {"open": [{"numeric": [">", 0]}]}}, False),
    ({"data": {"total": [{"numeric": ["=", 12.5]}]}}, True),
    ({"data": {"city": [{"exists": True}]}}, True),
    ({"data": {"city": [{"exists": False}]}}, False),
    ({"data": {"missing": [{"exists": False}]}}, True),
    ({"data": {"missing": {"too": [{"exists": False}]}}}, True),
    ({"data": {"city": {"too": [{"exists": False}]}}}, True),
    ({"data": {"none": [{"exists": True}]}}, True),
    ({"data": {"none": ["a"]}}, False),
    ({"data": {"deep": [{"exists": True}]}}, True),
    ({"data": {"deep": {"er": {"x": ["y"]}}}}, True),
    ({"data": {"tags": ["new"]}}, True),
    ({"data": {"tags": [{"equals-ignore-case": "gift"}]}}, True),
    ({"data": {"tags": ["old"]}}, False),
    ({"data": {"tags": [{"anything-but": "new"}]}}, True),
    ({"data": {"tags": [{"anything-but": ["new", "Gift"]}]}}, False),
    ({"data": {"city": [{"anything-but": ["Paris", "Rome"]}]}}, True),
    ({"data": {"city": [{"anything-but": {"prefix": "Ber"}}]}}, False),
    ({"data": {"city": [{"anything-but": {"prefix": ["X", "Ber"]}}]}}, False),
    ({"data": {"city": [{"anything-but": {"suffix": "x"}}]}}, True),
    ({"data": {"city": [{"anything-but": {"equals-ignore-case": "BERLIN"}}]}}, False),
    ({"data": {"city": [{"anything-but": {"wildcard": "*lin"}}]}}, False),
    ({"data": {"count": [{"anything-but": [3]}]}}, False),
    ({"data": {"missing": [{"anything-but": "x"}]}}, False),
    ({"data": {"deep": [{"anything-but": "x"}]}}, False),
    ({"data": {"address": [{"cidr": "10.1.0.0/16"}]}}, True),
    ({"data": {"address": [{"cidr": "10.2.0.0/16"}]}}, False),
    ({"data": {"city": [{"cidr": "10.2.0.0/16"}]}}, False),
    # All below a list of objects must match in the same object
    ({"data": {"lines": {"item": ["apple"], "n": [{"numeric": ["<", 5]}]}}}, True),
    ({"data": {"lines": {"item": ["apple"], "n": [{"numeric": [">", 5]}]}}}, False),
    ({"data": {"lines": {"item": ["pear"], "n": [{"numeric": [">", 5]}]}}}, True),
    ({"$or": [{"type": ["x"]}, {"data": {"count": [3]}}]}, True),
    ({"$or": [{"type": ["x"]}, {"data": {"count": [4]}}]}, False),
    ({"source": ["elsewhere"], "$or": [{"type": ["order.placed"]}, {"type": ["x"]}]}, False),
    ({"data": {"$or": [{"city": ["Rome"]}, {"count": [3]}]}}, True),
]


@pytest.mark.parametrize(("pattern", "expected"), MATCHES, ids=[str(pattern) for pattern, _ in MATCHES])
def test_matching(pattern: Any, expected: bool) -> None:
    assert compile_pattern(pattern).matches(EVENT) is expected


REFUSED = [
    ([], "", "must be an object, not a list"),
    ({}, "", "must not be empty"),
    ({"detail-type": ["x"]}, "detail-type", "no attribute of a CloudEvent"),
    ({"type": "x"}, "type", "must be a list of values"),
    ({"type": []}, "type", "at least one item"),
    ({"type": [["x"]]}, "type[0]", "not a list"),
    ({"data": {"a": {"b": [{"prefixx": "x"}]}}}, "data.a.b[0].prefixx", "is no matcher"),
    ({"data": {"a": [{"prefix": 1}]}}, "data.a[0].prefix", "must be a text, not a number"),
    ({"data": {"a": [{"prefix": ""}]}}, "data.a[0].prefix", "must not be empty"),
    ({"data": {"a": [{"prefix": {"suffix": "x"}}]}}, "data.a[0].prefix", "equals-ignore-case"),
    ({"data": {"a": [{"prefix": "a", "suffix": "b"}]}}, "data.a[0]", "exactly one of"),
    ({"data": {"a": [1, {"numeric": [">"]}]}}, "data.a[1].numeric", "must be a list such as"),
    ({"data": {"a": [{"numeric": ["~", 1]}]}}, "data.a[0].numeric[0]", "is no comparison"),
    ({"data": {"a": [{"numeric": [">", "1"]}]}}, "data.a[0].numeric[1]", "must be a number"),
    ({"data": {"a": [{"numeric": [">", 5, "<", 1]}]}}, "data.a[0].numeric", "must be a range"),
    ({"data": {"a": [{"numeric": [">", 5, "<", 5]}]}}, "data.a[0].numeric", "must be a range"),
    ({"data": {"a": [{"exists": "yes"}]}}, "data.a[0].exists", "true or false"),
    ({"data": {"a": [{"anything-but": []}]}}, "data.a[0].anything-but", "at least one item"),
    ({"data": {"a": [{"anything-but": {"numeric": [">", 1]}}]}}, "data.a[0].anything-but", "exactly one of"),
    ({"data": {"a": [{"anything-but": {"prefix": 1}}]}}, "data.a[0].anything-but.prefix", "must be a text"),
    ({"data": {"a": [{"cidr": "nowhere"}]}}, "data.a[0].cidr", "no network"),
    ({"data": {"a": [{"wildcard": "a**b"}]}}, "data.a[0].wildcard", "**"),
    ({"$or": [{"type": ["x"]}]}, "$or", "at least two"),
    ({"data": {"$or": [{"a": [1]}, {"b": 1}]}}, "data.$or[1].b", "must be a list of values"),
    ({"data": {"a": [float("nan")]}}, "data.a[0]", "finite"),
]


@pytest.mark.parametrize(("pattern", "path", "message"), REFUSED, ids=[str(pattern) for pattern, _, _ in REFUSED])
def test_refusals_name_the_path(pattern: Any, path: str, message: str) -> None:
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    assert caught.value.path == path
    assert message in caught.value.message


def test_size_is_bounded() -> None:
    deep: Any = {"x": [1]}
    for _ in range(MAX_DEPTH + 1):
        deep = {"x": deep}
    with pytest.raises(PatternError, match="levels deep"):
        compile_pattern({"data": deep})
    with pytest.raises(PatternError, match="more than 500"):
        compile_pattern({"data": {"x": list(range(501))}})


def test_lists_in_lists_without_end_do_not_match() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    assert compile_pattern({"data": {"a": ["x"]}}).matches({"data": {"a": value}}) is False


# --- against an evaluation that shares nothing with the compiled one --------------------------------------------------
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "ab", "B", "ba"]))
KEYS = st.sampled_from(["a", "b"])
VALUES = st.recursive(SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=2))
TEXTS = st.sampled_from(["a", "b", "ab"])
ITEMS = st.one_of(
    SCALARS,
    st.builds(lambda text: {"prefix": text}, TEXTS),
    st.builds(lambda text: {"suffix": text}, TEXTS),
    st.builds(lambda flag: {"exists": flag}, st.booleans()),
    st.builds(lambda values: {"anything-but": values}, st.lists(SCALARS, min_size=1, max_size=2)),
    st.builds(lambda low: {"numeric": [">=", low, "<", low + 2]}, st.integers(-2, 2)),
)
LEAVES = st.lists(ITEMS, min_size=1, max_size=3)
PATTERNS = st.recursive(
    st.dictionaries(KEYS, LEAVES, min_size=1, max_size=2),
    lambda below: st.dictionaries(KEYS, LEAVES | below, min_size=1, max_size=2),
    max_leaves=5,
)
GONE = object()


def naive(pattern: Any, value: Any) -> bool:
    if isinstance(value, list) and value:
        return any(naive(pattern, item) for item in value)
    for key, below in pattern.items():
        found = value.get(key, GONE) if isinstance(value, dict) else GONE
        if isinstance(below, dict):
            if not naive(below, found):
                return False
        elif not any(item_matches(item, found) for item in below):
            return False
    return True


def flat(value: Any) -> list[Any]:
    return [x for item in value for x in flat(item)] if isinstance(value, list) else [value]


def same(wanted: Any, found: Any) -> bool:
    return type(wanted) is type(found) and wanted == found


def item_matches(item: Any, found: Any) -> bool:
    if isinstance(item, dict):
        ((name, argument),) = item.items()
        if name == "exists":
            return (found is not GONE) == argument
        values = [] if found is GONE else flat(found)
        if name == "anything-but":
            return any(not isinstance(v, dict) and not any(same(w, v) for w in argument) for v in values)
        if name == "numeric":
            return any(type(v) is int and argument[1] <= v < argument[3] for v in values)
        ask = str.startswith if name == "prefix" else str.endswith
        return any(isinstance(v, str) and ask(v, argument) for v in values)
    return found is not GONE and any(same(item, v) for v in flat(found))


@given(PATTERNS, VALUES)
def test_as_a_naive_evaluation(pattern: Any, value: Any) -> None:
    assert compile_pattern({"data": pattern}).matches({"data": value}) == naive(pattern, value)
