"""`source.postgres` and `source.redis` as the API server holds them: each fault with its field and its remedy."""

from typing import Any

import pytest

from kappa_api.errors import SpecError
from kappa_api.sources.postgres import Postgres
from kappa_api.sources.redis import Redis
from kappa_api.trigger import parse_trigger

REF = {"secretRef": {"name": "db"}}


def parsed(kind: str, source: dict[str, Any]) -> Any:
    spec = {"function": "f", "source": {kind: source}}
    return parse_trigger({"metadata": {"name": "t", "namespace": "n"}, "spec": spec}).source


@pytest.mark.parametrize(
    ("kind", "source", "found"),
    [
        ("postgres", {"tables": ["orders"]}, Postgres("db", tables=(("public", "orders"),))),
        ("postgres", {"tables": ["S.a.b"]}, Postgres("db", tables=(("S", "a.b"),))),
        (
            "postgres",
            {"tables": ["t"], "operations": ["truncate", "insert"], "slot": "s", "publication": "P"},
            Postgres("db", (("public", "t"),), ("insert", "truncate"), publication="P", slot="s"),
        ),
        ("postgres", {"channels": ["a", "B c"]}, Postgres("db", channels=("a", "B c"))),
        ("redis", {"stream": "a:b"}, Redis("db", "a:b")),
        ("redis", {"stream": "a", "start": "all", "group": "g"}, Redis("db", "a", "all", "g")),
    ],
)
def test_good(kind: str, source: dict[str, Any], found: Any) -> None:
    assert parsed(kind, REF | source) == found


@pytest.mark.parametrize(
    ("kind", "source", "field"),
    [
        ("postgres", REF, "spec.source.postgres: must have exactly one of tables and channels"),
        ("postgres", REF | {"tables": ["a"], "channels": ["b"]}, "must have exactly one of tables and channels"),
        ("postgres", {"tables": ["a"]}, "postgres.secretRef.name: is required"),
        ("postgres", REF | {"tables": []}, "postgres.tables: must name at least one"),
        ("postgres", REF | {"tables": ["a.", '"a"', ".b"]}, "postgres.tables[2]"),
        ("postgres", REF | {"tables": ["x" * 64]}, "at most 63 bytes"),
        ("postgres", REF | {"tables": ["a", "public.a"]}, "must not name anything twice"),
        ("postgres", REF | {"tables": ["a"], "operations": ["drop"]}, "operations[0]: 'drop' is not supported"),
        ("postgres", REF | {"tables": ["a"], "slot": "Big"}, "postgres.slot: 'Big' is not valid"),
        ("postgres", REF | {"channels": ["a"], "operations": ["insert"]}, "operations: has no meaning with channels"),
        ("postgres", REF | {"tables": [f"t{n}" for n in range(201)]}, "at most 200"),
        ("redis", REF, "redis.stream: is required"),
        ("redis", REF | {"stream": "s", "start": "middle"}, "redis.start: 'middle' is not supported"),
        ("redis", REF | {"stream": "s", "nothing": 1}, "redis.nothing: is not a field"),
    ],
)
def test_bad(kind: str, source: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        parsed(kind, source)
    assert field in str(caught.value)
