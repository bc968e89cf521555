"""What helm makes of the chart: versions of APIs, rights, policies, security contexts. Needs helm, no cluster."""

import subprocess
from dataclasses import replace
from typing import Any

import pytest
from kappa_e2e import CHART, pod_spec, rights

from kappa_api.limits import Rate
from kappa_gateway import settings

Json = Any

#: Variables of the gateway that test_chart_events.py looks at.
EVENTS_ENV = ("KAPPA_NATS", "KAPPA_SOURCE", "KAPPA_SHARED_SUBJECTS", "KAPPA_KUBERNETES", "KAPPA_WORK", "KAPPA_DEAD")


def test_lint(tools: str) -> None:
    done = subprocess.run([f"{tools}/helm", "lint", "--strict", str(CHART)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_wrong_values_are_refused(tools: str) -> None:
    command = [f"{tools}/helm", "template", "kappa", str(CHART), "--set", "gatway.replicas=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "'gatway' not allowed" in done.stderr


@pytest.mark.parametrize(
    ("version", "autoscaler", "budget"),
    [
        ("1.20.0", "autoscaling/v2beta2", "policy/v1beta1"),
        ("1.21.0", "autoscaling/v2beta2", "policy/v1"),
        ("1.23.0-eks-1", "autoscaling/v2", "policy/v1"),
        ("1.35.0", "autoscaling/v2", "policy/v1"),
    ],
)
def test_versions_of_apis(render: Any, version: str, autoscaler: str, budget: str) -> None:
    objects = render(None, "--kube-version", version)
    assert objects["HorizontalPodAutoscaler", "kappa-gateway"]["apiVersion"] == autoscaler
    assert objects["PodDisruptionBudget", "kappa-gateway"]["apiVersion"] == budget
    assert objects["PodDisruptionBudget", "kappa-operator"]["apiVersion"] == budget


def test_what_the_default_values_make(render: Any) -> None:
    assert sorted(render()) == [
        ("ClusterRole", "kappa-edit"),
        ("ClusterRole", "kappa-gateway"),
        ("ClusterRole", "kappa-invoker"),
        ("ClusterRole", "kappa-operator"),
        ("ClusterRole", "kappa-view"),
        ("ClusterRoleBinding", "kappa-gateway"),
        ("ClusterRoleBinding", "kappa-operator"),
        ("ConfigMap", "kappa-nats"),
        ("Deployment", "kappa-gateway"),
        ("Deployment", "kappa-operator"),
        ("HorizontalPodAutoscaler", "kappa-gateway"),
        ("NetworkPolicy", "default/kappa-instances"),
        ("NetworkPolicy", "kappa-gateway"),
        ("NetworkPolicy", "kappa-nats"),
        ("NetworkPolicy", "kappa-operator"),
        ("Pod", "kappa-test"),
        ("PodDisruptionBudget", "kappa-gateway"),
        ("PodDisruptionBudget", "kappa-nats"),
        ("PodDisruptionBudget", "kappa-operator"),
        ("Role", "default/kappa-gateway-api-keys"),
        ("Role", "default/kappa-gateway-source-secrets"),
        ("Role", "kappa-gateway"),
        ("Role", "kappa-operator"),
        ("RoleBinding", "default/kappa-gateway-api-keys"),
        ("RoleBinding", "default/kappa-gateway-source-secrets"),
        ("RoleBinding", "kappa-gateway"),
        ("RoleBinding", "kappa-operator"),
        ("Runtime", "python"),
        ("Secret", "kappa-nats"),
        ("Secret", "kappa-platform"),
        ("Service", "gateway"),
        ("Service", "kappa-nats"),
        ("ServiceAccount", "kappa-gateway"),
        ("ServiceAccount", "kappa-operator"),
        ("StatefulSet", "kappa-nats"),
    ]


def test_rights_of_the_operator(render: Any) -> None:
    objects = render()
    assert rights(objects["ClusterRole", "kappa-operator"]) == {
        *(f"{verb} kappa.dev/{kind}" for kind in ("functions", "runtimes", "triggers") for verb in ("list", "watch")),
        "patch kappa.dev/functions/status",
        "patch kappa.dev/triggers/status",
        "get pods/log",
        *(f"{verb} namespaces" for verb in ("list", "watch")),
        *(f"{verb} pods" for verb in ("get", "list", "watch", "create", "patch", "delete")),
        *(f"{verb} configmaps" for verb in ("get", "list", "watch", "create", "update")),
        "create events",
    }
    assert rights(objects["Role", "kappa-operator"]) == {
        "create coordination.k8s.io/leases",
        *(f"{verb} coordination.k8s.io/leases[kappa-operator]" for verb in ("get", "update")),
    }


def test_rights_of_the_gateway(render: Any) -> None:
    objects = render()
    assert rights(objects["ClusterRole", "kappa-gateway"]) == {
        *(f"{verb} kappa.dev/{kind}" for kind in ("functions", "triggers") for verb in ("list", "watch")),
        *(f"{verb} pods" for verb in ("list", "watch")),
        "create authentication.k8s.io/tokenreviews",
        "create authorization.k8s.io/subjectaccessreviews",
    }
    assert rights(objects["Role", "kappa-gateway"]) == {"get coordination.k8s.io/leases[kappa-operator]"}
    assert rights(objects["Role", "default/kappa-gateway-api-keys"]) == {"list secrets", "watch secrets"}


def test_how_callers_are_checked(render: Any) -> None:
    auth = {"apiKeys": {"namespaces": ["shop", "team-a"]}, "kubernetes": {"enabled": False}, "jwt": {"allowHttp": True}}
    objects = render({"gateway": {"auth": auth}})
    roles = sorted(name for kind, name in objects if kind == "Role" and name.endswith("api-keys"))
    assert roles == ["shop/kappa-gateway-api-keys", "team-a/kappa-gateway-api-keys"]
    assert objects["RoleBinding", roles[0]]["subjects"][0]["name"] == "kappa-gateway"
    assert not [right for right in rights(objects["ClusterRole", "kappa-gateway"]) if "review" in right]
    env = {item["name"]: item.get("value") for item in pod_spec(objects, "gateway")["containers"][0]["env"]}
    assert (env["KAPPA_API_KEY_NAMESPACES"], env["KAPPA_JWKS_ALLOW_HTTP"]) == ("shop,team-a", "true")

    everywhere = render({"gateway": {"auth": {"apiKeys": {"namespaces": ["*"]}}}})
    assert rights(everywhere["ClusterRole", "kappa-gateway-api-keys"]) == {"list secrets", "watch secrets"}
    assert ("ClusterRoleBinding", "kappa-gateway-api-keys") in everywhere
    assert not [name for kind, name in everywhere if kind == "Role" and name.endswith("api-keys")]

    nowhere = render({"gateway": {"auth": {"apiKeys": {"namespaces": []}}}})
    assert not [name for _, name in nowhere if name.endswith("api-keys")]
    assert rights(nowhere["ClusterRole", "kappa-invoker"]) == {
        "invoke kappa.dev/functions",
        "invoke kappa.dev/triggers",
    }


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_pods_pass_the_restricted_level(render: Any, component: str) -> None:
    spec = pod_spec(render(), component)
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} == {"secret", "emptyDir"}


@pytest.mark.parametrize(
    ("component", "ports"), [("operator", {"admin": 8081}), ("gateway", {"http": 8080, "admin": 8081})]
)
def test_containers(render: Any, component: str, ports: dict[str, int]) -> None:
    (container,) = pod_spec(render(), component)["containers"]
    env = {
        entry["name"]: entry.get("value") or entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container["env"]
        if not entry["name"].startswith(EVENTS_ENV)
    }
    expected = {
        "POD_NAME": "metadata.name",
        "POD_IP": "status.podIP",
        "KAPPA_SYSTEM_NAMESPACE": "metadata.namespace",
        "KAPPA_PLATFORM_SECRET_FILE": "/etc/kappa/platform/secret",
        "KAPPA_GATEWAY_URL": "http://gateway.kappa-system",
    }
    if component == "gateway":
        expected |= {"KAPPA_API_KEY_NAMESPACES": "default", "KAPPA_JWKS_ALLOW_HTTP": "false"}
        expected |= {"KAPPA_SHUTDOWN_DELAY": "5", "KAPPA_SHUTDOWN_GRACE": "80", "KAPPA_TRUST_FORWARDED": "false"}
        expected |= {"KAPPA_FORWARDED_HOPS": "1", "KAPPA_MAX_WAITING": "1000", "KAPPA_MAX_WAITING_BOUND": "10000"}
        expected |= {"KAPPA_MAX_CONNECTIONS": "10000", "KAPPA_MAX_CONNECTIONS_PER_ADDRESS": "0"}
        expected |= {"KAPPA_HELD_TOTAL_BYTES": "134217728", "KAPPA_AUTH_FAILURES": "50/1/100"}
        expected |= {"KAPPA_MAX_HOPS": "16", "KAPPA_NAMESPACE_SHARE": "50"}
    assert env == expected
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == ports
    assert container["image"] == f"kappa-{component}:0.1.0"
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {"admin"}


def test_limits_are_settings_of_the_gateway(render: Any) -> None:
    """As the gateway's program reads them."""
    limits = {
        "connections": 20_000_000,
        "connectionsPerAddress": 7,
        "waiting": 30,
        "waitingBound": 40,
        "heldBodiesBytes": 1 << 31,
        "rate": {"requests": 1_000_000, "perSeconds": 60},
        "callerRate": {"requests": 5, "burst": 9},
        "eventRate": {"requests": 50},
        "eventCallerRate": {"requests": 6, "perSeconds": 60, "burst": 7},
        "authFailures": {"requests": 0},
    }
    objects = render({"gateway": {"limits": limits, "trustForwarded": True, "forwardedHops": 2}})
    (container,) = pod_spec(objects, "gateway")["containers"]
    env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    found = settings.load(env | {"KAPPA_PLATFORM_SECRET_FILE": "", "KAPPA_PLATFORM_SECRET": "x"})
    assert (found.trust_forwarded, found.forwarded_hops) == (True, 2)
    expected = replace(
        settings.Limits(),
        connections=20_000_000,
        connections_per_address=7,
        waiting_per_function=30,
        waiting_most=40,
        held_total_bytes=1 << 31,
        rate=Rate(1_000_000, 60),
        caller_rate=Rate(5, 1, 9),
        event_rate=Rate(50),
        event_caller_rate=Rate(6, 60, 7),
        auth_failures=None,
    )
    assert found.limits == expected


def test_image_values(render: Any) -> None:
    objects = render(
        {
            "image": {"registry": "registry.example.org/team/", "tag": "7", "pullSecrets": ["a"]},
            "gateway": {"image": {"tag": "8"}},
        }
    )
    assert pod_spec(objects, "operator")["containers"][0]["image"] == "registry.example.org/team/kappa-operator:7"
    assert pod_spec(objects, "gateway")["containers"][0]["image"] == "registry.example.org/team/kappa-gateway:8"
    assert objects["Runtime", "python"]["spec"]["image"] == "registry.example.org/team/kappa-runtime-python:7"
    assert pod_spec(objects, "gateway")["imagePullSecrets"] == [{"name": "a"}]


def test_bounds_of_the_operator(render: Any) -> None:
    def env(values: Any) -> dict[str, str]:
        found = pod_spec(render(values), "operator")["containers"][0]["env"]
        return {entry["name"]: entry.get("value") for entry in found}

    bounds = ("KAPPA_MAX_INSTANCES_PER_NAMESPACE", "KAPPA_IDLE_MEMORY_LIMIT")
    given = env({"operator": {"maxInstancesPerNamespace": 2000000, "idleMemoryLimit": "4Gi"}})
    assert [given[name] for name in bounds] == ["2000000", "4Gi"]
    assert not set(bounds) & env({}).keys()


def test_secret(render: Any) -> None:
    objects = render()
    assert list(objects["Secret", "kappa-platform"]["data"]) == ["secret"]
    own = render({"platformSecret": {"existingSecret": "mine"}})
    assert ("Secret", "kappa-platform") not in own
    for component in ("operator", "gateway"):
        names = [volume["secret"]["secretName"] for volume in pod_spec(own, component)["volumes"] if "secret" in volume]
        assert names == ["mine"]


def test_both_deployments_restart_with_the_same_secret(render: Any) -> None:
    objects = render()
    found = {
        objects["Deployment", f"kappa-{component}"]["spec"]["template"]["metadata"]["annotations"][
            "kappa.dev/platform-secret"
        ]
        for component in ("operator", "gateway")
    }
    assert len(found) == 1


def test_only_gateway_and_operator_reach_instances(render: Any) -> None:
    objects = render({"networkPolicy": {"functionNamespaces": ["shop", "lab"]}})
    for namespace in ("shop", "lab"):
        assert objects["NetworkPolicy", f"{namespace}/kappa-instances"]["spec"] == {
            "podSelector": {
                "matchLabels": {"app.kubernetes.io/component": "instance", "app.kubernetes.io/part-of": "kappa"}
            },
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kappa-system"}},
                            "podSelector": {
                                "matchLabels": {
                                    "app.kubernetes.io/name": "kappa",
                                    "app.kubernetes.io/instance": "kappa",
                                },
                                "matchExpressions": [
                                    {
                                        "key": "app.kubernetes.io/component",
                                        "operator": "In",
                                        "values": ["gateway", "operator"],
                                    }
                                ],
                            },
                        }
                    ],
                    "ports": [{"protocol": "TCP", "port": 8080}],
                }
            ],
        }
    assert ("NetworkPolicy", "default/kappa-instances") not in objects


