"""How many more instances would help the invocations that wait now. Pure.

A new instance helps when the others (those that serve and those that are starting) would not have cleared the queue by
the time it is ready, and then either do not keep up with the arrivals, or would still need longer than 0.4 of a start
(than `patience`, when calls keep coming). Judged in a fluid model: the queue grows with the arrivals and shrinks with
the slots there are, each slot ending one invocation per mean service time. Compare "start one per waiting invocation":
50 calls of 100 ms at once would start 50 pods, most of them ready after the last call has been answered.
"""

from dataclasses import dataclass

#: Service time assumed for a function that has never finished an invocation, in seconds.
UNKNOWN_SERVICE = 0.1
#: The share of the slots that arrivals may fill while a queue still counts as one burst.
CALM = 0.15


@dataclass(frozen=True, slots=True)
class Load:
    """What one function has to do. `waiting` and `in_service` are now; `arrivals` per second and `service` (mean
    seconds of one invocation, 0 when nothing was ever measured) come from the last readings."""

    waiting: int
    in_service: int
    arrivals: float = 0.0
    service: float = 0.0

    @property
    def seconds(self) -> float:
        """The service time to reckon with."""
        return self.service if self.service > 0 else UNKNOWN_SERVICE


@dataclass(frozen=True, slots=True)
class Supply:
    """What it has to do it with. `ready` instances serve, `starting` ones are on their way and need about
    `starting_seconds` more. A new one is ready after `warm_seconds` while `warm` pool pods last, after `cold_seconds`
    when a pod has to be made."""

    ready: int
    starting: int = 0
    starting_seconds: float = 0.0
    warm: int = 1_000_000
    warm_seconds: float = 0.03
    cold_seconds: float = 1.0

    def seconds(self, nth: int) -> float:
        """Seconds until the `nth` new instance (from 1) is ready."""
        return self.warm_seconds if nth <= self.warm else self.cold_seconds


def helpful(load: Load, supply: Supply, concurrency: int, patience: float, most: int) -> int:
    """How many new instances help, at most `most`. `patience`: seconds of waiting that are not worth a start."""
    count = 0
    while count < most and _helps(load, supply, concurrency, patience, count):
        count += 1
    return count


def _helps(load: Load, supply: Supply, concurrency: int, patience: float, others: int) -> bool:
    """Whether one more helps beside `others` that are being started with it."""
    running = supply.ready + supply.starting + others
    if not running:
        return load.waiting > 0
    delay = supply.seconds(others + 1)
    slot = concurrency / load.seconds
    early = [delay - supply.seconds(nth + 1) for nth in range(others)]
    early += [delay - supply.starting_seconds] * supply.starting
    served = supply.ready * delay + sum(max(0.0, head_start) for head_start in early)
    # What is in service has to end first; on average half of it is left.
    waiting = load.waiting + load.arrivals * delay - max(0.0, served * slot - load.in_service / 2)
    # Those that get ready together with this one take their share at once.
    waiting -= concurrency * sum(head_start <= 0 for head_start in early)
    if waiting < 0.5:
        return False
    rate = running * slot - load.arrivals
    if rate <= 0:
        return True
    # A burst that is cleared within two fifths of a start is let be; when more keeps coming, waiting adds up.
    calm = load.arrivals <= CALM * running * slot
    return waiting / rate > (max(patience, 0.4 * delay) if calm else patience)
