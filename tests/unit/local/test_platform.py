"""The platform on the embedded cluster: where it runs, what it is made of, and what stands in its way."""

import socket
from pathlib import Path

import pytest
from kappa_ports import free_port

from kappa_local.platform.resources import custom_resource_definitions, platform
from kappa_local.platform.settings import Place, SetupError, check_ports, place


def test_ports_come_from_the_environment() -> None:
    found = place({"KAPPA_GATEWAY_PORT": "9000", "KAPPA_STATE_DIR": "/somewhere"})
    assert (found.gateway_port, found.api_port, found.state) == (9000, 7443, Path("/somewhere"))


@pytest.mark.parametrize("text", ["", "abc", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(SetupError, match="KAPPA_API_PORT"):
        place({"KAPPA_API_PORT": text})


def test_a_taken_port_is_named_with_the_variable_that_chooses_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"port {port} .*KAPPA_GATEWAY_PORT"):
            check_ports(Place(Path("x"), api_port=free_port(), gateway_port=port))


def test_the_platform_is_the_charts_resources_and_two_pods() -> None:
    assert {crd["spec"]["names"]["kind"] for crd in custom_resource_definitions()} == {
        "Function",
        "Runtime",
        "Trigger",
    }
    objects = platform(Place(Path("x")), "secret")
    assert [(item["kind"], item["metadata"]["name"]) for item in objects] == [
        ("Namespace", "kappa-system"),
        ("Runtime", "python"),
        ("ClusterRole", "kappa-invoker"),
        ("Pod", "operator"),
        ("Pod", "gateway"),
    ]
    gateway = objects[4]
    assert gateway["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    assert {"name": "admin", "containerPort": 8081} in gateway["spec"]["containers"][0]["ports"]


def test_with_a_token_there_is_nats_and_the_gateway_knows_it() -> None:
    place = Place(Path("/x"), nats_port=4000, mqtt_port=4001)
    objects = platform(place, "secret", "123")
    found = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    assert len(found) == len(objects) == 7
    config = found["ConfigMap", "nats"]["data"]["nats.conf"]
    assert ('listen: "127.0.0.1:4000"' in config, 'listen: "127.0.0.1:4001"' in config) == (True, True)
    (server,) = found["Pod", "nats"]["spec"]["containers"]
    assert server["env"] == [{"name": "TOKEN", "value": '"123"'}]
    (gateway,) = found["Pod", "gateway"]["spec"]["containers"]
    env = {item["name"]: item.get("value") for item in gateway["env"]}
    assert [env[name] for name in ("KAPPA_NATS_URL", "KAPPA_NATS_USER", "KAPPA_NATS_TOKEN")] == [
        "nats://127.0.0.1:4000",
        "kappa",
        "123",
    ]
    assert "KAPPA_NATS_URL" not in str(platform(place, "secret")), "without a token"
