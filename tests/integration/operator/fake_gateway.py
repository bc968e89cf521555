"""A gateway's admin port and nothing else, run as a pod: tests set what `/v1/stats` answers by POST to `/set`."""

import os
import time

from aiohttp import web

STATE: dict[str, object] = {"functions": {}, "draining": {}, "epoch": "1"}


async def stats(_: web.Request) -> web.Response:
    return web.json_response({"gateway": os.environ["POD_NAME"], "clock": time.monotonic(), **STATE})


async def change(request: web.Request) -> web.Response:
    STATE.update(await request.json())
    return web.Response()


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/v1/stats", stats)
    app.router.add_post("/set", change)
    web.run_app(app, host=os.environ["POD_IP"], port=8081, print=None)
