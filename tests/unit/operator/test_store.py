"""What the store keeps, and the work that each change causes."""

from typing import Any

from kappa_operator.store import ROUTES, Store

Json = Any


def function(name: str = "fn", version: int = 1, generation: int = 1, **spec: Json) -> Json:
    base = {"runtime": "python", "handler": "main.handler", "code": {"inline": "x = 1"}}
    meta = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": f"2026-01-0{version}T00:00:00Z",
    }
    return {"metadata": meta, "spec": {**base, **spec}}


UIDS = {"Function": "u", "Runtime": "r"}


def pod(name: str, version: int = 1, **labels: str) -> Json:
    known = {"app.kubernetes.io/component": "instance", **{f"kappa.dev/{k}": v for k, v in labels.items()}}
    kind, owner = ("Function", "function") if "function" in labels else ("Runtime", "runtime")
    by = {
        "apiVersion": "kappa.dev/v1",
        "kind": kind,
        "name": labels.get(owner, ""),
        "uid": UIDS[kind],
        "controller": True,
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": known,
            "ownerReferences": [by],
        }
    }


def runtime(name: str = "python") -> Json:
    return {"metadata": {"name": name, "uid": "r"}, "spec": {"image": "i"}}


def test_a_function_wakes_itself_its_pool_and_the_routes() -> None:
    store = Store()
    assert store.put_function(function()) == {"function/ns/fn", "pool/ns/python"}
    routed = function(version=2, generation=2, http={"routes": [{"path": "/a"}]})
    assert store.put_function(routed) == {"function/ns/fn", "pool/ns/python", ROUTES}


def test_the_status_that_the_operator_wrote_causes_no_work() -> None:
    store = Store()
    store.put_function(function())
    raw = {**function(version=2), "status": {"replicas": 1}}
    assert store.put_function(raw) == frozenset()
    assert store.functions["ns/fn"].status == {"replicas": 1}


def test_an_older_object_is_ignored() -> None:
    store = Store()
    store.put_function(function(version=5, generation=2, concurrency=2))
    assert store.put_function(function(version=4)) == frozenset()
    assert store.functions["ns/fn"].generation == 2
    store.put_pod(pod("a", 5, function="fn", state="serving"))
    assert store.put_pod(pod("a", 4, runtime="python", state="pool")) == frozenset()
    assert store.pods["ns/a"].state == "serving"


def test_a_function_made_anew_under_the_same_name_is_another_one() -> None:
    store = Store()
    store.put_function(function(version=5, generation=7))
    fresh = function(version=9)
    fresh["metadata"]["uid"] = "another"
    assert "function/ns/fn" in store.put_function(fresh)


def test_a_bad_spec_is_kept_with_its_problems() -> None:
    store = Store()
    store.put_function(function(timeoutSeconds=-1))
    record = store.functions["ns/fn"]
    assert record.function is None
    assert record.problems == "spec.timeoutSeconds: -1 is out of range: must be from 1 to 3600"


def test_a_claimed_pod_moves_from_the_pool_to_its_function() -> None:
    store = Store()
    assert store.put_pod(pod("a", 1, runtime="python", state="pool")) == {"pool/ns/python"}
    assert [p.name for p in store.pool("ns", "python")] == ["a"]
    claimed = pod("a", 2, runtime="python", state="serving", function="fn", revision="r")
    assert store.put_pod(claimed) == {"pool/ns/python", "function/ns/fn"}
    assert store.pool("ns", "python") == ()
    assert [p.name for p in store.instances("ns/fn")] == ["a"]
    assert store.drop_pod("ns/a", "another uid") == frozenset()
    assert store.drop_pod("ns/a", "uid-a") == {"function/ns/fn"}
    assert store.instances("ns/fn") == ()


