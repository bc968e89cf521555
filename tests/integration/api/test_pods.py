"""Pods as objects: defaults, what may change, status, selectors. None of them runs: their node selector matches no
node.
"""

from __future__ import annotations

from kappa_fixtures_local import MERGE, STRATEGIC, TABLE, Api, Obj

PODS = "/api/v1/namespaces/{ns}/pods"


def pod(name: str, **spec: object) -> Obj:
    container = {"name": "main", "image": "example/app:1", "env": [{"name": "A", "value": "1"}]}
    body = {"containers": [container], "nodeSelector": {"kappa.dev/no-such-node": "x"}, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": body}


async def test_defaults(api: Api, name: str) -> None:
    made = (await api.post(PODS, pod(name))).ok()
    spec = made["spec"]
    wanted = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
    }
    assert {key: spec[key] for key in wanted} == wanted
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert spec["containers"][0]["resources"] == {}
    assert made["status"]["phase"] == "Pending"
    assert made["status"]["qosClass"] == "BestEffort"
    assert "generation" not in made["metadata"]


async def test_probe_defaults(api: Api, name: str) -> None:
    body = pod(name)
    body["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": 8080}}
    probe = (await api.post(PODS, body)).ok()["spec"]["containers"][0]["readinessProbe"]
    assert probe == {
        "httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


async def test_requests_follow_limits(api: Api, name: str) -> None:
    body = pod(name)
    body["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Mi", "cpu": 1}}
    made = (await api.post(PODS, body)).ok()
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "64Mi", "cpu": "1"},
        "requests": {"memory": "64Mi", "cpu": "1"},
    }
    assert made["status"]["qosClass"] == "Guaranteed"


async def test_what_is_missing(api: Api, name: str) -> None:
    assert "spec.containers: Required value" in (await api.post(PODS, pod(name, containers=[]))).refused(422, "Invalid")
    message = (await api.post(PODS, pod(name, containers=[{"image": "x"}]))).refused(422, "Invalid")
    assert "spec.containers[0].name: Required value" in message
    mounts = [{"name": "none", "mountPath": "/x"}]
    message = (
        await api.post(PODS, pod(name, containers=[{"name": "a", "image": "x", "volumeMounts": mounts}]))
    ).refused(422, "Invalid")
    assert 'spec.containers[0].volumeMounts[0].name: Not found: "none"' in message


async def test_the_spec_is_fixed(api: Api, name: str) -> None:
    await api.post(PODS, pod(name))
    path = f"{PODS}/{name}"
    message = (await api.patch(path, {"spec": {"restartPolicy": "Never"}})).refused(422, "Invalid")
    assert "pod updates may not change fields other than" in message
    env = {"spec": {"containers": [{"name": "main", "env": [{"name": "B", "value": "2"}]}]}}
    (await api.patch(path, env, STRATEGIC)).refused(422, "Invalid")
    image = {"spec": {"containers": [{"name": "main", "image": "example/app:2"}]}}
    containers = (await api.patch(path, image, STRATEGIC)).ok()["spec"]["containers"]
    assert [(item["name"], item["image"], item["env"]) for item in containers] == [
        ("main", "example/app:2", [{"name": "A", "value": "1"}])
    ]


async def test_labels_may_change(api: Api, name: str) -> None:
    made = (await api.post(PODS, pod(name))).ok()
    patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "labels": {"state": "serving"}}}
    reply = await api.patch(f"{PODS}/{name}", patch, MERGE)
    if reply.status == 409:  # The scheduler wrote its condition in between.
        patch["metadata"].pop("resourceVersion")
        reply = await api.patch(f"{PODS}/{name}", patch, MERGE)
    assert reply.ok()["metadata"]["labels"] == {"app": name, "state": "serving"}


async def test_the_status_subresource(api: Api, name: str) -> None:
    await api.post(PODS, pod(name))
    condition = {"type": "kappa.dev/custom", "status": "True"}
    patch = {"status": {"conditions": [condition]}, "spec": {"restartPolicy": "Never"}}
    body = (await api.patch(f"{PODS}/{name}/status", patch, STRATEGIC)).ok()
    assert body["spec"]["restartPolicy"] == "Always"
    assert "kappa.dev/custom" in [item["type"] for item in body["status"]["conditions"]]
    assert (await api.patch(f"{PODS}/{name}", {"status": {"phase": "Running"}})).ok()["status"]["phase"] == "Pending"


async def test_a_pod_that_fits_nowhere_says_so(api: Api, name: str) -> None:
    await api.post(PODS, pod(name))

    def unschedulable(event: Obj) -> bool:
        conditions = event["object"].get("status", {}).get("conditions") or []
        return any(
            (c["type"], c["status"], c.get("reason")) == ("PodScheduled", "False", "Unschedulable") for c in conditions
        )

    async with api.watch(PODS, fieldSelector=f"metadata.name={name}") as watch:
        event = await watch.until(unschedulable)
    assert event["object"]["status"]["phase"] == "Pending"
    assert "nodeName" not in event["object"]["spec"]


async def test_field_selectors(api: Api, name: str) -> None:
    await api.post(PODS, pod(name))
    found = (await api.get(PODS, fieldSelector="status.phase=Pending,spec.nodeName=", labelSelector=f"app={name}")).ok()
    assert len(found["items"]) == 1
    found = (await api.get(PODS, fieldSelector="status.phase!=Pending", labelSelector=f"app={name}")).ok()
    assert found["items"] == []
    (await api.get(PODS, fieldSelector="spec.hostname=x")).refused(400, "BadRequest")


async def test_a_pod_without_a_node_is_deleted_at_once(api: Api, name: str) -> None:
    await api.post(PODS, pod(name))
    body = (await api.delete(f"{PODS}/{name}")).ok()
    assert body["kind"] == "Pod"
    (await api.get(f"{PODS}/{name}")).refused(404, "NotFound")


async def test_the_table(api: Api, name: str) -> None:
    await api.post(PODS, pod(name))
    body = (await api.get(PODS, accept=TABLE, labelSelector=f"app={name}")).ok()
    names = [column["name"] for column in body["columnDefinitions"]]
    assert names == ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node", "Nominated Node", "Readiness Gates"]
    cells = body["rows"][0]["cells"]
    assert cells[:3] == [name, "0/1", "Pending"]
    assert cells[5:] == ["<none>", "<none>", "<none>", "<none>"]
