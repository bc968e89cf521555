"""One claim on its way: which pod is reserved for it, and what a plan counts while it lasts.

The claim stands in the function's `claiming` until its pod is labelled, and the pod is counted from then on; when that
pod turns out to be of no use, the claim is counted again. Never both, never neither: a plan made in between would claim
one too many, or too few.
"""

from typing import Final, Protocol

from kappa_operator import states
from kappa_operator.states import LOOKING, RESERVED

_COUNTED: Final = frozenset({LOOKING, RESERVED})


class Told(Protocol):
    """Who counts the claims that have no pod yet."""

    def claim_counted(self, key: str, revision: str) -> None: ...
    def claim_again(self, key: str, revision: str) -> None: ...


class TwiceReservedError(Exception):
    """A pod was to be reserved that is another one's."""


class Reservations(set[str]):
    """Pods of pools that somebody in this operator has chosen: nobody else may. Pods are named `namespace/name`."""

    def add(self, pod: str) -> None:
        if pod in self:
            raise TwiceReservedError(f"{pod} is reserved already")
        super().add(pod)


class Claiming:
    """See the module. Every step is a move of `states.CLAIM`. `begun`: when it was made, in monotonic seconds."""

    def __init__(self, told: Told, reserved: Reservations, key: str, revision: str, begun: float = 0.0) -> None:
        self.state, self.begun = states.CLAIM.first, begun
        self.key, self.revision = key, revision
        self.pod = ""  # the one that is reserved
        self._told, self._reserved = told, reserved

    def reserve(self, pod: str) -> None:
        new = states.CLAIM.next(self.state, states.RESERVE)
        self._reserved.add(pod)
        self.pod = pod
        self._enter(new)

    def labelled(self) -> None:
        self._enter(states.CLAIM.next(self.state, states.LABEL))

    def failed(self) -> None:
        """Before the pod is deleted. It stays reserved: nobody else is to have it."""
        self._enter(states.CLAIM.next(self.state, states.FAIL))

    def let_go(self) -> None:
        """Gives the reserved pod back, if there is one."""
        self._reserved.discard(self.pod)
        self.pod = ""

    def end(self) -> None:
        """Also said twice."""
        self.let_go()
        self._enter(states.CLAIM.next(self.state, states.END))

    @property
    def counted(self) -> bool:
        """Whether a plan counts it, and not its pod."""
        return self.state in _COUNTED

    def _enter(self, new: str) -> None:
        before, self.state = self.counted, new
        after = self.counted
        if before and not after:
            self._told.claim_counted(self.key, self.revision)
        elif after and not before:
            self._told.claim_again(self.key, self.revision)

    def __repr__(self) -> str:
        return f"<Claiming {self.key} {self.revision} {self.state}{' ' + self.pod if self.pod else ''}>"
