"""Fits the cap of connections to the file descriptors that this process may have.

A connection of a caller needs one, and its invocation one more, to the instance. Without descriptors the gateway could
neither reach instances nor watch the cluster, so the cap is set before they run out. Should they run out nevertheless,
libuv closes what waits to be accepted, and goes on.
"""

import logging
import resource
from dataclasses import replace
from typing import Final

from kappa_gateway.settings import Limits

log = logging.getLogger(__name__)

#: For the rest of the process: libraries, watches, the admin port, connections that are being turned away.
RESERVED: Final = 256


def fit(limits: Limits, descriptors: int) -> Limits:
    """The limits with as many connections as there are descriptors for."""
    reserved = min(RESERVED, descriptors // 2)
    most = max(1, (descriptors - reserved) // 2)
    return replace(limits, connections=most) if most < limits.connections else limits


def claim(limits: Limits) -> Limits:
    """Raises this process's limit of descriptors as far as it may, and fits the cap to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * limits.connections + RESERVED
    if soft < wanted:
        soft = min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = fit(limits, soft)
    if found is not limits:
        log.warning(
            "%d file descriptors: at most %d connections instead of %d", soft, found.connections, limits.connections
        )
    return found
