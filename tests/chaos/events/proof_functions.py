"""The Function that all events go to: tells this run what it saw, and fails every tenth time. An `async` handler."""

from kappa_collector import client
from proof_feed import Json, Retrying

from kappa_api import names

FAILS = 0.1
CONCURRENCY = 16

_CODE = '''

import json
import random
import re

ID = re.compile(r"proof-[a-z0-9]+-\\d+")


async def one(event):
    """Whether this run of the event succeeds; what is told is what counts."""
    ident = ID.search(json.dumps(event, default=str)).group()
    good = random.random() >= FAILS
    await tell("run", ident, "ok" if good else "failed")
    return good


async def handler(event, context):
    records = event.get("Records") or []
    if len(records) > 1 and all("messageId" in record for record in records):
        bad = [record["messageId"] for record in records if not await one(record)]
        return {"batchItemFailures": [{"itemIdentifier": ident} for ident in bad]}
    if not await one(event):
        raise RuntimeError("every tenth run fails")
    return {"done": True}
'''


def manifest(name: str, port: int, retrying: Retrying) -> Json:
    """`port`: of the collector."""
    spec = {
        "runtime": "python",
        "handler": "main.handler",
        "code": {"inline": client(port) + _CODE.replace("FAILS", str(FAILS))},
        "concurrency": CONCURRENCY,
        "timeoutSeconds": 20,
        "scaling": {"minReplicas": 1, "maxReplicas": 3, "idleSeconds": 30},
        "async": {**retrying.spec(), "resultSeconds": 600},
    }
    kind = {"apiVersion": names.API_VERSION, "kind": names.FUNCTION_KIND}
    return kind | {"metadata": {"name": name}, "spec": spec}
