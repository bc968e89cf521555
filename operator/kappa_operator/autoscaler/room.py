"""Where there is no room for another instance, and who has to do with less because of that. Pure; time is an argument.

That a cluster is full is known only from pods that stay `Unschedulable`, that a ResourceQuota is used up only from its
refusals: both are told here per function (`Stuck`). Then:

* a function that is stuck asks for no more than it has asked for already: pods that nobody can place help nobody;
* when it has less than its fair share of what runs, those that have more are cut back to theirs, and the room is its;
* when that has not helped for a while (its pods are larger than what was freed, or a node lacks something else), it
  no longer counts, and the others get their shares back;
* pools of pods without code give way as well (`full`);
* for some seconds after the last sign nobody takes more than what is known to fit, or the next pods would be stuck.

What fits is the most that was seen running since the first sign.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kappa_operator.autoscaler.share import Claim, Limit, fair

UNSCHEDULABLE, QUOTA = "Unschedulable", "QuotaExceeded"
#: A pod that the scheduler cannot place at once, but soon after, is no sign: something else was just ending.
PATIENCE = 2.0
#: How long after the last sign a place still counts as full.
LINGER = 15.0
#: A function for which room was made in vain this long is not worth it, for so long.
FUTILE, GIVEN_UP = 60.0, 300.0
EVERYWHERE = ""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Why a function's instances cannot be made: `reason` is UNSCHEDULABLE or QUOTA, `message` names what is
    missing."""

    reason: str
    message: str


@dataclass(slots=True)
class _Function:
    """One that is stuck `since`. `short_since`: it has had less than its fair share. `ignored_until`: see FUTILE."""

    stuck: Stuck
    since: float
    short_since: float | None = None
    ignored_until: float = float("-inf")


@dataclass(slots=True)
class _Place:
    """The cluster, or a namespace whose ResourceQuota refuses: `capacity` instances fit."""

    message: str
    capacity: int = 0
    last_sign: float = float("-inf")
    short: bool = False
    limits: dict[str, Limit] = field(default_factory=dict)


class Room:
    """Keys are `namespace/name` of functions; times are monotonic seconds."""

    def __init__(self) -> None:
        self._stuck: dict[str, _Function] = {}
        self._places: dict[str, _Place] = {}

    def __bool__(self) -> bool:
        """Whether anything is, or was lately, full."""
        return bool(self._stuck or self._places)

    def __repr__(self) -> str:
        places = {name or "cluster": place.capacity for name, place in self._places.items()}
        return f"<Room {len(self._stuck)} stuck, full: {places}>"

    def tell(self, key: str, stuck: Stuck | None, now: float) -> bool:
        """What hinders a function now, None for nothing; returns whether that is news."""
        known = self._stuck.get(key)
        if stuck is None:
            return self._stuck.pop(key, None) is not None
        if known is None or known.stuck.reason != stuck.reason:
            self._stuck[key] = _Function(stuck, now)
            return True
        known.stuck = stuck
        return False

    def stuck(self, key: str) -> Stuck | None:
        known = self._stuck.get(key)
        return known.stuck if known is not None else None

    def full(self) -> frozenset[str]:
        """Namespaces without room, or EVERYWHERE: what is only kept ready gives way there."""
        return frozenset(self._places)

    def keys(self) -> Iterable[str]:
        """Every function that is stuck."""
        return tuple(self._stuck)

    def limits(
        self, now: float, claims: Mapping[str, Claim], current: Mapping[str, int], running: Mapping[str, int]
    ) -> dict[str, Limit]:
        """Limits for those who may not have what they claim. `current` instances are wanted so far, `running` ones have
        a place."""
        signs = {key: found for key, found in self._stuck.items() if now - found.since >= PATIENCE}
        for key, found in signs.items():
            name = EVERYWHERE if found.stuck.reason == UNSCHEDULABLE else key.partition("/")[0]
            place = self._places.setdefault(name, _Place(found.stuck.message))
            if found.ignored_until <= now:
                place.message, place.last_sign = found.stuck.message, now
        limits: dict[str, Limit] = {}
        for name, place in list(self._places.items()):
            if now - place.last_sign > LINGER:
                del self._places[name]
                continue
            members = [c for c in claims.values() if name in (EVERYWHERE, c.namespace)]
            mine = {key: found for key, found in signs.items() if self._at(name, key, found)}
            limits |= self._shares(now, name, place, members, mine, running)
        for key, found in signs.items():
            most = current.get(key, 0)
            if key not in limits or limits[key].most > most:
                limits[key] = Limit(most, found.stuck.message, found.stuck.reason)
        return limits

    @staticmethod
    def _at(place: str, key: str, found: _Function) -> bool:
        return place == (EVERYWHERE if found.stuck.reason == UNSCHEDULABLE else key.partition("/")[0])

    def _shares(
        self,
        now: float,
        name: str,
        place: _Place,
        members: list[Claim],
        stuck: Mapping[str, _Function],
        running: Mapping[str, int],
    ) -> dict[str, Limit]:
        """Fair shares of one place, if somebody there has too little, or nobody is stuck any more."""
        place.capacity = max(place.capacity, sum(running.get(claim.key, 0) for claim in members))
        counted = [c for c in members if c.key not in stuck or stuck[c.key].ignored_until <= now]
        parts = {claim.key: (claim, got) for claim, got in fair(counted, place.capacity).items()}
        short = False
        for key, found in stuck.items():
            if key not in parts or running.get(key, 0) >= parts[key][1]:
                found.short_since = None
                continue
            short = True
            found.short_since = now if found.short_since is None else found.short_since
            if now - found.short_since > FUTILE:
                found.short_since, found.ignored_until = None, now + GIVEN_UP
        if stuck and not short:
            return {}
        where = "the cluster" if name == EVERYWHERE else f"namespace {name}"
        full = f"{where} is full with {place.capacity} instances ({place.message})"
        return {
            key: Limit(got, f"{full}: the fair share of this function is {got}")
            for key, (claim, got) in parts.items()
            if got < claim.wanted
        }