def test_pool_users_are_the_functions_that_can_use_it() -> None:
    store = Store()
    store.put_runtime(runtime())
    store.put_function(function("a"))
    store.put_function(function("b", envFrom=[{"configMapRef": {"name": "c"}}]))
    store.put_function(function("c", runtime="other"))
    assert store.pool_users("ns", "python") == 1
    assert store.pool_users("elsewhere", "python") == 0
    store.put_function(function("b", 2, 2))
    assert store.pool_users("ns", "python") == 2
    store.put_function(function("b", 3, 3, runtime="other"))
    assert store.pool_users("ns", "python") == 1
    leaving = function("a", 4)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    store.put_function(leaving)
    assert store.pool_users("ns", "python") == 0
    store.drop_function("ns/a")
    assert store.pool_users("ns", "python") == 0


def test_pool_users_follow_the_resources_of_the_runtime() -> None:
    store = Store()
    small, large = {"limits": {"memory": "1Gi"}}, {"limits": {"memory": "2Gi"}}
    store.put_function(function("a", resources=large))
    store.put_runtime({**runtime(), "spec": {"image": "i", "resources": small}})
    assert store.pool_users("ns", "python") == 0
    store.put_runtime({**runtime(), "spec": {"image": "i", "resources": large}})
    assert store.pool_users("ns", "python") == 1


def test_a_runtime_wakes_those_who_use_it() -> None:
    store = Store()
    store.put_function(function())
    assert store.put_runtime(runtime()) == {"function/ns/fn", "pool/ns/python"}
    assert store.put_runtime(runtime()) == frozenset()
    bad = {"metadata": {"name": "python"}, "spec": {}}
    assert store.put_runtime(bad) == {"function/ns/fn", "pool/ns/python"}
    assert "python" in store.bad_runtimes
    assert "python" not in store.runtimes


def test_a_config_map_wakes_only_those_who_use_it_as_code() -> None:
    store = Store()
    store.put_function(function(code={"configMap": {"name": "code"}}))
    store.set_config_digest("ns", "code", "d")
    assert store.config_changed("ns", "other") == frozenset()
    assert store.config_digest("ns", "code") == "d"
    assert store.config_changed("ns", "code") == {"function/ns/fn"}
    assert store.config_digest("ns", "code") is None
    store.drop_function("ns/fn")
    assert store.config_changed("ns", "code") == frozenset()


def test_the_older_function_has_the_route_until_it_goes() -> None:
    store = Store()
    http = {"routes": [{"path": "/a"}]}
    store.put_function(function("young", 3, http=http))
    store.put_function(function("old", 2, http=http))
    assert store.assign_routes() == {"function/ns/young"}
    assert [c.holder for c in store.conflicts["ns/young"]] == ["ns/old"]
    assert store.assign_routes() == frozenset()
    store.drop_function("ns/old")
    assert store.assign_routes() == {"function/ns/young"}
    assert store.conflicts == {}


def test_a_list_drops_what_it_does_not_have_but_not_what_came_meanwhile() -> None:
    store = Store()
    store.put_pod(pod("gone", 7, function="fn"))
    store.put_pod(pod("here", 6, function="fn"))
    store.put_pod(pod("again", 4, function="fn"))
    known = {key: found.version for key, found in store.pods.items()}
    store.put_pod(pod("again", 8, function="fn"))
    store.put_pod(pod("new", 9, function="fn"))
    assert store.keep_pods(["ns/here"], known) == {"function/ns/fn"}
    assert sorted(store.pods) == ["ns/again", "ns/here", "ns/new"]


def test_only_platform_pods_of_the_system_namespace_are_gateways() -> None:
    store = Store()
    raw = pod("g")
    raw["metadata"]["labels"]["app.kubernetes.io/component"] = "gateway"
    raw["spec"] = {"containers": [{"name": "g", "ports": [{"name": "admin", "containerPort": 9}]}]}
    raw["status"] = {"podIP": "10.0.0.9"}
    assert store.put_pod(raw) == frozenset()
    assert [(g.ip, g.admin_port) for g in store.gateways("ns")] == [("10.0.0.9", 9)]
    assert store.gateways("default") == ()
    assert store.drop_pod("ns/g") == frozenset()
    assert store.gateways("ns") == ()
