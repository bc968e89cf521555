"""Byte code is compiled once per revision: the operator asks the first instance, and gives it to the second."""

import json

from kappa_operator_world import World

MAIN = """
import importlib.machinery
compiled = []
def source_to_code(self, data, path, original=importlib.machinery.SourceFileLoader.source_to_code, **more):
    compiled.append(path.rpartition("/")[2])
    return original(self, data, path, **more)
importlib.machinery.SourceFileLoader.source_to_code = source_to_code
import lib
def handler(event, context):
    return [lib.version, compiled]
"""
LIB = "# " + "padding " * 300 + "\n"


def function(version: int) -> dict[str, object]:
    files = {"main.py": MAIN, "lib.py": f"{LIB}version = {version}\n"}
    return {"runtime": "python", "handler": "main.handler", "code": {"files": files}, "scaling": {"minReplicas": 1}}


async def answers(world: World, count: int, revision: str) -> list[object]:
    """What each instance of the revision says, sorted, once there are so many."""

    async def serving() -> list[object]:
        selector = f"kappa.dev/function=hello,kappa.dev/state=serving,kappa.dev/revision={revision}"
        replies = [await world.invoke(pod) for pod in await world.pods(selector)]
        return sorted((json.loads(body) for status, body in replies if status == 200), key=str)

    found: list[object] = await world.until(serving, lambda replies: len(replies) == count)
    return found


async def test_the_second_instance_does_not_compile(gateway: World) -> None:
    world = gateway
    await world.apply("hello", function(1))
    first = (await world.ready("hello"))["activeRevision"]
    assert await answers(world, 1, first) == [[1, ["lib.py"]]]
    await world.apply("hello", {"scaling": {"minReplicas": 2}})
    assert await answers(world, 2, first) == [[1, ["lib.py"]], [1, []]]

    await world.apply("hello", function(2))
    second = (await world.ready("hello", revision_after=first))["activeRevision"]
    assert await answers(world, 2, second) == [[2, ["lib.py"]], [2, []]]