def test_policies_of_the_platform(render: Any) -> None:
    monitoring = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    objects = render({"networkPolicy": {"metricsFrom": [monitoring]}})

    def peers(component: str) -> list[tuple[int, list[str]]]:
        rules = objects["NetworkPolicy", f"kappa-{component}"]["spec"]["ingress"]
        found = []
        for rule in rules:
            who = [
                peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                if "podSelector" in peer
                else "monitoring"
                for peer in rule.get("from", ())
            ]
            found.append((rule["ports"][0]["port"], who))
        return found

    assert peers("operator") == [(8081, ["gateway", "monitoring"])]
    assert peers("gateway") == [(8080, []), (8081, ["operator", "monitoring"])]
    assert not [key for key in render({"networkPolicy": {"enabled": False}}) if key[0] == "NetworkPolicy"]


def test_selectors_hold(render: Any) -> None:
    """Services, budgets, policies and Deployments select exactly the pods of their component."""
    objects = render()
    for component in ("operator", "gateway"):
        deployment = objects["Deployment", f"kappa-{component}"]["spec"]
        selector = deployment["selector"]["matchLabels"]
        assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
        assert objects["PodDisruptionBudget", f"kappa-{component}"]["spec"]["selector"]["matchLabels"] == selector
        assert objects["NetworkPolicy", f"kappa-{component}"]["spec"]["podSelector"]["matchLabels"] == selector
        assert deployment["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kappa"
    assert objects["Service", "gateway"]["spec"]["selector"] == selector


def test_gateway_is_replaced_without_a_gap(render: Any) -> None:
    deployment = render({"gateway": {"terminationGracePeriodSeconds": 300}})["Deployment", "kappa-gateway"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] == 300
    env = {entry["name"]: entry.get("value") for entry in deployment["template"]["spec"]["containers"][0]["env"]}
    assert (env["KAPPA_SHUTDOWN_DELAY"], env["KAPPA_SHUTDOWN_GRACE"]) == ("5", "290")


def test_replicas_are_left_to_the_autoscaler(render: Any) -> None:
    assert "replicas" not in render()["Deployment", "kappa-gateway"]["spec"]
    fixed = render({"gateway": {"autoscaling": {"enabled": False}, "replicas": 3}})
    assert fixed["Deployment", "kappa-gateway"]["spec"]["replicas"] == 3
    assert ("HorizontalPodAutoscaler", "kappa-gateway") not in fixed


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://gateway.kappa-system"),
        ({"gateway": {"service": {"port": 8000}}}, "http://gateway.kappa-system:8000"),
        ({"gateway": {"url": "https://fn.example.org/"}}, "https://fn.example.org"),
    ],
)
def test_url_of_the_gateway(render: Any, values: Json, url: str) -> None:
    env = pod_spec(render(values), "operator")["containers"][0]["env"]
    assert {"name": "KAPPA_GATEWAY_URL", "value": url} in env


