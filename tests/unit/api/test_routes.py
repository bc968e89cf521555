"""Path templates and who owns a route."""

import itertools

import pytest

from kappa_api.routes import Claim, Conflict, Route, Segment, assign, host_problem, parse_template


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/", (Segment(""),)),
        ("/hello", (Segment("hello"),)),
        ("/hello/", (Segment("hello"), Segment(""))),
        ("/hello/{name}", (Segment("hello"), Segment("name", True))),
        ("/{a}/x/{b}", (Segment("a", True), Segment("x"), Segment("b", True))),
        ("/files/{path+}", (Segment("files"), Segment("path", True, True))),
        ("/a-b/~c/%20", (Segment("a-b"), Segment("~c"), Segment("%20"))),
    ],
)
def test_templates(path: str, segments: tuple[Segment, ...]) -> None:
    assert parse_template(path) == segments


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hello", "must begin with /"),
        ("", "must begin with /"),
        ("/{a}/{a}", "appears twice"),
        ("/{a+}/b", "must be the last segment"),
        ("/x{a}", "is not valid"),
        ("/{a-b}", "is not valid"),
        ("/a b", "is not valid"),
        ("/a?b", "is not valid"),
    ],
)
def test_bad_templates(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_template(path)


@pytest.mark.parametrize("host", ["a", "api.example.org", "*.example.org", "1.2.3.4", "a-b.c", "a" * 63])
def test_good_hosts(host: str) -> None:
    assert host_problem(host) == ""


@pytest.mark.parametrize(
    "host", ["", "API.example.org", "-a", "a-", "a..b", "*", "a.*.b", "a:80", "a/b", "a" * 64, "a." * 127 + "a"]
)
def test_bad_hosts(host: str) -> None:
    assert host_problem(host)


def claim(owner: str, created: int, *routes: Route) -> Claim:
    return Claim(f"default/{owner}", f"2026-01-01T00:00:{created:02}Z", routes)


A, A_GET, A_POST, B = Route("/a"), Route("/a", "", ("GET",)), Route("/a", "", ("POST",)), Route("/b")
X, Y = Route("/{x}", "h"), Route("/{y}", "h")


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ([], []),
        ([claim("one", 1, A), claim("two", 2, B)], []),
        ([claim("one", 1, A), claim("two", 2, A)], [("two", "one", A)]),
        ([claim("two", 1, A), claim("one", 2, A)], [("one", "two", A)]),
        ([claim("two", 1, A), claim("one", 1, A)], [("two", "one", A)]),
        ([claim("one", 1, A_GET), claim("two", 2, A_POST)], []),
        ([claim("one", 1, A_GET), claim("two", 2, A)], [("two", "one", A)]),
        ([claim("one", 1, A), claim("two", 2, A_GET)], [("two", "one", A_GET)]),
        ([claim("one", 1, X), claim("two", 2, Y)], [("two", "one", Y)]),
        ([claim("one", 1, A), claim("two", 2, Route("/a", "h"))], []),
        ([claim("one", 1, A, A_GET)], []),
        ([claim("one", 1, A), claim("two", 2, A, B)], [("two", "one", A)]),
        (
            [claim("one", 1, A_GET), claim("two", 2, A), claim("three", 3, A_POST)],
            [("two", "one", A)],
        ),
    ],
)
def test_oldest_has_it(claims: list[Claim], refused: list[tuple[str, str, Route]]) -> None:
    expected = tuple(Conflict(f"default/{owner}", f"default/{holder}", route) for owner, holder, route in refused)
    results = [assign(order) for order in itertools.permutations(claims)]
    assert {found for _, found in results} == {expected}
    owners = results[0][0]
    assert all(owner == owners for owner, _ in results)
    for entry in claims:
        for route in entry.routes:
            lost = any(conflict.owner == entry.owner and conflict.route == route for conflict in expected)
            keys = route.keys()
            for key in keys:
                assert (owners.get(key) == entry.owner) is not lost, key
