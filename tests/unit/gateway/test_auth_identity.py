"""What a function is told of its caller, whatever the caller is called; and the memory of verified callers."""

import base64
import json
import subprocess
import sys
from typing import Any
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st
from kappa_auth_world import http

from kappa_gateway.auth.cache import Cache, Digests
from kappa_gateway.auth.guard import Access
from kappa_gateway.auth.identity import Identity

Json = Any
JWT = {"issuer": "https://issuer.example", "audiences": ["api"]}
texts = st.text(st.characters(exclude_categories=("Cs",)))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)


@given(texts, st.dictionaries(texts, values))
def test_names_cannot_bring_header_lines(principal: str, facts: dict[str, Json]) -> None:
    identity = Identity.named("jwt", principal, facts)
    lines = identity.lines.decode("ascii").split("\r\n")
    assert lines.pop() == ""
    found = dict(line.split(": ", 1) for line in lines)
    assert list(found) == ["kappa-identity-type", "kappa-identity-principal", "kappa-identity-data"]
    assert all(" " <= c <= "~" for value in found.values() for c in value)
    assert unquote(found["kappa-identity-principal"]) == principal
    expected = {"lambda": {"principalId": principal, "type": "jwt", **facts}}
    assert json.loads(base64.urlsafe_b64decode(found["kappa-identity-data"])) == expected


def test_a_memory_is_bounded_and_forgets_in_time() -> None:
    cache: Cache[int] = Cache(3)
    for number in range(5):
        cache.put(b"%d" % number, number, until=10.0)
    assert [cache.get(b"%d" % number, 0.0) for number in range(5)] == [None, None, 2, 3, 4]
    assert len(cache) == 3
    cache.put(b"2", 20, until=20.0)  # renewed: now the youngest
    cache.put(b"5", 5, until=10.0)
    assert [cache.get(key, 9.9) for key in (b"2", b"3", b"4", b"5")] == [20, None, 4, 5]
    assert [cache.get(key, 10.0) for key in (b"2", b"4", b"5")] == [20, None, None]
    assert len(cache) == 1


def test_a_gateway_without_tokens_does_not_load_what_checks_them() -> None:
    """`cryptography` would be a sixth of the gateway's memory."""
    code = "import sys, kappa_gateway.main; print([m for m in ('jwt', 'cryptography') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_digests_are_of_their_owner() -> None:
    one, other = Digests(), Digests()
    assert one.of(b"x") == one.of(b"x") != one.of(b"y")
    assert one.of(b"x") != other.of(b"x")


# --- a spec that is not valid as a whole ------------------------------------------------------------------------------
def salvage(auth: Json, before: Access | None = None) -> Access | None:
    return Access.salvaged({"spec": {"runtime": 3, "http": {"auth": auth}}}, before)


def test_what_is_salvaged_of_a_broken_spec() -> None:
    assert salvage(None) is None
    assert salvage({"type": "none"}) is None
    good = salvage({"type": "jwt", "jwt": JWT})
    assert good is not None
    assert good.auth == http(auth={"type": "jwt", "jwt": JWT}).auth
    before = Access.of(http(cors={"allowOrigins": ["*"]}))
    assert before is not None
    kept = salvage({"type": "none"}, before)
    assert kept is not None
    assert kept.cors == before.cors


def test_what_cannot_be_understood_is_closed() -> None:
    for auth in ({"type": "basic"}, {"type": "jwt"}, {"type": "none", "more": 1}, "none", [], 3, {"type": ["none"]}):
        found = salvage(auth)
        assert found is not None
        assert found.verifier is not None
    for spec in ({"http": "none"}, {"http": ["x"]}):
        found = Access.salvaged({"spec": spec}, None)
        assert found is not None
        assert found.verifier is not None
    for resource in ({}, {"spec": None}, {"spec": "x"}, {"spec": []}):
        assert Access.salvaged(resource, None) is None
