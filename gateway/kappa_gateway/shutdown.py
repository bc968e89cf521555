"""Ends the gateway without failing a request.

1. Not ready any more, but everything is served for `shutdown_delay`: endpoints and load balancers learn of it. Each
   reply says `Connection: close`, so busy callers move by themselves.
2. The port is closed; idle connections get a moment in which a request that is already on its way still arrives.
3. What is in flight gets `shutdown_grace`; WebSockets are told to go away; then everything is closed.
"""

import asyncio
import logging
from typing import Final

from kappa_gateway.app import Gateway

log = logging.getLogger(__name__)

#: How long an idle connection is still listened to after the port was closed.
LAST_CALL_SECONDS: Final = 0.5
_STEP: Final = 0.02


async def drain(gateway: Gateway, listener: asyncio.Server) -> None:
    """Returns when no connection is left."""
    settings, server = gateway.settings, gateway.server
    loop = asyncio.get_running_loop()
    gateway.closing = True
    log.info("shutting down: %d connections", len(server.connections))
    await asyncio.sleep(settings.shutdown_delay)
    listener.close()
    retire_at = loop.time() + LAST_CALL_SECONDS
    end = loop.time() + settings.shutdown_grace
    told = False
    while server.connections and loop.time() < end:
        if loop.time() >= retire_at:
            for client in server.clients:
                client.retire()
            if not told:
                told = True
                for relay in list(gateway.relays):
                    relay.go_away()
        await asyncio.sleep(_STEP)
    if server.connections:
        log.warning("closing %d connections that were still in use", len(server.connections))
        await server.shutdown(0.1)
