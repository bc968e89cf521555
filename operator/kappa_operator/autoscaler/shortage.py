"""What people are told when a function cannot have the instances it needs: once when it lasts, once when it is over.

A burst that waits for a second is no news, and neither is a pod that the scheduler places a moment later. So a
shortage is told when it has lasted, and counts as over when it has been gone for a while. Pure; time is an argument.
"""

from dataclasses import dataclass

#: Seconds that a shortage has to last before it is told, by its kind; for a kind not named here the last one.
LASTS = {"MaxReplicas": 5.0}
LASTS_OTHERWISE = 2.0
#: Seconds without it until it is over.
OVER = 15.0
#: A longer pause begins it anew: calls that queue for a moment now and then are no shortage.
PAUSE = 3.0
#: The words of a condition change at most so often: scheduler and quotas count in them.
REWORD = 60.0


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a function gets no more instances: a word for machines, a sentence for people."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class News:
    """Something to tell now. `over`: the shortage of that kind has ended."""

    cause: Cause
    over: bool = False


@dataclass(slots=True)
class _Shortage:
    cause: Cause
    since: float
    seen: float
    told: Cause | None = None
    told_at: float = 0.0


class Shortages:
    """By function key."""

    def __init__(self) -> None:
        self._open: dict[str, _Shortage] = {}

    def keys(self) -> tuple[str, ...]:
        """Those that have to be looked at again, as time alone changes what is told."""
        return tuple(self._open)

    def told(self, key: str) -> Cause | None:
        """The shortage that was told and is not over."""
        found = self._open.get(key)
        return found.told if found is not None else None

    def forget(self, key: str) -> None:
        self._open.pop(key, None)

    def see(self, key: str, cause: Cause | None, now: float) -> News | None:
        """What holds the function back now, if anything does. Returns what is to be told."""
        found = self._open.get(key)
        if cause is None:
            if found is None or now - found.seen < OVER:
                return None
            del self._open[key]
            return News(found.told, over=True) if found.told is not None else None
        if found is None:
            found = self._open[key] = _Shortage(cause, now, now)
        if found.cause.kind != cause.kind or now - found.seen > PAUSE:
            found.since = now
        found.cause, found.seen = cause, now
        if now - found.since < LASTS.get(cause.kind, LASTS_OTHERWISE):
            return None
        told = found.told
        if told is not None and (told == cause or (told.kind == cause.kind and now - found.told_at < REWORD)):
            return None
        found.told, found.told_at = cause, now
        return News(cause)
