"""What went wrong once when two things met, each in the smallest case."""

import pytest
from kappa_operator_random import NAMES, Cluster
from kappa_operator_unit import PODS

from kappa_api import names
from kappa_operator.claiming import Claiming, Reservations, TwiceReservedError


async def two_functions(latency: float = 0.05, pod_latency: float = 0.02) -> Cluster:
    """Two functions with an instance each, and two pods in the pool. Code is sent and loaded before the label is."""
    cluster = Cluster(2, latency, pod_latency)
    for name in NAMES:
        cluster.apply(name)
    await cluster.run(3.0)
    assert cluster.state() == ["pool", "pool", "serving fn v1", "serving fn2 v2"]
    return cluster


async def test_a_killed_leaders_half_made_instance_never_serves_another_function() -> None:
    """Killed between the code and the label: a pod of the pool holds fn's code. The next leader must not label it as
    an instance of fn2 before the pod has said what it holds."""
    cluster = await two_functions()
    cluster.want("fn", 2)
    await cluster.run(0.0)
    await cluster.run(0.03)
    assert "pool  v1" in cluster.state()
    await cluster.leader.die()
    cluster.lead()
    cluster.want("fn", 1)
    cluster.want("fn2", 3)
    await cluster.run(0.3)
    assert cluster.mixed == []
    await cluster.run(10.0)
    assert cluster.state() == cluster.right()
    assert cluster.mixed == []


@pytest.mark.parametrize("fault", ["fails", "fails after it was done"])
async def test_neither_does_one_whose_label_could_not_be_written(fault: str) -> None:
    cluster = await two_functions(0.0, 0.0)
    cluster.api_fault, cluster.only_pods = fault, True
    cluster.want("fn", 2)
    await cluster.run(0.0)
    assert cluster.api_fault == ""
    cluster.want("fn", 1)
    cluster.want("fn2", 3)
    await cluster.run(0.3)
    assert cluster.mixed == []
    await cluster.run(20.0)
    assert cluster.state() == cluster.right()
    assert cluster.mixed == []


async def test_a_state_that_only_a_hand_can_have_written_is_told(caplog: pytest.LogCaptureFixture) -> None:
    cluster = await two_functions()
    path, raw = next((path, raw) for path, raw in cluster.pods().items() if "kappa.dev/function" in str(raw))
    labels = {**raw["metadata"]["labels"], names.LABEL_STATE: "pool"}
    cluster.put(path, {**raw, "metadata": {**raw["metadata"], "labels": labels}})
    await cluster.run(0.0)
    assert cluster.leader.store.unexpected == 1
    assert f"pod {path.replace(PODS, 'ns').lstrip('/')}: its state was changed from 'serving' to 'pool'" in caplog.text


class Told:
    def __init__(self) -> None:
        self.count = 1

    def claim_counted(self, key: str, revision: str) -> None:
        self.count -= 1

    def claim_again(self, key: str, revision: str) -> None:
        self.count += 1


def test_a_claim_counts_until_its_pod_does() -> None:
    told, reserved = Told(), Reservations()
    claim = Claiming(told, reserved, "ns/fn", "r1")
    claim.reserve("ns/a")
    assert (told.count, list(reserved), repr(claim)) == (1, ["ns/a"], "<Claiming ns/fn r1 reserved ns/a>")
    with pytest.raises(TwiceReservedError):
        Claiming(told, reserved, "ns/fn2", "r1").reserve("ns/a")
    claim.labelled()
    assert told.count == 0
    claim.failed()
    assert (told.count, list(reserved)) == (1, ["ns/a"])  # until it is deleted
    claim.let_go()
    claim.reserve("ns/b")
    claim.labelled()
    claim.end()
    claim.end()
    assert (told.count, list(reserved), repr(claim)) == (0, [], "<Claiming ns/fn r1 over>")
