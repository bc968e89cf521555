"""What to do about one Function: a pure function from what is there to a list of actions.

The rules, in the order of the code:
1. An instance that has ended is deleted; one that drains is seen through to its end.
2. A revision that is not proven yet gets exactly one instance; meanwhile the active revision keeps the wanted number.
3. The revision in charge (the newest proven one) is brought to the wanted number.
4. Instances of other revisions are drained only as far as those of the revision in charge replace them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kappa_api import names
from kappa_operator.observed import Pod

#: An instance that dies younger than this counts as trouble: the next one waits for the back-off.
YOUNG_SECONDS = 60.0
#: What is in service at a pod of which no gateway tells: as good as very much.
UNKNOWN = 1 << 30
#: One that serves nobody and is not Ready for so long is asked whether it lives. New ones are Ready before.
MUTE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything `plan` looks at. Pods are named by `namespace/name`.

    `target` is the revision the spec asks for, empty when there is none to be had (a bad spec, code that cannot be
    fetched, a revision that has failed). `active` is the one last proven. `claiming` counts claims under way that
    have no pod yet; `busy` are pods that a task is working on, `leaving` those of them that it drains or deletes;
    `verified` are serving pods known to hold their revision. `hold`: no new instances now (back-off after failures);
    `refused`: the last ones had no room under a quota, so one is tried before the others. `in_service` is what gateways
    report per pod; a pod that is not in it may be busy. `hung`: pods that are silent to a gateway.
    """

    target: str
    active: str
    wanted: int
    pods: tuple[Pod, ...]
    hold: bool = False
    hold_proof: bool = False
    refused: bool = False
    claiming: Mapping[str, int] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    verified: frozenset[str] = frozenset()
    in_service: Mapping[str, int] = field(default_factory=dict)
    hung: frozenset[str] = frozenset()
    now: float = 0.0
    start_seconds: float = 120.0
    sick_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Get one more instance of a revision. `prove`: it must load before anybody calls it."""

    revision: str
    prove: bool


@dataclass(frozen=True, slots=True)
class Specialize:
    """Give a starting pod its code, and let it serve when that has loaded."""

    pod: str
    revision: str
    prove: bool


@dataclass(frozen=True, slots=True)
class Promote:
    """Let a starting pod of an image function serve: it is Ready."""

    pod: str
    revision: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask a serving pod whether it really holds its revision (after a restart of the operator)."""

    pod: str
    revision: str


@dataclass(frozen=True, slots=True)
class Question:
    """Ask a serving pod that seems to be hung whether it lives, and delete it when it does not say so."""

    pod: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop giving a pod invocations, let it finish, delete it. `drain` of one that drains already goes on with it."""

    pod: str
    reason: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a pod that serves nobody. `trouble` is (reason, message) when that is bad news for the function."""

    pod: str
    reason: str
    trouble: tuple[str, str] = ("", "")


Action = Claim | Specialize | Promote | Verify | Question | Drain | Delete


