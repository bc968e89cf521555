"""What helm makes of the chart's values for NATS, events and Triggers. Needs helm, no cluster.

The servers' configuration is given to a real nats-server, which says what it thinks of it.
"""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiomqtt
import nats
import pytest
from kappa_e2e import CHART, pod_spec, rights
from kappa_ports import free_port
from nats.aio.client import Client

from kappa_gateway.events import settings

Json = Any

SERVER = Path(sys.executable).with_name("nats-server")
DEVICES = {
    "enabled": True,
    "existingSecret": "devices",
    "users": [
        {"name": "sensors", "publish": ["default/sensors/#"], "subscribe": ["default/+/commands"]},
        {"name": "silent", "passwordKey": "other"},
    ],
}


def nats_pod(objects: Json) -> Json:
    return objects["StatefulSet", "kappa-nats"]["spec"]["template"]["spec"]


def variables(container: Json) -> dict[str, str]:
    """The variables as the kubelet sets them; what comes from Secrets is the Secret's key."""
    found: dict[str, str] = {}
    for entry in container["env"]:
        if "valueFrom" in entry:
            source = entry["valueFrom"]
            found[entry["name"]] = source["secretKeyRef"]["key"] if "secretKeyRef" in source else "kappa-nats-0"
        else:
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], entry["value"])
    return found


