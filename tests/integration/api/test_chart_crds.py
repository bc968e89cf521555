"""The chart's CRDs, under a group of their own so that nobody's Kappa is touched: a real server takes them as they are.

Old servers (1.20) are the ones that say no: to defaults that their own rules refuse, or to keywords they do not know.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from kappa_fixtures_local import Api

Json = Any

CRDS = Path(__file__).resolve().parents[3] / "charts" / "kappa" / "crds"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def renamed(plural: str, group: str) -> Json:
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    crd["metadata"]["name"] = f"{plural}.{group}"
    crd["spec"]["group"] = group
    crd["spec"]["names"].pop("shortNames", None)
    crd["spec"]["names"].pop("categories", None)
    return crd


@pytest.mark.parametrize("plural", ["functions", "runtimes", "triggers"])
async def test_a_server_takes_it(api: Api, name: str, plural: str) -> None:
    group = f"{name}.example.com"
    (await api.post(DEFINITIONS, renamed(plural, group))).ok()
    try:
        api.kubectl("wait", "--for=condition=Established", f"crd/{plural}.{group}", "--timeout=20s")
        made = (await api.get(f"{DEFINITIONS}/{plural}.{group}")).ok()
        faults = [
            c for c in made["status"]["conditions"] if c["type"] == "NonStructuralSchema" and c["status"] == "True"
        ]
        assert not faults
    finally:
        (await api.delete(f"{DEFINITIONS}/{plural}.{group}")).ok()


async def test_a_trigger(api: Api, name: str) -> None:
    """Defaults, refusals, free data, status and the columns of `kubectl get`."""
    group = f"{name}.example.com"
    (await api.post(DEFINITIONS, renamed("triggers", group))).ok()
    try:
        api.kubectl("wait", "--for=condition=Established", f"crd/triggers.{group}", "--timeout=20s")
        deadline = time.monotonic() + 20  # Established is said a moment before the paths answer
        while "No resources found" not in api.kubectl("get", f"triggers.{group}", check=False):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        meta = {"apiVersion": f"{group}/v1", "kind": "Trigger", "metadata": {"name": "orders"}}
        schedule = {"cron": "*/5 * * * *", "data": {"any": [{"thing": 1}]}}
        spec = {"function": "hello", "source": {"schedule": schedule}, "filter": {"data": {"a": [{"prefix": "x"}]}}}
        api.kubectl("create", "-f", "-", stdin=json.dumps(meta | {"spec": spec}))
        path = f"/apis/{group}/v1/namespaces/{api.ns}/triggers/orders"
        kept = (await api.get(path)).ok()["spec"]
        assert kept["source"]["schedule"] == schedule | {"timeZone": "UTC", "missed": "last"}
        assert kept["filter"] == spec["filter"]
        assert (kept["retries"], kept["maxAgeSeconds"], kept["suspend"]) == (2, 21_600, False)

        two = {"function": "hello", "source": {"schedule": schedule, "event": {}}}
        refused = await api.post(path.rpartition("/")[0], meta | {"metadata": {"name": "two"}, "spec": two})
        refused.refused(422, "Invalid")
        assert "spec.source" in str(refused.body["details"]["causes"])

        ready = {"type": "Ready", "status": "False", "reason": "SourceFailed", "message": "no route"}
        status = {"conditions": [ready], "source": "schedule", "lag": 3, "delivered": 7, "failed": 1}
        (await api.patch(f"{path}/status", {"status": status}, "application/merge-patch+json")).ok()
        head, row = api.kubectl("get", f"triggers.{group}", "orders", "-o", "wide").splitlines()[:2]
        assert head.split() == [
            *("NAME", "READY", "FUNCTION", "SOURCE", "LAG", "LAST", "EVENT", "AGE"),
            *("REASON", "MESSAGE", "DELIVERED", "FAILED"),
        ]
        assert row.split()[:5] == ["orders", "False", "hello", "schedule", "3"]
        assert row.split()[-5:] == ["SourceFailed", "no", "route", "7", "1"]
    finally:
        (await api.delete(f"{DEFINITIONS}/triggers.{group}")).ok()
