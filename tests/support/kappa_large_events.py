"""Large events in tests: Triggers that bring them, data of each kind, and how many bodies the bucket holds."""

from typing import Any

from kappa_events_rig import EventsRig

from kappa_api.cloudevents import CloudEvent
from kappa_gateway.events.streams import BODIES

BUCKET = f"OBJ_{BODIES}"
TEXT = "größe\n" * 400_000  # 2.8 MB in UTF-8, 3.2 MB in JSON
ROW = {"sequence": "7", "rows": [{"n": number, "text": "x" * 40} for number in range(30_000)], "blob": "y" * 500_000}
RAW = bytes(range(256)) * 8_000
NOW = {"seconds": 0}
MIB = 1024 * 1024


def trigger(gateway: EventsRig, name: str = "t", function: str = "hello", at: int = 1, **spec: Any) -> str:
    gateway.events.host.triggers.synced = True
    gateway.events.host.triggers.put(
        {
            "metadata": {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": at},
            "spec": {"function": function, "source": {"event": {}}, "backoff": NOW, **spec},
        }
    )
    return f"default/{name}"


def event(number: int, data: Any, **more: Any) -> CloudEvent:
    return CloudEvent(id=str(number), source="/test", type="a.b", data=data, **more)


async def emit(gateway: EventsRig, key: str, *events: CloudEvent) -> None:
    await gateway.events.host.sink(key).emit(events)


async def bodies(gateway: EventsRig, count: int) -> None:
    """The bucket holds so many bodies in the end."""

    async def there() -> bool:
        found = await gateway.events.bus.api(f"STREAM.INFO.{BUCKET}", {"subjects_filter": f"$O.{BODIES}.M.>"})
        if count == 0:
            return bool(found["state"]["messages"] == 0)
        return len(found["state"].get("subjects") or {}) == count

    await gateway.until(there)
