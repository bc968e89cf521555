"""Publishes orders to the NATS of `make up`: .venv/bin/python examples/queue/send.py 20"""

import asyncio
import json
import os
import sys

import nats


async def main(count: int) -> None:
    connection = await nats.connect(f"nats://127.0.0.1:{os.environ.get('KAPPA_NATS_PORT', '4222')}")
    for number in range(count):
        await connection.publish("default.orders", json.dumps({"number": number}).encode())
    await connection.close()


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
