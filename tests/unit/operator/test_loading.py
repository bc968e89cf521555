"""What the operator sends to a pod besides the code: byte code, once an instance has compiled it."""

from typing import Any

from kappa_operator_fakes import FakeKube, Time

from kappa_api.function import Code, FunctionSpec
from kappa_api.wire import ByteCode, Specialize
from kappa_operator import loading
from kappa_operator.loading import Loader
from kappa_operator.observed import FunctionRecord, Pod
from kappa_operator.settings import Settings
from kappa_operator.sources import Content
from kappa_operator.store import Store

RECORD = FunctionRecord("ns", "fn", "uid", 1, 1, False, None, "", {})
FILES = {"main.py": b"x = 1"}
CONTENT = Content(FunctionSpec(Code(files={}), "python", "main.handler", "event"), FILES)
COMPILED = ByteCode("t", {"main.py": b"compiled"})


class Client:
    """Notes the messages; answers with byte code when asked, as a runtime does."""

    def __init__(self, answer: ByteCode | None = COMPILED) -> None:
        self.answer = answer
        self.seen: list[tuple[bool, ByteCode | None]] = []

    async def specialize(self, pod: Pod, message: Specialize, timeout: float) -> ByteCode | None:
        self.seen.append((message.want_byte_code, message.byte_code))
        return self.answer if message.want_byte_code else None


async def load(client: Any, *pods: tuple[str, str], content: Content = CONTENT) -> None:
    """Gives each of these pods, as (revision, image), its code."""
    kube: Any = FakeKube()
    loader = Loader(kube, client, Store(), Settings(b"s", "op", gateway_url="http://g"), Time().clock())
    for revision, image in pods:
        pod = Pod("ns", "p", "uid", 1, 0.0, ip="127.0.0.1", image=image, ready=True)
        await loader.specialize(RECORD, pod, revision, content)


async def test_the_first_is_asked_and_the_others_are_given() -> None:
    client = Client()
    await load(client, ("r1", "python:1"), ("r1", "python:1"), ("r2", "python:1"), ("r1", "python:2"))
    assert client.seen == [(True, None), (False, COMPILED), (True, None), (True, None)]


async def test_a_runtime_that_tells_none_is_asked_once() -> None:
    client = Client(ByteCode("", {}))
    await load(client, ("r1", "python:1"), ("r1", "python:1"))
    assert client.seen == [(True, None), (False, None)]


async def test_a_pod_that_held_its_code_already_says_nothing_about_byte_code() -> None:
    client = Client(None)
    await load(client, ("r1", "python:1"), ("r1", "python:1"))
    assert client.seen == [(True, None), (True, None)]


async def test_large_code_goes_without(monkeypatch: Any) -> None:
    monkeypatch.setattr(loading, "MOST_SOURCE_BYTES", 4)
    client = Client()
    await load(client, ("r1", "python:1"), ("r1", "python:1"))
    assert client.seen == [(False, None), (False, None)]
