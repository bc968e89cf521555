"""The kinds of sources that a Trigger may have: one small module each, which reads its part of `spec.source`.

Adding one: a module here with a frozen dataclass and `read`, a line in READERS, its part of the CRD, and a module of
the same name in `kappa_gateway.events.sources`.
"""

from collections.abc import Callable
from typing import Any, Final

from kappa_api.fields import Reader
from kappa_api.sources import event, kubernetes, kv, mqtt, postgres, redis, s3, schedule, stream, subject, webhook
from kappa_api.sources import object as objects

#: Under the field's name in `spec.source`. A reader reports faults to its Reader and calls `unknown()` itself.
READERS: Final[dict[str, Callable[[Reader], Any]]] = {
    "event": event.read,
    "kubernetes": kubernetes.read,
    "kv": kv.read,
    "mqtt": mqtt.read,
    "object": objects.read,
    "postgres": postgres.read,
    "redis": redis.read,
    "s3": s3.read,
    "schedule": schedule.read,
    "stream": stream.read,
    "subject": subject.read,
    "webhook": webhook.read,
}
