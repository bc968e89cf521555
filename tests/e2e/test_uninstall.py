"""The life of a release: helm test, rights, upgrade, foreign CRDs, uninstall. Last, as it ends the installation."""

from pathlib import Path

import pytest
from kappa_e2e import Cluster, eventually, function, is_ready, names_of, returns

CHART = str(Path(__file__).resolve().parents[2] / "charts" / "kappa")


async def upgrade(kappa: Cluster, values: Path, *flags: str) -> str:
    command = ["helm", "upgrade", "kappa", CHART, "-n", kappa.system, "-f", str(values), "--wait", "--timeout", "180s"]
    answer = await kappa.run(*command, *flags)
    return "" if answer.ok else answer.text


async def test_helm_test(kappa: Cluster) -> None:
    answer = await kappa.run("helm", "test", "kappa", "-n", kappa.system, "--timeout", "60s")
    assert answer.ok, answer.text


@pytest.mark.parametrize(
    ("who", "what", "allowed"),
    [
        ("operator", ["delete", "pods"], True),
        ("operator", ["get", "secrets"], False),
        ("operator", ["delete", "functions.kappa.dev"], False),
        ("operator", ["create", "deployments.apps"], False),
        ("gateway", ["watch", "functions.kappa.dev"], True),
        ("gateway", ["watch", "triggers.kappa.dev"], True),
        ("gateway", ["patch", "triggers.kappa.dev"], False),
        ("gateway", ["create", "pods"], False),
        ("gateway", ["get", "configmaps"], False),
        ("gateway", ["get", "secrets"], False),
    ],
    ids=str,
)
async def test_rights(kappa: Cluster, who: str, what: list[str], allowed: bool) -> None:
    account = f"system:serviceaccount:{kappa.system}:kappa-{who}"
    answer = await kappa.run("kubectl", "auth", "can-i", *what, "--as", account, "-n", kappa.namespace)
    assert answer.out.strip() == ("yes" if allowed else "no"), answer.text


async def test_upgrade_keeps_the_secret_and_serves_on(kappa: Cluster, values: Path) -> None:
    await kappa.apply(function("during", returns("here", 0.02), scaling={"minReplicas": 1}))
    await kappa.until("during", lambda status: status.get("readyReplicas", 0) >= 1)
    secrets = ("kappa-platform", "kappa-nats")
    before = [(await kappa.get("secret", name, namespace=kappa.system))["data"] for name in secrets]
    async with kappa.load("during", 4, pause=0.02) as load:
        failure = await upgrade(kappa, values, "--set-string", "operator.podAnnotations.example\\.org/step=2")
    assert failure == ""
    assert load.failures == []
    assert [(await kappa.get("secret", name, namespace=kappa.system))["data"] for name in secrets] == before
    await kappa.apply(function("during", returns("there", 0.02)))
    await kappa.until("during", is_ready)
    assert (await kappa.call("during")).json == "there"


async def test_upgrade_refuses_other_crds(kappa: Cluster, values: Path) -> None:
    await kappa.kubectl("annotate", "crd", "functions.kappa.dev", "--overwrite", "kappa.dev/schema-digest=old")
    failure = await upgrade(kappa, values)
    assert "kubectl apply --server-side --force-conflicts" in failure
    assert await upgrade(kappa, values, "--set", "crds.check=false") == ""
    # What the message says to do.
    shown = await kappa.run("helm", "show", "crds", CHART)
    await kappa.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=shown.out)
    assert await upgrade(kappa, values) == ""


async def test_upgrade_refuses_to_lose_what_nats_holds(kappa: Cluster, values: Path) -> None:
    assert "cannot become 1" in await upgrade(kappa, values, "--set", "nats.replicas=1")


async def test_uninstall_leaves_no_pods(kappa: Cluster) -> None:
    await kappa.kubectl("delete", "fn", "--all")
    answer = await kappa.run("helm", "uninstall", "kappa", "-n", kappa.system, "--wait", "--timeout", "120s")
    assert answer.ok, answer.text

    async def nothing_left() -> tuple[bool, object]:
        pods = [*await kappa.get("pods"), *await kappa.get("pods", namespace=kappa.system)]
        return not pods, names_of(pods)

    await eventually(nothing_left, 120, "pods after uninstall")
    crds = names_of(await kappa.get("crd"))
    assert {"functions.kappa.dev", "runtimes.kappa.dev", "triggers.kappa.dev"} <= set(crds)
