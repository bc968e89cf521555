"""The Functions that are called: each stands for one way of using Kappa. An answer proves which request it is to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kappa_api import names

Json = dict[str, Any]

STREAM_PARTS, STREAM_PAUSE = 10, 0.05
ASYNC_SECONDS = 0.02
CYCLE_SECONDS = 0.1

_EVENT = """
import json, time, zlib
REVISION = {revision!r}
"""

SHORT = (
    _EVENT
    + """
def handler(event, context):
    return {{"id": event["queryStringParameters"]["id"], "revision": REVISION}}
"""
)

ASYNC = (
    _EVENT
    + """
import asyncio
async def handler(event, context):
    await asyncio.sleep(0.02)
    return {{"id": event["queryStringParameters"]["id"], "revision": REVISION}}
"""
)

#: Two at a time and a tenth of a second each: the bursts of the cycles need several instances.
CYCLE = ASYNC.replace("0.02", "0.1")

LONG = (
    _EVENT
    + """
def handler(event, context):
    query = event["queryStringParameters"]
    time.sleep(float(query["seconds"]))
    return {{"id": query["id"], "revision": REVISION}}
"""
)

POST = (
    _EVENT
    + """
import base64
def handler(event, context):
    body = event["body"]
    data = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    return {{"id": event["queryStringParameters"]["id"], "revision": REVISION,
             "length": len(data), "crc": zlib.crc32(data)}}
"""
)

#: `/stream` sends numbered server-sent events, `/ws` echoes.
ASGI = """
import asyncio
from urllib.parse import parse_qs
REVISION = {revision!r}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        while True:
            message = await receive()
            if message["type"] == "websocket.connect":
                await send({{"type": "websocket.accept"}})
            elif message["type"] == "websocket.receive":
                await send({{"type": "websocket.send", "text": "echo: " + message["text"]}})
            else:
                return
    ident = parse_qs(scope["query_string"].decode())["id"][0]
    headers = [(b"content-type", b"text/event-stream"), (b"x-revision", REVISION.encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    for number in range(10):
        data = f"data: {{ident}} {{number}}\\n\\n".encode()
        await send({{"type": "http.response.body", "body": data, "more_body": True}})
        await asyncio.sleep(0.05)
    await send({{"type": "http.response.body", "body": b"data: end\\n\\n"}})
"""

#: Takes memory step by step until the kernel, or the kubelet, ends the process.
GREEDY = """
import os, time
REVISION = {revision!r}
def handler(event, context):
    if event["rawPath"] == "/ping":
        return "pong"
    hoard = []
    while True:
        hoard.append(os.urandom(1 << 20) * 8)
        time.sleep(0.005)
"""

#: The async handler, with something that it never gives back, every tenth call.
LEAKS = {
    "memory": ASYNC.replace("    await", "    LEAK.append(bytearray(b'x') * 20_000)\n    await"),
    "fds": ASYNC.replace(
        "    await", "    LEAK.append(open('/dev/null')) if random.random() < 0.1 else None\n    await"
    ),
    "tasks": ASYNC.replace(
        "    await",
        "    LEAK.append(asyncio.create_task(asyncio.sleep(1e6))) if random.random() < 0.1 else None\n    await",
    ),
}
LEAKS = {name: "import random\nLEAK = []\n" + code.format(revision="leak") for name, code in LEAKS.items()}

BROKEN = "import this_module_is_nowhere\n\ndef handler(event, context):\n    return 1\n"


@dataclass(frozen=True, slots=True)
class Load:
    """One Function. `code` has a field for its revision."""

    name: str
    code: str
    spec: Mapping[str, Any]
    handler: str = "main.handler"

    def manifest(self, revision: str, code: str = "") -> Json:
        """The Function as it is applied."""
        spec = {
            "runtime": "python",
            "handler": self.handler,
            "code": {"inline": code or self.code.format(revision=revision)},
            "timeoutSeconds": 30,
            **self.spec,
        }
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.FUNCTION_KIND,
            "metadata": {"name": self.name},
            "spec": json.loads(json.dumps(spec)),
        }


def _fixed(count: int, most: int) -> Json:
    return {"minReplicas": count, "maxReplicas": most}


#: Each has two instances or more: what is promised when one dies is promised for what the others can carry.
FUNCTIONS: dict[str, Load] = {
    load.name: load
    for load in (
        Load("short", SHORT, {"concurrency": 8, "scaling": _fixed(2, 3)}),
        Load("async", ASYNC, {"concurrency": 32, "scaling": _fixed(2, 3)}),
        Load("long", LONG, {"concurrency": 16, "scaling": _fixed(2, 3)}),
        Load("post", POST, {"concurrency": 8, "scaling": _fixed(2, 3)}),
        Load("asgi", ASGI, {"concurrency": 64, "scaling": _fixed(2, 3), "signature": "asgi"}, handler="main.app"),
        Load("cycle", CYCLE, {"concurrency": 2, "scaling": {"minReplicas": 0, "maxReplicas": 5, "idleSeconds": 1}}),
        Load("greedy", GREEDY, {"concurrency": 2, "scaling": {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 5}}),
    )
}
#: Those that the steady load calls, and that are rolled out, deleted and killed.
STEADY = ("short", "async", "long", "post", "asgi")
