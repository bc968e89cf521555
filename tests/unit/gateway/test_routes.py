"""Routing: names in the path, host templates, precedence, and paths that try to be something else."""

from typing import Any

import pytest

from kappa_api.routes import Route
from kappa_gateway.errors import GatewayError
from kappa_gateway.routes import Entry, RouteTable, check_path, split_function_path


@pytest.mark.parametrize(
    ("target", "key", "rest"),
    [
        ("/fn/a/b", "a/b", "/"),
        ("/fn/a/b/", "a/b", "/"),
        ("/fn/a/b/c/d?e=/f", "a/b", "/c/d?e=/f"),
        ("/fn/a/b?c=/d", "a/b", "/?c=/d"),
        ("/fn/a/b//c", "a/b", "//c"),
        ("/fn/a%2Fb/c", "a%2Fb/c", "/"),
        ("/fn//b", "/b", "/"),
        ("/fn/a", "a", "/"),
        ("/fn/", "", "/"),
        ("/fn/a?b=/c/d", "a?b=/c", "/d"),
    ],
)
def test_split(target: str, key: str, rest: str) -> None:
    assert split_function_path(target) == (key, rest)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/a/b?c=../d", None),
        ("/a/..b/c.", None),
        ("/.well-known/x", None),
        ("/a%20b", None),
        ("/a//b", None),
        ("/x/_kappa/y", None),
        ("/_kappax", None),
        ("/a/../b", "bad_request"),
        ("/a/./b", "bad_request"),
        ("/a/%2e%2E/b", "bad_request"),
        ("/a%2f..%2fb", "bad_request"),
        ("/a\\..\\b", "bad_request"),
        ("/a/%5c../b", None),
        ("/..", "bad_request"),
        ("/_kappa/revision", "not_found"),
        ("/_kappa", "not_found"),
        ("/_kappa?x", "not_found"),
        ("//_kappa/drain", "not_found"),
        ("/%5fkappa/drain", "not_found"),
        ("/%2f_kappa/drain", "not_found"),
    ],
)
def test_check_path(target: str, code: str | None) -> None:
    if code is None and target != "/a/%5c../b":
        check_path(target)
        return
    with pytest.raises(GatewayError) as refused:
        check_path(target)
    assert refused.value.code == (code or "bad_request")


def entry(key: str, *routes: Route, created: str = "2024-01-01T00:00:00Z") -> Entry:
    return Entry(key, created, 30.0, 1, routes=routes)


def find(table: RouteTable, host: str, path: str, method: str = "GET") -> Any:
    try:
        match = table.find(host, method, path)
    except GatewayError as error:
        return error.code
    return match.key, dict(match.parameters)


def test_templates_and_precedence() -> None:
    table = RouteTable(
        [
            entry("n/root", Route("/", "a.org")),
            entry("n/item", Route("/items/{id}", "a.org")),
            entry("n/new", Route("/items/new", "a.org")),
            entry("n/part", Route("/items/{id}/parts/{part}", "a.org")),
            entry("n/rest", Route("/items/{path+}", "a.org")),
            entry("n/wild", Route("/{path+}", "*.a.org")),
            entry("n/deep", Route("/{path+}", "*.b.a.org")),
            entry("n/any", Route("/any/{x}")),
        ]
    )
    rows = {
        ("a.org", "/"): ("n/root", {}),
        ("a.org", "/items/7"): ("n/item", {"id": "7"}),
        ("a.org", "/items/a%2Fb%20c"): ("n/item", {"id": "a/b c"}),
        ("a.org", "/items/new"): ("n/new", {}),
        ("a.org", "/items/7/parts/8"): ("n/part", {"id": "7", "part": "8"}),
        ("a.org", "/items/7/other"): ("n/rest", {"path": "7/other"}),
        ("a.org", "/items/"): "not_found",
        ("a.org", "/items"): "not_found",
        ("a.org", "/any/1"): ("n/any", {"x": "1"}),
        ("other.org", "/any/1"): ("n/any", {"x": "1"}),
        ("other.org", "/items/7"): "not_found",
        ("x.a.org", "/anything/at/all"): ("n/wild", {"path": "anything/at/all"}),
        ("y.x.a.org", "/q"): ("n/wild", {"path": "q"}),
        ("x.b.a.org", "/q"): ("n/deep", {"path": "q"}),
        ("b.a.org", "/q"): ("n/wild", {"path": "q"}),
        ("x.a.org", "/"): "not_found",
        ("", "/any/1"): ("n/any", {"x": "1"}),
    }
    assert {row: find(table, *row) for row in rows} == rows


def test_methods() -> None:
    table = RouteTable(
        [
            entry("n/read", Route("/x", "a.org", ("GET", "HEAD"))),
            entry("n/write", Route("/x", "a.org", ("POST",))),
            entry("n/rest", Route("/{p+}", "", ("DELETE",))),
        ]
    )
    assert find(table, "a.org", "/x") == ("n/read", {})
    assert find(table, "a.org", "/x", "POST") == ("n/write", {})
    assert find(table, "a.org", "/x", "DELETE") == ("n/rest", {"p": "x"})
    with pytest.raises(GatewayError) as refused:
        table.find("a.org", "PUT", "/x")
    assert (refused.value.code, refused.value.allow) == ("method_not_allowed", "DELETE, GET, HEAD, POST")


def test_the_oldest_function_has_a_route() -> None:
    old = entry("n/z-old", Route("/x/{a}", "a.org"), created="2024-01-01T00:00:00Z")
    new = entry("n/a-new", Route("/x/{b}", "a.org"), Route("/y", "a.org"), created="2024-01-02T00:00:00Z")
    table = RouteTable([new, old])
    assert find(table, "a.org", "/x/1") == ("n/z-old", {"a": "1"})
    assert find(table, "a.org", "/y") == ("n/a-new", {})
    assert repr(table) == "<RouteTable hosts=['a.org'] conflicts=1>"
    assert find(RouteTable([new]), "a.org", "/x/1") == ("n/a-new", {"b": "1"})


def test_parameters_cannot_make_header_lines() -> None:
    table = RouteTable([entry("n/f", Route("/{path+}"))])
    match = table.find("", "GET", "/a%0d%0aset-cookie:%20x/%C3%A9&=")
    assert match.lines() == (
        b"kappa-route: /{path+}\r\nkappa-path-parameters: path=a%0D%0Aset-cookie%3A+x%2F%C3%A9%26%3D\r\n"
    )
