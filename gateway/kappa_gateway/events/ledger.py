"""What this gateway counted of each lane, and what the last look at the work stream showed. Plain integers, for metrics
and for `GET /v1/triggers`; they begin at zero with the process."""

from dataclasses import dataclass, field

from kappa_gateway.events.work import Lane


@dataclass(slots=True)
class Tally:
    """Of one Function's asynchronous invocations, or of one Trigger (its partitions together).

    `succeeded`, `failed` (attempts), `dead`, `expired` and `looped` (of the dead), `cancelled`, `throttled` (times that
    there was no room). `backlog`: messages in the stream; `oldest_ms`: epoch milliseconds at which the oldest of them
    came, 0: none. `said_ms`: when the log last spoke of dead letters.
    """

    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    expired: int = 0
    looped: int = 0
    cancelled: int = 0
    throttled: int = 0
    backlog: int = 0
    oldest_ms: int = 0
    said_ms: int = 0


@dataclass(slots=True)
class Ledger:
    """Tallies by kind of lane and key."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)

    def of(self, lane: Lane) -> Tally:
        return self.at(lane.kind, lane.key)

    def at(self, kind: str, key: str) -> Tally:
        """`kind`: work.ASYNC or work.TRIGGER; `key`: `namespace/name` of the Function or the Trigger."""
        found = self.tallies.get((kind, key))
        if found is None:
            found = self.tallies[kind, key] = Tally()
        return found
