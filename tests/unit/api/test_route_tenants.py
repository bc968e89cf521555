"""Hosts between tenants: a named host belongs to the namespace whose Function named it first."""

import itertools

import pytest

from kappa_api.routes import Claim, Route, assign, is_shared, shared_hosts


def claim(owner: str, age: int, *routes: Route) -> Claim:
    return Claim(owner, f"2024-01-{age:02}T00:00:00Z", routes)


API, LOGIN = Route("/hello", "api.a.org"), Route("/login", "api.a.org")
WILD, DEEP, ANY = Route("/w", "*.a.org"), Route("/d", "*.api.a.org"), Route("/any")


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ([claim("a/one", 1, API), claim("a/two", 2, LOGIN)], {}),
        ([claim("a/one", 1, API), claim("b/two", 2, LOGIN)], {"b/two": "a/one"}),
        ([claim("b/one", 1, LOGIN), claim("a/two", 2, API)], {"a/two": "b/one"}),
        # The same age: names decide, in every gateway alike.
        ([claim("b/one", 1, LOGIN), claim("a/two", 1, API)], {"b/one": "a/two"}),
        # A wildcard keeps others off the hosts it covers, but takes none that another had before.
        ([claim("a/one", 1, WILD), claim("b/two", 2, API)], {"b/two": "a/one"}),
        ([claim("a/one", 1, WILD), claim("b/two", 2, DEEP)], {"b/two": "a/one"}),
        ([claim("a/one", 1, API), claim("b/two", 2, WILD)], {}),
        ([claim("a/one", 1, API), claim("b/two", 2, WILD), claim("a/three", 3, LOGIN)], {}),
        ([claim("a/one", 1, DEEP), claim("b/two", 2, API)], {}),
        # Routes for any host are nobody's in particular.
        ([claim("a/one", 1, ANY), claim("b/two", 2, Route("/other"))], {}),
        ([claim("a/one", 1, ANY), claim("b/two", 2, ANY)], {"b/two": "a/one"}),
        ([claim("a/one", 1, API), claim("b/two", 2, Route("/hello"))], {}),
    ],
)
def test_the_oldest_has_the_host(claims: list[Claim], refused: dict[str, str]) -> None:
    results = [assign(order) for order in itertools.permutations(claims)]
    assert all({c.owner: c.holder for c in conflicts} == refused for _, conflicts in results)
    assert all(owners == results[0][0] for owners, _ in results)


def test_a_conflict_says_whether_it_is_the_host() -> None:
    (whole,) = assign([claim("a/one", 1, API), claim("b/two", 2, LOGIN)])[1]
    (path,) = assign([claim("a/one", 1, API), claim("a/two", 2, API)])[1]
    assert (whole.whole_host, path.whole_host) == (True, False)


def test_shared_hosts() -> None:
    shared = shared_hosts(" api.a.org, *.Open.org ,")
    assert shared == {"api.a.org", "*.open.org"}
    claims = [claim("a/one", 1, API), claim("b/two", 2, LOGIN), claim("c/three", 3, API)]
    _, conflicts = assign(claims, shared)
    assert [(c.owner, c.holder, c.whole_host) for c in conflicts] == [("c/three", "a/one", False)]
    assert is_shared("", ())
    assert is_shared("x.open.org", shared)
    assert not is_shared("open.org", shared)
