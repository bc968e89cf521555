"""The streams and buckets that Kappa keeps in JetStream, as a table, and how they are made and kept so.

Whoever comes first makes them; later gateways find them. A setting that was changed is changed in the stream as well,
as far as JetStream can. Nothing is ever deleted here.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from kappa_gateway.events.bus import Bus, RefusedError, UnavailableError
from kappa_gateway.events.settings import EventSettings

log = logging.getLogger(__name__)

Json = Any
WORK: Final = "KAPPA_WORK"
DEAD: Final = "KAPPA_DEAD"
RESULTS: Final = "KAPPA_RESULTS"
STATE: Final = "kappa-state"
OWNERS: Final = "kappa-owners"
KEYS: Final = "kappa-keys"
BODIES: Final = "kappa-bodies"

DEAD_PREFIX: Final = "kappa.dead."
RESULT_PREFIX: Final = "kappa.result."
_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400
DUPLICATE_SECONDS: Final = 600
#: A lease that nobody renewed for so long is anybody's.
OWNER_SECONDS: Final = 10
KEY_SECONDS: Final = _DAY
#: Longest `resultSeconds`; the longest age of work and a day to spare.
RESULT_SECONDS: Final = 7 * _DAY
#: At least; always longer than work waits and is a dead letter then.
BODY_SECONDS: Final = 31 * _DAY
#: The least that the work stream is made with, where the disk has no room for what the settings say.
LEAST_BYTES: Final = 64 * 1024 * 1024
RETRY_SECONDS: Final = 1.0
#: What an update cannot change, and the server fills in.
_COMPARED: Final = ("subjects", "max_age", "max_bytes", "num_replicas", "duplicate_window", "allow_direct", "discard")


def wanted(settings: EventSettings) -> list[dict[str, Json]]:
    """The configuration of each, in JetStream's own terms (times in nanoseconds)."""
    common = {"storage": "file", "num_replicas": settings.replicas, "allow_direct": True, "max_bytes": -1}
    window = {"duplicate_window": DUPLICATE_SECONDS * _SECOND}
    return [
        {
            **common,
            **window,
            "name": WORK,
            "subjects": ["kappa.work.>"],
            "retention": "workqueue",
            "discard": "new",
            "max_age": 0,
            "max_bytes": settings.work_bytes,
        },
        {
            **common,
            **window,
            "name": DEAD,
            "subjects": [DEAD_PREFIX + ">"],
            "retention": "limits",
            "discard": "new",  # a full one holds up the lanes that need it, and loses nothing
            "max_age": settings.dead_seconds * _SECOND,
            "max_bytes": settings.work_bytes // 4,
        },
        {
            **common,
            **window,
            "name": RESULTS,
            "subjects": [RESULT_PREFIX + ">"],
            "retention": "limits",
            "discard": "old",
            "max_age": RESULT_SECONDS * _SECOND,
            "max_bytes": settings.work_bytes // 4,
            "max_msgs_per_subject": 1,
        },
        {**common, **_bucket(STATE, 0)},
        {**common, **_bucket(OWNERS, OWNER_SECONDS)},
        {**common, **_bucket(KEYS, KEY_SECONDS)},
        {
            **common,
            "name": f"OBJ_{BODIES}",
            "subjects": [f"$O.{BODIES}.C.>", f"$O.{BODIES}.M.>"],
            "retention": "limits",
            "discard": "new",
            "max_age": max(BODY_SECONDS, settings.dead_seconds + RESULT_SECONDS) * _SECOND,
            "max_bytes": settings.work_bytes // 2,
            "duplicate_window": 120 * _SECOND,
            "allow_rollup_hdrs": True,
        },
    ]


def _bucket(name: str, seconds: int) -> dict[str, Json]:
    """A key-value bucket: nothing but a stream with these settings (NATS ADR-8)."""
    return {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "retention": "limits",
        "discard": "new",
        "max_age": seconds * _SECOND,
        "max_msgs_per_subject": 1,
        "duplicate_window": min(seconds or 120, 120) * _SECOND,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }


async def ensure(bus: Bus) -> None:
    """Returns when all are there. Tries until it is so; says why it is not."""
    said = ""
    while True:
        try:
            for config in wanted(bus.settings):
                await _ensure(bus, config)
            return
        except UnavailableError as error:
            if bus.up and str(error) != said:
                said = str(error)
                log.warning("the streams of Kappa cannot be made yet: %s", error)
        await asyncio.sleep(RETRY_SECONDS if bus.up else RETRY_SECONDS / 5)


async def _ensure(bus: Bus, config: dict[str, Json]) -> None:
    name = config["name"]
    try:
        known = (await bus.api(f"STREAM.INFO.{name}"))["config"]
    except RefusedError as error:
        if not error.missing:
            raise
        await _create(bus, config)
        return
    changed = {key: config[key] for key in _COMPARED if known.get(key, config[key]) != config[key]}
    if known["max_bytes"] != -1 and known["max_bytes"] < config["max_bytes"]:
        changed.pop("max_bytes", None)  # it was made smaller, as the disk is
    if changed:
        await _update(bus, {**known, **changed}, changed)


async def _create(bus: Bus, config: dict[str, Json]) -> None:
    """JetStream sets the room aside that a stream may take: where it has less, the stream gets less."""
    while True:
        try:
            await bus.api(f"STREAM.CREATE.{config['name']}", config)
            return
        except RefusedError as error:
            if not error.full or config["max_bytes"] <= LEAST_BYTES:
                raise
            config = {**config, "max_bytes": max(LEAST_BYTES, config["max_bytes"] // 2)}
            log.warning("NATS has too little storage for %s: asking for %d bytes", config["name"], config["max_bytes"])


async def _update(bus: Bus, config: Mapping[str, Json], changed: Mapping[str, Json]) -> None:
    try:
        await bus.api(f"STREAM.UPDATE.{config['name']}", config)
        log.info("changed %s: %s", config["name"], ", ".join(sorted(changed)))
    except RefusedError as error:
        log.warning("%s stays as it is: %s", config["name"], error)