@pytest.mark.parametrize(
    ("gateway", "url"),
    [
        ({}, None),
        ({"url": "https://fn.example.org"}, "http://gateway.kappa-system"),
        ({"insideUrl": "http://10.96.0.7"}, "http://10.96.0.7"),
    ],
)
def test_where_instances_find_the_gateway(render: Any, gateway: Json, url: str | None) -> None:
    env = pod_spec(render({"gateway": gateway}), "operator")["containers"][0]["env"]
    assert {entry["name"]: entry.get("value") for entry in env}.get("KAPPA_INSIDE_URL") == url


def test_ingress(render: Any) -> None:
    backend = {"service": {"name": "gateway", "port": {"name": "http"}}}
    rule = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    every = render({"gateway": {"ingress": {"enabled": True}}})["Ingress", "kappa-gateway"]["spec"]
    assert every == {"rules": [rule]}
    one = render({"gateway": {"ingress": {"enabled": True, "className": "nginx", "hosts": ["fn.example.org"]}}})
    assert one["Ingress", "kappa-gateway"]["spec"] == {
        "ingressClassName": "nginx",
        "rules": [rule | {"host": "fn.example.org"}],
    }


def test_pod_monitor_only_where_prometheus_knows_it(render: Any) -> None:
    values = {"metrics": {"podMonitor": {"enabled": True}}}
    assert ("PodMonitor", "kappa") not in render(values)
    assert ("PodMonitor", "kappa") in render(values, "--api-versions", "monitoring.coreos.com/v1")


def test_namespace(render: Any) -> None:
    labels = render({"namespace": {"create": True}})["Namespace", "kappa-system"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
