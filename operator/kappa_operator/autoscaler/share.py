"""What each function may have when not everybody can have everything: quotas, fairness, idle memory. Pure.

Fair means max-min: no function gets more than it wants, and nobody gets more while another one that wants more has
less. A function that hogs a full cluster is cut back to its share; one that asks for a single instance gets it.

In order: what is busy stays, unless calls wait there too (an instance that is given up takes no more calls, and goes
when those it has have ended); everybody who has calls and no instance gets a first one, if need be from the one that
has most; what minReplicas promise; growth, by max-min; and what is left keeps idle functions warm, those most expected
to be called first.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Limit:
    """At most this many instances, and why, in a sentence. `kind` names the cause in one word, as an Event does."""

    most: int
    reason: str
    kind: str = "FairShare"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one function asks for: `wanted` instances, of which `busy` have work (and nothing waits), and of which
    `least` (its minReplicas) are promised. `idle`: it has no call at all, and would only like to stay warm; `expected`
    is the chance that it is called meanwhile, 0 to 1."""

    key: str
    wanted: int
    busy: int = 0
    least: int = 0
    idle: bool = False
    expected: float = 0.0

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
            for claim, got in fair(group, quota).items():
                if got < claim.wanted:
                    text = f"the quota of namespace {namespace} is {quota} instances, {got} of them for this function"
                    limits[claim.key] = Limit(got, text, "NamespaceQuota")
    if capacity is not None:
        left = [
            replace(c, wanted=min(c.wanted, limits[c.key].most) if c.key in limits else c.wanted)
            for group in spaces.values()
            for c in group
        ]
        for claim, got in fair(left, capacity).items():
            if got < claim.wanted:
                limits[claim.key] = Limit(got, f"the cluster is full ({capacity} instances): the fair share is {got}")
    return limits


def fair(claims: list[Claim], capacity: int) -> dict[Claim, int]:
    """Max-min fair parts of `capacity`; in sum more than that only by what is busy."""
    got = {claim: min(claim.busy, claim.wanted) for claim in claims}
    left = _first_ones(got, capacity)
    for claim in sorted(claims, key=lambda c: c.key):
        extra = min(max(0, min(claim.least, claim.wanted) - got[claim]), max(0, left))
        got[claim] += extra
        left -= extra
    active = [claim for claim in claims if not claim.idle]
    while left > 0:
        hungry = [claim for claim in active if got[claim] < claim.wanted]
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
    for claim in sorted((c for c in claims if c.idle), key=lambda c: (-c.expected, c.key)):
        extra = min(claim.wanted - got[claim], max(0, left))
        got[claim] += extra
        left -= extra
    return got


def _first_ones(got: dict[Claim, int], capacity: int) -> int:
    """A first instance for each one that has calls and none, as far as each can have one; returns what is left."""
    left, holders = capacity - sum(got.values()), sum(got[claim] > 0 for claim in got)
    for claim in sorted((c for c in got if c.wanted and not c.idle and not got[c]), key=lambda c: c.key):
        if holders >= capacity:
            break
        if left > 0:
            left -= 1
        else:
            got[max(got, key=lambda c: (got[c], c.key))] -= 1
        got[claim] = 1
        holders += 1
    return left


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
