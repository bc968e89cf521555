"""What each function may have when not everybody can have everything: quotas, fairness, idle memory. Pure.

Fair means max-min: no function gets more than it wants, and nobody gets more while another one that wants more has
less. A function that hogs a full cluster is cut back to its share; one that asks for a single instance gets it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """At most this many instances, and why, in a sentence."""

    most: int
    reason: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What one function asks for: `wanted` instances, of which `busy` have work and are never taken away, and of which
    `least` (its minReplicas) are promised."""

    key: str
    wanted: int
    busy: int = 0
    least: int = 0

    @property
    def namespace(self) -> str:
        return self.key.partition("/")[0]


@dataclass(frozen=True, slots=True)
class IdleInstance:
    """An instance (or all idle ones of a function) without work: `memory` bytes, idle for `idle` seconds; `expected`
    is the chance that a call comes within the time that it would still stay, 0 to 1."""

    key: str
    memory: int
    idle: float
    expected: float = 0.0


def share(claims: Iterable[Claim], quotas: Mapping[str, int], capacity: int | None = None) -> dict[str, Limit]:
    """Limits for the functions that get less than they want; the others are left out.

    `quotas` has instances per namespace, `capacity` is what the whole cluster can hold (None: not known to be full).
    """
    limits: dict[str, Limit] = {}
    spaces: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        spaces[claim.namespace].append(claim)
    for namespace, group in spaces.items():
        if (quota := quotas.get(namespace)) is not None:
            for claim, got in _fill(group, quota).items():
                if got < claim.wanted:
                    text = f"the quota of namespace {namespace} is {quota} instances, {got} of them for this function"
                    limits[claim.key] = Limit(got, text)
    if capacity is not None:
        left = [
            Claim(c.key, min(c.wanted, limits[c.key].most) if c.key in limits else c.wanted, c.busy, c.least)
            for group in spaces.values()
            for c in group
        ]
        for claim, got in _fill(left, capacity).items():
            if got < claim.wanted:
                limits[claim.key] = Limit(got, f"the cluster is full ({capacity} instances): the fair share is {got}")
    return limits


def _fill(claims: list[Claim], capacity: int) -> dict[Claim, int]:
    """Max-min fair parts of `capacity`. What is busy stays, even beyond it."""
    got = {claim: min(claim.busy, claim.wanted) for claim in claims}
    left = capacity - sum(got.values())
    # What minReplicas promise comes before the growth of others.
    for claim in sorted(claims, key=lambda c: c.key):
        extra = min(max(0, min(claim.least, claim.wanted) - got[claim]), max(0, left))
        got[claim] += extra
        left -= extra
    while left > 0:
        hungry = [claim for claim in claims if got[claim] < claim.wanted]
        if not hungry:
            break
        lowest = min(got[claim] for claim in hungry)
        poorest = sorted((claim for claim in hungry if got[claim] == lowest), key=lambda c: c.key)
        others = [got[claim] for claim in hungry if got[claim] > lowest]
        step = min(min(claim.wanted for claim in poorest), min(others, default=1 << 30)) - lowest
        step = max(1, min(step, left // len(poorest)))
        for claim in poorest[:left]:
            got[claim] += step
            left -= step
    return got


def over_memory(idle: Iterable[IdleInstance], cap: int) -> frozenset[str]:
    """Keys of the functions whose idle instances have to go so that the others hold at most `cap` bytes: those least
    expected to be called first, then those idle longest."""
    ordered = sorted(idle, key=lambda found: (found.expected, -found.idle, found.key))
    total = sum(found.memory for found in ordered)
    gone = set()
    for found in ordered:
        if total <= cap:
            break
        total -= found.memory
        gone.add(found.key)
    return frozenset(gone)
