"""The token of a pod that is gone opens nothing any more; the pods are those of the embedded API."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from kappa_fixtures_local import Api, Backend, connect, embedded
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from kappa_api.tokens import pod_token
from kappa_gateway.kube import Kube

PODS = "/api/v1/namespaces/default/pods"
EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.created", "data": {"total": 7}}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with embedded(tmp_path_factory.mktemp("api")) as found:
        yield found


@contextlib.asynccontextmanager
async def reading(backend: Backend) -> AsyncIterator[tuple[Api, Kube]]:
    configuration = kubernetes_client.Configuration()
    await kubernetes_config.load_kube_config(str(backend.kubeconfig), client_configuration=configuration)
    kube = Kube(kubernetes_client.ApiClient(configuration))
    try:
        async with connect(backend, "default") as api:
            yield api, kube
    finally:
        await kube.close()


async def post(rig: Any, pod: str) -> Any:
    lines = (f"Authorization: Bearer {pod_token(b'secret', 'default', pod)}", f"kappa-pod: default/{pod}")
    kind = "content-type: application/cloudevents+json"
    return await rig.get("/events/default", kind, *lines, method="POST", body=json.dumps(EVENT).encode())


async def test_a_pods_token_ends_with_it(front: Any, backend: Backend) -> None:
    meta = {"namespace": "default", "name": "t", "uid": "uid-t", "generation": 1}
    spec = {"function": "f", "source": {"event": {"types": ["order.*"]}}}
    front.gateway.events.host.triggers.put({"metadata": meta, "spec": spec})
    async with reading(backend) as (api, kube):
        front.gateway.events.host.kube = kube
        # Nothing runs it: it waits for a node, and that is enough to be there
        container = {"name": "c", "image": "none"}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"}, "spec": {"containers": [container]}}
        (await api.post(PODS, made)).ok()
        assert (await post(front, "new")).status == 202
        answer = await post(front, "gone")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (401, "unauthorized")
        assert "the pod of this token is gone" in answer.body.decode()
    front.gateway.events.host.kube = None