@pytest.mark.parametrize(
    "nats",
    [
        pytest.param({}, id="default"),
        pytest.param({"replicas": 1, "storage": {"persistent": False, "size": "512Mi"}}, id="one"),
        pytest.param({"replicas": 5, "mqtt": DEVICES}, id="devices"),
    ],
)
def test_a_server_takes_the_configuration(render: Any, tmp_path: Path, nats: Json) -> None:
    objects = render({"nats": nats})
    text = objects["ConfigMap", "kappa-nats"]["data"]["nats.conf"]
    file = tmp_path / "nats.conf"
    file.write_text(text.replace('"/data"', f'"{tmp_path}"').replace('"/tmp/', f'"{tmp_path}/'))
    env = variables(nats_pod(objects)["containers"][0])
    done = subprocess.run([SERVER, "-t", "-c", file], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("cluster {" in text) == (nats.get("replicas") != 1)


def test_devices_may_do_what_the_values_say_and_nothing_else(render: Any) -> None:
    text = render({"nats": {"mqtt": DEVICES}})["ConfigMap", "kappa-nats"]["data"]["nats.conf"]
    allowed = [json.loads(found) for found in re.findall(r"allow: (\[.*\])}", text)]
    assert allowed == [
        ["default.sensors", "default.sensors.>"],
        ["default.*.commands", "$MQTT.sub", "$MQTT.sub.>"],
        ["$MQTT.sub", "$MQTT.sub.>"],
    ]
    assert text.count('publish: {deny: [">"]}') == 1
    assert text.count('allowed_connection_types: ["MQTT"]') == 2


async def test_a_device_reaches_its_topics_only(render: Any, tmp_path: Path) -> None:
    """On a real server, with the chart's configuration moved to other ports and folders."""
    objects = render({"nats": {"replicas": 1, "mqtt": DEVICES}})
    client, monitor, mqtt = (free_port() for _ in range(3))
    text = objects["ConfigMap", "kappa-nats"]["data"]["nats.conf"]
    for old, new in {
        "port: 4222": f"listen: 127.0.0.1:{client}",
        "http_port: 8222": f"http: 127.0.0.1:{monitor}",
        "port: 1883": f"listen: 127.0.0.1:{mqtt}",
        '"/data"': f'"{tmp_path}"',
        '"/tmp/': f'"{tmp_path}/',
        "max_file_store: 10Gi": "max_file_store: 1Gi",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "nats.conf").write_text(text)
    env = variables(nats_pod(objects)["containers"][0])
    process = await asyncio.create_subprocess_exec(str(SERVER), "-c", str(tmp_path / "nats.conf"), env=env)
    try:
        own = await connected(f"nats://127.0.0.1:{client}")
        js = own.jetstream()
        await js.add_stream(name="ALL", subjects=["default.>", "kappa.>"])
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", mqtt, username="sensors", password="wrong"):
                pass
        device = aiomqtt.Client("127.0.0.1", mqtt, username="sensors", password="sensors", identifier="d")
        async with device:
            await device.subscribe("default/1/commands", qos=1)
            for topic in ("kappa/work/async/default/x", "default/other", "default/sensors/1"):
                await device.publish(topic, topic.encode(), qos=1)
            await js.publish("default.1.commands", b"go")
            assert (await anext(aiter(device.messages))).payload == b"go"
        stored = [(await js.get_msg("ALL", number)).subject for number in (1, 2)]
        assert stored == ["default.sensors.1", "default.1.commands"]
        await own.close()
    finally:
        process.kill()
        await process.wait()


async def connected(url: str) -> Client:
    """As the gateway, as soon as the server listens."""
    return await nats.connect(url, user="kappa", password="token", max_reconnect_attempts=100, reconnect_time_wait=0.05)


def test_passwords_of_devices_come_from_their_secret(render: Any) -> None:
    container = nats_pod(render({"nats": {"mqtt": DEVICES}}))["containers"][0]
    env = variables(container)
    assert (env["DEVICE_0"], env["DEVICE_1"]) == ('"sensors"', '"other"')
    assert {"name": "mqtt", "containerPort": 1883, "protocol": "TCP"} in container["ports"]


def test_servers_find_each_other_and_the_gateway_finds_them(render: Any) -> None:
    objects = render()
    hosts = [f"kappa-nats-{number}.kappa-nats.kappa-system" for number in range(3)]
    env = variables(nats_pod(objects)["containers"][0])
    assert json.loads(env["ROUTES"]) == [f"nats-route://routes:token@{host}:6222" for host in hosts]
    service = objects["Service", "kappa-nats"]["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    gateway = variables(pod_spec(objects, "gateway")["containers"][0])
    assert gateway["KAPPA_NATS_URL"] == ",".join(f"nats://{host}:4222" for host in hosts)


def test_what_the_gateway_reads_of_it(render: Any) -> None:
    """As the gateway's program reads it."""
    events = {
        "secretNamespaces": ["shop", "lab"],
        "sharedSubjects": ["public"],
        "workBytes": 3 << 30,
        "namespaceShare": 70,
        "deadLetterSeconds": 3600,
        "kubernetes": {"rules": [{"apiGroups": ["", "apps"], "resources": ["configmaps", "pods"]}]},
    }

    def load(values: Json) -> settings.EventSettings:
        return settings.load(variables(pod_spec(render(values), "gateway")["containers"][0]))

    found = load({"gateway": {"events": events}})
    assert (found.user, found.token, found.replicas, len(found.urls)) == ("kappa", "token", 3, 3)
    assert (found.secret_namespaces, found.shared_subjects) == (("shop", "lab"), ("public",))
    assert (found.work_bytes, found.namespace_share, found.dead_seconds) == (3 << 30, 70, 3600)
    assert found.resources == ("configmaps", "pods", "configmaps.apps", "pods.apps")
    assert load({"nats": {"replicas": 1}}).replicas == 1
    assert load({"nats": {"replicas": 5}}).replicas == 3, "five servers, three copies"
    assert load({"gateway": {"events": {"secretNamespaces": []}}}).secret_namespaces == ()


def test_a_nats_of_ones_own(render: Any) -> None:
    external = {"url": "tls://a.example:4222,tls://b.example:4222", "existingSecret": "theirs", "replicas": 1}
    objects = render({"nats": {"enabled": False, "external": external}})
    assert not [key for key in objects if "nats" in key[1]]
    env = pod_spec(objects, "gateway")["containers"][0]["env"]
    keys = {"TOKEN": "token", "CREDS": "creds", "CA_CERT": "ca.crt", "TLS_CERT": "tls.crt", "TLS_KEY": "tls.key"}
    for name, key in keys.items():
        ref = {"name": "theirs", "key": key, "optional": True}
        assert {"name": f"KAPPA_NATS_{name}", "valueFrom": {"secretKeyRef": ref}} in env
    found = {entry["name"]: entry.get("value") for entry in env}
    assert (found["KAPPA_NATS_URL"], found["KAPPA_NATS_REPLICAS"]) == (external["url"], "1")
    assert "KAPPA_NATS_USER" not in found


def test_without_nats_there_are_no_events(render: Any) -> None:
    objects = render({"nats": {"enabled": False}})
    names = [entry["name"] for entry in pod_spec(objects, "gateway")["containers"][0]["env"]]
    assert not [name for name in names if "NATS" in name]


def test_pods_pass_the_restricted_level(render: Any) -> None:
    spec = nats_pod(render({"nats": {"mqtt": DEVICES}}))
    assert spec["securityContext"] == pod_spec(render(), "gateway")["securityContext"]
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False


def test_storage(render: Any) -> None:
    claims = render()["StatefulSet", "kappa-nats"]["spec"]["volumeClaimTemplates"]
    assert claims[0]["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    assert "max_file_store: 10Gi" in render()["ConfigMap", "kappa-nats"]["data"]["nats.conf"]
    fast = render({"nats": {"storage": {"className": "fast"}}})["StatefulSet", "kappa-nats"]["spec"]
    assert fast["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast"
    objects = render({"nats": {"storage": {"persistent": False}}})
    assert "volumeClaimTemplates" not in objects["StatefulSet", "kappa-nats"]["spec"]
    assert {"name": "data", "emptyDir": {"sizeLimit": "10Gi"}} in nats_pod(objects)["volumes"]


def test_who_reaches_nats(render: Any) -> None:
    def ports(values: Json) -> dict[int, Json]:
        rules = render(values)["NetworkPolicy", "kappa-nats"]["spec"]["ingress"]
        return {rule["ports"][0]["port"]: rule.get("from") for rule in rules}

    found = ports({})
    assert sorted(found) == [4222, 6222]
    who = [found[port][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for port in (4222, 6222)]
    assert who == ["gateway", "nats"]
    factory = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    assert ports({"nats": {"mqtt": DEVICES}})[1883] is None
    assert ports({"nats": {"mqtt": DEVICES | {"from": factory}}})[1883] == factory


def test_rights_of_sources(render: Any) -> None:
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"]}]
    objects = render({"gateway": {"events": {"secretNamespaces": ["shop"], "kubernetes": {"rules": rules}}}})
    assert rights(objects["Role", "shop/kappa-gateway-source-secrets"]) == {"list secrets", "watch secrets"}
    assert rights(objects["ClusterRole", "kappa-gateway-sources"]) == {
        f"{verb} apps/deployments" for verb in ("get", "list", "watch")
    }
    everywhere = render({"gateway": {"events": {"secretNamespaces": ["*"]}}})
    assert ("ClusterRole", "kappa-gateway-source-secrets") in everywhere
    assert ("ClusterRole", "kappa-gateway-sources") not in everywhere


def test_selectors_hold(render: Any) -> None:
    objects = render({"nats": {"mqtt": DEVICES}})
    stateful = objects["StatefulSet", "kappa-nats"]["spec"]
    selector = stateful["selector"]["matchLabels"]
    assert selector.items() <= stateful["template"]["metadata"]["labels"].items()
    assert objects["PodDisruptionBudget", "kappa-nats"]["spec"]["selector"]["matchLabels"] == selector
    assert objects["NetworkPolicy", "kappa-nats"]["spec"]["podSelector"]["matchLabels"] == selector
    for name in ("kappa-nats", "mqtt"):
        assert objects["Service", name]["spec"]["selector"] == selector


def test_the_same_token_for_servers_and_gateway(render: Any) -> None:
    own = render({"nats": {"existingSecret": "mine"}})
    assert ("Secret", "kappa-nats") not in own
    for container in (nats_pod(own)["containers"][0], pod_spec(own, "gateway")["containers"][0]):
        names = {
            entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"] if "secretKeyRef" in str(entry)
        }
        assert names == {"mine"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": 2},
        {"storage": {"size": "10"}},
        {"mqtt": {"enabled": True, "users": [{"name": "a"}], "existingSecret": ""}},
        {"mqtt": {"users": [{"publish": ["a/#"]}]}},
        {"mqtt": {"users": [{"name": "a", "publish": ["a/#/b"]}]}},
        {"external": {"url": "http://a"}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(tools: str, wrong: Json) -> None:
    command = [f"{tools}/helm", "template", "kappa", str(CHART), "-f", "-"]
    done = subprocess.run(command, input=json.dumps({"nats": wrong}), capture_output=True, text=True)
    assert done.returncode != 0
    assert "nats" in done.stderr
