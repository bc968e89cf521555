"""The baseline of `make bench-events`: nats-py alone. One process publishes into a work queue and consumes it again.

python events_bare.py NATS_URL TOKEN COUNT IN_FLIGHT

As plain programs do it: `js.publish` awaited by IN_FLIGHT tasks, `fetch(IN_FLIGHT)` and `ack` by one more. Prints JSON:
messages, seconds, and the CPU seconds of this process.
"""

import asyncio
import json
import os
import sys
import time

import nats
import uvloop
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

STREAM, SUBJECT, CONSUMER = "BENCH_BARE", "bench.bare.in", "bench"
BODY_BYTES = 256


async def publish(js: JetStreamContext, count: int, width: int) -> None:
    body, numbers = b"x" * BODY_BYTES, iter(range(count))

    async def some() -> None:
        for _ in numbers:
            await js.publish(SUBJECT, body)

    await asyncio.gather(*(some() for _ in range(width)))


async def consume(js: JetStreamContext, count: int, width: int) -> None:
    config = ConsumerConfig(max_ack_pending=10_000)
    subscription = await js.pull_subscribe(SUBJECT, durable=CONSUMER, stream=STREAM, config=config)
    seen = 0
    while seen < count:
        for message in await subscription.fetch(width, timeout=10):
            await message.ack()
            seen += 1


def cpu() -> float:
    now = os.times()
    return now.user + now.system


async def main(url: str, token: str, count: int, width: int) -> None:
    client = await nats.connect(url, token=token or None)
    js = client.jetstream(timeout=10)
    config = StreamConfig(
        name=STREAM, subjects=[SUBJECT], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE
    )
    await js.add_stream(config)
    await publish(js, 100, 4)
    await consume(js, 100, 10)
    begun, used = time.perf_counter(), cpu()
    await asyncio.gather(publish(js, count, width), consume(js, count, width))
    print(json.dumps({"messages": count, "seconds": time.perf_counter() - begun, "cpu": cpu() - used}))
    await js.delete_stream(STREAM)
    await client.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
