"""How many pods a pool should hold: a pure policy over the claims of the past. Time is an argument (monotonic seconds).

A claimed pod is replaced at once, and its replacement is usable one start later. So n pods meet every claim as long as
no more than n claims fall within one start. The pool holds the most that lately fell within one; a burst is
remembered whole for a while, and then let go by halves.
"""

from collections import deque
from dataclasses import dataclass

#: What a pod needs to become Ready until it has been measured.
DEFAULT_START_SECONDS = 1.5
#: A measured start outside of these says more about the cluster than about the next start.
LEAST_START_SECONDS, MOST_START_SECONDS = 0.2, 30.0
KEPT_STARTS = 9
#: As many as the largest pool may have.
KEPT_CLAIMS = 1000


@dataclass(frozen=True, slots=True)
class SizePolicy:
    """`hold_seconds`: how long a burst counts in full. Longer: more idle pods after a burst, fewer slow starts in the
    next. `half_life_seconds`: in which time half of it is forgotten after that."""

    hold_seconds: float = 300.0
    half_life_seconds: float = 300.0


class ClaimHistory:
    """What one pool has seen: when pods were claimed, and how long new ones took to start."""

    def __init__(self, policy: SizePolicy | None = None) -> None:
        self._policy = policy or SizePolicy()
        self._claims: deque[float] = deque(maxlen=KEPT_CLAIMS)
        self._starts: deque[float] = deque(maxlen=KEPT_STARTS)
        self._peak = 0.0
        self._peak_at = 0.0

    def __repr__(self) -> str:
        return f"<ClaimHistory peak={self._peak:g} at={self._peak_at:g} start={self.start_seconds:g}>"

    @property
    def start_seconds(self) -> float:
        """What a new pod needs until it is usable: the third quartile of the last starts."""
        if not self._starts:
            return DEFAULT_START_SECONDS
        usual = sorted(self._starts)[len(self._starts) * 3 // 4]
        return min(max(usual, LEAST_START_SECONDS), MOST_START_SECONDS)

    def started(self, seconds: float) -> None:
        """A pod of the pool became Ready this long after it was made."""
        self._starts.append(seconds)

    def claimed(self, now: float) -> None:
        """A function took a pod, or would have taken one."""
        self._claims.append(now)
        while now - self._claims[0] >= self.start_seconds:
            self._claims.popleft()
        self._reached(len(self._claims), now)

    def found(self, pods: int, now: float) -> None:
        """The pods that an earlier leader kept: it had its reasons."""
        self._reached(pods, now)

    def _reached(self, count: int, now: float) -> None:
        if count >= self.level(now):
            self._peak, self._peak_at = float(count), now

    def level(self, now: float) -> float:
        """The burst that is remembered, as far as it still counts."""
        age = max(0.0, now - self._peak_at - self._policy.hold_seconds)
        return float(self._peak * 0.5 ** (age / self._policy.half_life_seconds))

    def size(self, low: int, high: int, now: float) -> int:
        """How many pods to hold, within `low` and `high` (the upper bound wins)."""
        return min(high, max(low, int(self.level(now) + 0.5)))
