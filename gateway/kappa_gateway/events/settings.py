"""Settings of events and asynchronous invocations. Read once from the environment by `kappa_gateway.settings`."""

from collections.abc import Mapping
from dataclasses import dataclass

from kappa_api import names


@dataclass(frozen=True, slots=True)
class EventSettings:
    """`urls`: of the NATS servers; none: there is no NATS, and no Triggers. `token`: what they want to see.

    `replicas`: of each stream, 1, 3 or 5. `stored_bytes`: largest body of an asynchronous call; `message_bytes`: larger
    ones are put into the object store. `dead_seconds`: how long dead letters are kept. `ack_seconds`: a delivery that
    nobody speaks for is given to another gateway after so long. `work_bytes`: the work stream takes no more than this;
    callers then get 503.
    """

    urls: tuple[str, ...] = ()
    token: str = ""
    replicas: int = 1
    message_bytes: int = 900 * 1024
    stored_bytes: int = 100 * 1024 * 1024
    dead_seconds: int = 14 * 86_400
    ack_seconds: float = 15.0
    work_bytes: int = 8 * 1024**3


def load(env: Mapping[str, str]) -> EventSettings:
    """Raises ValueError with the variable's name."""
    urls = tuple(url.strip() for url in env.get(names.ENV_NATS_URL, "").split(",") if url.strip())
    replicas = env.get("KAPPA_NATS_REPLICAS") or "1"
    if replicas not in ("1", "3", "5"):
        raise ValueError(f"KAPPA_NATS_REPLICAS={replicas!r} is not 1, 3 or 5")
    return EventSettings(urls=urls, token=env.get(names.ENV_NATS_TOKEN, ""), replicas=int(replicas))
