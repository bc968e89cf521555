"""How one claim is counted: as a claim until its pod is labelled, as a pod from then on, and as a claim again when that
pod turns out to be of no use."""

from typing import Protocol


class Told(Protocol):
    """Who counts the claims that have no pod yet."""

    def claim_counted(self, key: str, revision: str) -> None: ...
    def claim_again(self, key: str, revision: str) -> None: ...


class Counted:
    """A claim in the function's `claiming`, until its pod is counted instead. Never both, never neither: a plan made in
    between would claim one too many, or too few."""

    def __init__(self, told: Told, key: str, revision: str) -> None:
        self._told, self._key, self._revision = told, key, revision
        self._counted = True

    def as_pod(self) -> None:
        """From here on the pod stands for the claim; or the claim has ended."""
        if self._counted:
            self._counted = False
            self._told.claim_counted(self._key, self._revision)

    def as_claim(self) -> None:
        """The pod is about to go, and the claim goes on with another one."""
        if not self._counted:
            self._counted = True
            self._told.claim_again(self._key, self._revision)
