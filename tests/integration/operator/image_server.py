"""A function image: any HTTP server on $PORT. `FAIL=1` makes it exit with words on its standard output."""

import os
import sys

from aiohttp import web


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="from an image")


if __name__ == "__main__":
    if os.environ.get("FAIL"):
        print("cannot open the vault", flush=True)
        sys.exit(3)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hello)
    web.run_app(app, host=os.environ["POD_IP"], port=int(os.environ["PORT"]), print=None)
