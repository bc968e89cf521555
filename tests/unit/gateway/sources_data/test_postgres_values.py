"""PostgreSQL's text to JSON: exact where JSON can be, else as printed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_gateway.events.sources.postgres_values import read_array, to_json

TEXT, INT, NUMERIC = 25, 23, 1700


@pytest.mark.parametrize(
    ("oid", "text", "value"),
    [
        (16, "t", True),
        (16, "f", False),
        (21, "-5", -5),
        (20, "9007199254740993", 9007199254740993),
        (701, "1.5", 1.5),
        (701, "NaN", "NaN"),
        (701, "-Infinity", "-Infinity"),
        (1700, "12.3400", "12.3400"),
        (1700, "NaN", "NaN"),
        (17, "\\x00ff", "AP8="),
        (114, '{"a": [1, null]}', {"a": [1, None]}),
        (3802, "1e400", "1e400"),
        (114, "{broken", "{broken"),
        (1114, "2024-05-01 10:00:00.5", "2024-05-01T10:00:00.5"),
        (1184, "2024-05-01 10:00:00+00", "2024-05-01T10:00:00Z"),
        (1184, "infinity", "infinity"),
        (1184, "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
        (1082, "2024-05-01", "2024-05-01"),
        (1186, "P1DT2H", "P1DT2H"),
        (2950, "6f1e...", "6f1e..."),
        (99999, "an enum's label", "an enum's label"),
        (1007, "{1,NULL,3}", [1, None, 3]),
        (1007, "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        (1007, "[0:1]={5,6}", [5, 6]),
        (1009, '{a,"b c","NULL",NULL,"q\\"\\\\,}"}', ["a", "b c", "NULL", None, 'q"\\,}']),
        (1009, "{}", []),
        (1231, "{1.10,NaN}", ["1.10", "NaN"]),
        (3807, '{"{\\"a\\": 1}"}', [{"a": 1}]),
        (1009, "{broken", "{broken"),
    ],
)
def test_values(oid: int, text: str, value: Any) -> None:
    found = to_json(oid, text)
    assert found == value
    assert type(found) is type(value)


def rendered(value: Any) -> str:
    """An array as PostgreSQL's array_out prints it, with everything quoted that may be."""
    if isinstance(value, list):
        return "{" + ",".join(map(rendered, value)) + "}"
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.recursive(st.lists(st.none() | st.text(), max_size=4), lambda inner: st.lists(inner, min_size=1, max_size=3)))
def test_arrays_of_text_come_back(value: list[Any]) -> None:
    assert read_array(rendered(value), TEXT) == value


@given(st.sampled_from([16, 17, 20, 21, 23, 114, 700, 701, 1007, 1009, 1114, 1184, 1231, 1700, 3802, 3807]), st.text())
def test_nothing_raises_and_everything_is_json(oid: int, text: str) -> None:
    json.dumps(to_json(oid, text), allow_nan=False)


def test_depth_is_no_way_to_stop_the_source() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert to_json(114, deep) == deep
    assert to_json(1009, "{" * 100_000) == "{" * 100_000
