"""What sources say that they leave elsewhere: what is Kappa's own and nothing else, where, and how it is removed."""

from types import SimpleNamespace
from typing import Any

import pytest
from kappa_trigger_world import trigger

from kappa_api.trigger import parse_trigger
from kappa_gateway.events.kinds import load_kind
from kappa_gateway.events.sources.postgres_setup import names_of
from kappa_gateway.events.state import Left

SECRETS = {
    "db": {"url": b"postgresql://me:hidden@db.example.org:5433/shop"},
    "r": {"url": b"redis://:hidden@r.example.org/3"},
}
GIVEN = SimpleNamespace(secret=SECRETS.get)


def trace(source: dict[str, Any], **spec: Any) -> Any:
    found = parse_trigger(trigger("t", source, uid="u", **spec))
    module: Any = load_kind(found.kind)
    return module.trace(found, GIVEN)


def rows(**fields: Any) -> dict[str, Any]:
    return {"postgres": {"secretRef": {"name": "db"}, "tables": ["a"], **fields}}


OWN = names_of(parse_trigger(trigger("t", rows(), uid="u"))).own
GROUP = "kappa-default-t-" + OWN.rpartition("_")[2]


@pytest.mark.parametrize(
    ("source", "spec", "place"),
    [
        (rows(), {}, ("db",)),
        (rows(slot="theirs"), {}, ("db",)),  # the publication is Kappa's
        (rows(slot="theirs", publication="theirs"), {}, None),
        (rows(slot=OWN, publication="theirs"), {}, ("db",)),
        ({"postgres": {"secretRef": {"name": "db"}, "channels": ["c"]}}, {}, None),
        ({"redis": {"secretRef": {"name": "r"}, "stream": "s"}}, {}, ("r", "s")),
        ({"redis": {"secretRef": {"name": "r"}, "stream": "s", "group": "theirs"}}, {}, None),
        ({"redis": {"secretRef": {"name": "r"}, "stream": "s", "group": GROUP}}, {}, ("r", "s")),
        ({"stream": {"stream": "default_s"}}, {}, ("", "default_s")),
        ({"stream": {"stream": "default_s"}}, {"ordered": {"key": "subject"}}, None),
        ({"mqtt": {"topics": ["default/a"]}}, {}, ("listener",)),
        ({"mqtt": {"topics": ["default/a"], "qos": 0}}, {}, None),
        ({"mqtt": {"topics": ["a"], "secretRef": {"name": "b"}}}, {}, ("broker", "b")),
    ],
)
def test_where_something_is_left(source: dict[str, Any], spec: dict[str, Any], place: Any) -> None:
    found = trace(source, **spec)
    assert (found.place if found else None) == place


def test_people_are_told_what_and_where_and_no_password() -> None:
    assert trace(rows()).text == (
        f"the replication slot {OWN}, for which the server keeps its log, and the publication {OWN}, in "
        f"postgresql://db.example.org:5433/shop: SELECT pg_drop_replication_slot('{OWN}'); "
        f"DROP PUBLICATION IF EXISTS {OWN};"
    )
    assert trace({"redis": {"secretRef": {"name": "r"}, "stream": "s"}}).text == (
        f"the consumer group {GROUP} of the stream s in redis://r.example.org:6379/3: XGROUP DESTROY s {GROUP}"
    )


def test_without_the_secret_it_is_named() -> None:
    found = trace({"postgres": {"secretRef": {"name": "nowhere"}, "tables": ["a"]}})
    assert "in the database that the Secret nowhere names" in found.text


def test_only_another_place_is_another_entry() -> None:
    def mark(source: dict[str, Any]) -> str:
        resource = trigger("t", source, uid="u")
        return Left.of(parse_trigger(resource), resource["spec"], trace(source)).mark

    assert mark(rows()) == mark(rows(tables=["a", "b"], operations=["insert"]))
    other = {"postgres": {"secretRef": {"name": "r"}, "tables": ["a"]}}
    assert len({mark(rows()), mark(other), mark({"stream": {"stream": "default_s"}})}) == 3
