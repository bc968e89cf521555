"""What the operator remembers of each function between two looks at it. All of it can be lost and is found again from
status, pods and gateways; it only saves work and keeps two tasks from doing the same thing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kappa_operator.reconciler import Backoff

Json = Any
BACKOFF = Backoff(first=0.5, most=60.0, jitter=0.0)
#: Reasons that stay until the spec changes, whoever leads.
FINAL = ("LoadFailed", "FetchFailed")
#: Failures further apart than this have nothing to do with each other.
FORGET_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a revision does not load: for good, until the spec changes."""

    revision: str
    reason: str
    message: str


@dataclass(slots=True)
class Trouble:
    """What went wrong lately that may pass: no new instances until `until` (monotonic seconds)."""

    reason: str = ""
    message: str = ""
    count: int = 0
    until: float = 0.0
    last: float = 0.0

    def add(self, reason: str, message: str, now: float) -> None:
        if now >= self.until:  # else it belongs to the same try: ten pods that fail together are no ten failures
            self.count = 1 if now - self.last > FORGET_SECONDS else self.count + 1
            self.until = now + BACKOFF.delay(self.count, 0.5)
        self.reason, self.message, self.last = reason, message, now

    def clear(self) -> None:
        self.reason, self.message, self.count, self.until = "", "", 0, 0.0


@dataclass(slots=True)
class Memory:
    """One function. `active` runs ahead of the API's status between proof and patch. `claiming` counts claims that
    have no pod yet, per revision. `said` is the last news posted as an Event."""

    uid: str
    active: str = ""
    failure: Failure | None = None
    target: str = ""
    trouble: Trouble = field(default_factory=Trouble)
    proving: Trouble = field(default_factory=Trouble)
    claiming: dict[str, int] = field(default_factory=dict)
    said: str = ""

    def trouble_of(self, revision: str) -> Trouble:
        """Instances of the active revision have a back-off of their own: they must not wait for one that is proven."""
        return self.trouble if revision in ("", self.active) else self.proving

    def aim(self, target: str) -> None:
        """Takes the spec's revision in; a new one gets its chance at once."""
        if target != self.target:
            self.target = target
            self.proving.clear()

    @classmethod
    def from_status(cls, uid: str, status: Mapping[str, Json]) -> "Memory":
        """Takes up what an earlier leader wrote down."""
        memory = cls(uid, active=str(status.get("activeRevision") or ""))
        ready: Mapping[str, Json] = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
        failed, reason = str(status.get("failedRevision") or ""), str(ready.get("reason") or "")
        if failed and reason in FINAL:
            message = str(ready.get("message") or "").removesuffix(keeps_serving(memory.active))
            memory.failure = Failure(failed, reason, message)
        return memory


def keeps_serving(active: str) -> str:
    """What is added to bad news while an older revision takes the calls."""
    return f"; revision {active} keeps serving" if active else ""
