"""What one tenant can do to another's calls at the gateway: nothing, neither by routes nor by pods."""

from typing import Any

from kappa_gateway_rig import controller_reference

from kappa_api.routes import Route
from kappa_gateway.catalog import Catalog
from kappa_gateway.errors import GatewayError
from kappa_gateway.routes import Entry, RouteTable


# --- routes -----------------------------------------------------------------------------------------------------------
def entry(key: str, day: int, *routes: Route) -> Entry:
    return Entry(key, f"2024-01-{day:02}T00:00:00Z", 30.0, 1, routes=routes)


def who(table: RouteTable, host: str, path: str, method: str = "GET") -> str:
    try:
        return table.find(host, method, path).key
    except GatewayError as error:
        return error.code


def test_no_route_of_another_namespace_answers_on_a_host_that_is_taken() -> None:
    """Every path of a host is one origin to a browser: a page of another tenant there could read its cookies."""
    table = RouteTable(
        [
            entry("a/app", 1, Route("/hello", "api.a.org"), Route("/more")),
            entry("b/exact", 2, Route("/login", "api.a.org")),
            entry("b/wild", 3, Route("/evil", "*.a.org"), Route("/{rest+}", "*.org", ("POST",))),
            entry("b/any", 4, Route("/any"), Route("/{rest+}", "", ("DELETE",))),
            entry("a/any", 5, Route("/mine")),
        ]
    )
    rows = {
        ("api.a.org", "/hello"): "a/app",
        ("api.a.org", "/login"): "not_found",
        ("api.a.org", "/evil"): "not_found",
        ("api.a.org", "/any"): "not_found",
        ("api.a.org", "/mine"): "a/any",
        ("api.a.org", "/more"): "a/app",
        ("www.a.org", "/evil"): "b/wild",
        ("www.a.org", "/mine"): "method_not_allowed",  # of `DELETE` for any host
        ("www.a.org", "/any"): "b/any",
        ("else.com", "/any"): "b/any",
        ("else.com", "/mine"): "a/any",
    }
    assert {row: who(table, *row) for row in rows} == rows
    assert who(table, "api.a.org", "/hello", "POST") == "a/app"
    assert who(table, "api.a.org", "/x", "DELETE") == "not_found"  # not 405 either: that would tell of b's routes


def test_a_host_that_the_admin_shares() -> None:
    entries = [entry("a/app", 1, Route("/hello", "api.a.org")), entry("b/app", 2, Route("/login", "api.a.org"))]
    table = RouteTable([*entries, entry("c/any", 3, Route("/any"))], frozenset({"api.a.org"}))
    assert [who(table, "api.a.org", path) for path in ("/hello", "/login", "/any")] == ["a/app", "b/app", "c/any"]


# --- pods -------------------------------------------------------------------------------------------------------------
def catalog() -> Catalog:
    return Catalog(lambda: 0.0, routes_stale=lambda: None, instance_gone=lambda key: None)


def function(uid: str = "f1", namespace: str = "default") -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": "fn", "uid": uid, "generation": 1, "creationTimestamp": "2024"},
        "spec": {"runtime": "python", "handler": "main.handler", "code": {"inline": "x"}},
    }


def pod(name: str, *owners: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    labels = {"kappa.dev/function": "fn", "kappa.dev/state": "serving"}
    meta = {"namespace": namespace, "name": name, "labels": labels, "ownerReferences": list(owners)}
    return {"metadata": meta, "status": {"podIP": "10.0.0.9", "phase": "Running"}}


def instances(found: Catalog, key: str = "default/fn") -> set[str]:
    state = found.functions.get(key)
    return set(state.queue.instances) if state else set()


MINE = controller_reference("fn", "f1")


def test_labels_alone_make_no_instance() -> None:
    found = catalog()
    found.put_function(function())
    impostors = {
        "nobody": [],
        "not-controller": [{**MINE, "controller": False}],
        "other-kind": [{**MINE, "kind": "Runtime"}],
        "other-group": [{**MINE, "apiVersion": "apps/v1"}],
        "like-our-group": [{**MINE, "apiVersion": "kappa.dev.evil.org/v1"}],
        "other-name": [{**MINE, "name": "else"}],
        "other-uid": [{**MINE, "uid": "f0"}],
        "replica-set": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "fn", "uid": "f1", "controller": True}],
    }
    for name, owners in impostors.items():
        found.put_pod(pod(name, *owners))
    assert instances(found) == set()
    found.put_pod(pod("real", MINE))
    assert instances(found) == {"default/real"}


def test_a_pod_serves_only_its_own_namespace() -> None:
    found = catalog()
    found.put_function(function())
    found.put_function(function("f2", "evil"))
    found.put_pod(pod("p", MINE, namespace="evil"))
    assert instances(found) == instances(found, "evil/fn") == set()


def test_pods_of_an_earlier_function_of_the_same_name() -> None:
    found = catalog()
    found.put_pod(pod("early", MINE))  # pods may come before their Function
    assert instances(found) == {"default/early"}
    found.put_function(function("f1"))
    assert instances(found) == {"default/early"}
    found.put_pod(pod("next", controller_reference("fn", "f2")))  # its Function is yet to be seen
    assert instances(found) == {"default/early"}
    found.put_function(function("f2"))
    assert instances(found) == {"default/next"}
    found.remove_function("default/fn")
    found.put_function(function("f3"))
    assert instances(found) == set()


def test_a_pod_that_was_set_aside_is_forgotten_when_it_goes() -> None:
    found = catalog()
    found.put_function(function("f1"))
    found.put_pod(pod("p", controller_reference("fn", "f2")))
    assert list(found.pods()) == ["default/p"]
    found.remove_pod("default/p")
    assert list(found.pods()) == []
    found.put_function(function("f2"))
    assert instances(found) == set()


def test_an_instance_whose_owner_is_taken_away_serves_no_more() -> None:
    found = catalog()
    found.put_function(function())
    found.put_pod(pod("p", MINE))
    found.put_pod(pod("p"))
    assert instances(found) == set()
    assert list(found.pods()) == []
