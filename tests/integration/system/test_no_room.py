"""A caller whose function cannot have an instance, and the developer who asks why."""

import asyncio

import pytest
from kappa_platform import System

from kappa_local.platform.kubectl import Answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

FUNCTION = """
apiVersion: kappa.dev/v1
kind: Function
metadata: {name: squeezed, namespace: tight}
spec:
  runtime: python
  handler: main.handler
  code: {inline: "def handler(event, context): return 'hello'"}
  timeoutSeconds: 4
  scaling: {idleSeconds: 1}
"""


async def kubectl(system: System, *args: str) -> Answer:
    answer = await system.kubectl.run([*args])
    assert answer.ok, answer.text
    return answer


async def test_callers_get_503_with_retry_after_and_describe_says_what_is_missing(system: System) -> None:
    await kubectl(system, "create", "namespace", "tight")
    await kubectl(system, "annotate", "namespace", "tight", "kappa.dev/max-instances=0")
    answer = await system.apply(FUNCTION)
    assert answer.ok, answer.text
    await kubectl(system, "-n", "tight", "wait", "fn/squeezed", "--for=condition=Ready", "--timeout=20s")
    await kubectl(
        system, "-n", "tight", "wait", "pod", "-l", "kappa.dev/function=squeezed", "--for=delete", "--timeout=20s"
    )
    async with system.http.get(f"{system.url}/fn/tight/squeezed") as reply:
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert (await reply.json())["error"]["code"] == "no_capacity"
    text = ""
    for _ in range(100):
        text = (await kubectl(system, "-n", "tight", "describe", "fn", "squeezed")).out
        if "Warning" in text:
            break
        await asyncio.sleep(0.1)
    assert "NamespaceQuota" in text
    assert "the quota of namespace tight is 0 instances" in text

    await kubectl(system, "annotate", "namespace", "tight", "kappa.dev/max-instances=1", "--overwrite")
    async with system.http.get(f"{system.url}/fn/tight/squeezed") as reply:
        assert (reply.status, await reply.json()) == (200, "hello")
    found = await kubectl(system, "-n", "tight", "get", "fn", "squeezed", "-o", "json")
    assert '"Capacity"' in found.out
    await kubectl(system, "delete", "namespace", "tight", "--wait=false")