def plan(s: Situation) -> tuple[Action, ...]:
    """The actions that the situation calls for, in order. Doing them and planning again comes to rest with none."""
    actions: list[Action] = []
    free = [pod for pod in s.pods if pod.key not in s.busy and not pod.deleting]
    for pod in free:
        if pod.ended:
            actions.append(_bury(pod, s))
        elif pod.state == names.STATE_DRAINING:
            actions.append(Drain(pod.key, "was told to drain"))

    # One that is on its way out counts no more, though its label may not say so yet: else another one would go too.
    live = [
        pod
        for pod in s.pods
        if pod.live and pod.state in (names.STATE_STARTING, names.STATE_SERVING) and pod.key not in s.leaving
    ]
    sick = {p.key for p in live if p.state == names.STATE_SERVING and _sick(p, s)}
    actions += [Drain(key, f"not Ready for {s.sick_seconds:g} s") for key in sorted(sick - s.busy)]
    live = [pod for pod in live if pod.key not in sick]
    wanted_revisions = {revision for revision in (s.target, s.active) if revision}

    for pod in live:
        if pod.key in s.busy or pod.state != names.STATE_STARTING:
            continue
        prove = pod.revision != s.active
        if pod.revision not in wanted_revisions:
            actions.append(Delete(pod.key, f"revision {pod.revision} is not wanted any more"))
        elif not pod.runtime and pod.ready:
            actions.append(Promote(pod.key, pod.revision))
        elif s.now - pod.created > s.start_seconds and not pod.problem[0]:
            why = f"did not start within {s.start_seconds:g} s"
            actions.append(Delete(pod.key, why, ("StartTimeout", f"instance {pod.name} {why}")))
        elif pod.runtime and pod.ip:
            actions.append(Specialize(pod.key, pod.revision, prove))
    # Before it is verified: that would hold it, and wait.
    idle = [pod for pod in live if pod.state == names.STATE_SERVING and pod.key not in s.busy and pod.ip]
    actions += [Question(pod.key) for pod in idle if pod.key in s.hung or _mute(pod, s)]
    actions += [Verify(pod.key, pod.revision) for pod in idle if not _holds(pod, s)]

    in_charge = s.active or s.target
    if s.target and s.target != s.active:
        if not s.hold_proof and _count(live, s, s.target) < 1:
            actions.append(Claim(s.target, prove=True))
        in_charge = s.active
    if in_charge:
        missing = s.wanted - _count(live, s, in_charge)
        if missing > 0 and not s.hold:
            tries = missing if not s.refused else min(missing, 1 - s.claiming.get(in_charge, 0))
            actions += [Claim(in_charge, prove=False)] * tries
        elif missing < 0:
            actions += _surplus(live, s, in_charge, -missing)
    serving = [pod for pod in live if pod.state == names.STATE_SERVING]
    others = [pod for pod in serving if pod.revision != in_charge and pod.revision != s.target]
    in_place = sum(1 for pod in serving if pod.revision == in_charge and _holds(pod, s))
    keep = max(0, s.wanted - in_place) if in_charge else s.wanted
    actions += [
        Drain(pod.key, f"revision {pod.revision} is replaced by {in_charge}")
        for pod in _emptiest_first(others, s)[: max(0, len(others) - keep)]
        if pod.key not in s.busy
    ]
    leaving = {action.pod for action in actions if isinstance(action, Drain | Delete)}
    staying = Specialize | Promote | Verify | Question
    return tuple(a for a in actions if not (isinstance(a, staying) and a.pod in leaving))


def _holds(pod: Pod, s: Situation) -> bool:
    """Whether a serving pod is known to hold its revision; an image always does."""
    return not pod.runtime or pod.key in s.verified


def _bury(pod: Pod, s: Situation) -> Delete:
    reason = pod.problem[0] or pod.phase
    young = pod.state == names.STATE_STARTING or s.now - pod.created < YOUNG_SECONDS
    bad = young and pod.state in (names.STATE_STARTING, names.STATE_SERVING)
    why = (reason, f"instance {pod.name} ended: {pod.problem[1] or reason}") if bad else ("", "")
    return Delete(pod.key, f"ended: {reason}", why)


def _sick(pod: Pod, s: Situation) -> bool:
    return bool(not pod.ready and pod.unready_since and pod.phase == "Running") and (
        s.now - pod.unready_since > s.sick_seconds
    )


def _mute(pod: Pod, s: Situation) -> bool:
    unready = bool(not pod.ready and pod.unready_since and pod.phase == "Running")
    return unready and s.now - pod.unready_since > MUTE_SECONDS and s.in_service.get(pod.key, UNKNOWN) == 0


def _count(live: list[Pod], s: Situation, revision: str) -> int:
    return sum(1 for pod in live if pod.revision == revision) + s.claiming.get(revision, 0)


def _surplus(live: list[Pod], s: Situation, revision: str, count: int) -> list[Action]:
    """Starting pods nobody works on go first, then the emptiest serving ones."""
    idle = [p for p in live if p.revision == revision and p.key not in s.busy]
    starting = [p for p in idle if p.state == names.STATE_STARTING]
    serving = _emptiest_first([p for p in idle if p.state == names.STATE_SERVING], s)
    gone: list[Action] = [Delete(pod.key, "is not needed any more") for pod in starting[:count]]
    gone += [Drain(pod.key, "is not needed any more") for pod in serving[: count - len(gone)]]
    return gone


def _emptiest_first(pods: list[Pod], s: Situation) -> list[Pod]:
    return sorted(pods, key=lambda pod: (s.in_service.get(pod.key, UNKNOWN), -pod.created, pod.name))
