"""How many more instances are worth it. Pure.

For the invocations that wait now (`helpful`): the queue is judged in a fluid model. It grows with the arrivals and
shrinks with the slots that there are and those that are on their way, each slot ending one invocation per mean service
time. One more instance is worth it when the others do not keep up with what arrives; or when the waiting that it saves
from the moment it is ready is worth more than the instance costs until it can go again. Compare "one per waiting
invocation": 50 calls of 100 ms at once would start 50 pods, most of them ready after the last call has been answered.

For those that will come (`ahead`): while the rate of arrivals grows steadily, as many as it will need when they are
ready.
"""

from dataclasses import dataclass

from kappa_operator.autoscaler.need import staff

#: Service time assumed for a function that has never finished an invocation, in seconds.
UNKNOWN_SERVICE = 0.1
#: How much later than one start the next decision helps, in seconds: the next reading, and a half for its average.
NEXT_READING = 1.5


@dataclass(frozen=True, slots=True)
class Load:
    """What one function has to do. `waiting` and `in_service` are now; `arrivals` per second, their growth per second
    (`trend`), `service` (mean seconds of one invocation, 0 when nothing was ever measured), `queueing` and `standing`
    (with `standing_ready` instances) come from the last readings (`measure`)."""

    waiting: int
    in_service: int
    arrivals: float = 0.0
    service: float = 0.0
    trend: float = 0.0
    queueing: float = 0.0
    standing: float = 0.0
    standing_ready: int = 0

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


@dataclass(frozen=True, slots=True)
class Price:
    """`waiting`: instance-seconds that one second of one waiting invocation is worth. `stay`: seconds that an instance
    stays at least, once it is there."""

    waiting: float
    stay: float


def helpful(load: Load, supply: Supply, concurrency: int, price: Price, most: int) -> int:
    """How many new instances are worth it for what waits, at most `most`."""
    count = 0
    while count < most and _helps(load, supply, concurrency, price, count):
        count += 1
    return count


def _helps(load: Load, supply: Supply, concurrency: int, price: Price, others: int) -> bool:
    """Whether one more is worth it beside `others` that are being started with it."""
    running = supply.ready + supply.starting + others
    if not running:
        return load.waiting > 0
    delay = supply.seconds(others + 1)
    slot = concurrency / load.seconds
    early = [delay - supply.seconds(nth + 1) for nth in range(others)]
    early += [delay - supply.starting_seconds] * supply.starting
    served = supply.ready * delay + sum(max(0.0, head_start) for head_start in early)
    # What is in service has to end first; on average half of it is left.
    arrived = (load.arrivals + load.trend * delay / 2) * delay
    waiting = load.waiting + arrived - max(0.0, served * slot - load.in_service / 2)
    # Those that get ready together with this one take their share at once.
    waiting -= concurrency * sum(head_start <= 0 for head_start in early)
    # Callers who call again as soon as they are answered keep a queue standing, which the model would see fall.
    # Not while instances come: what they change is not known yet.
    known = not supply.starting and supply.ready <= load.standing_ready
    standing = min(load.standing, load.waiting) - concurrency * others if known else 0.0
    if standing > 0 and min(standing, concurrency) * price.stay * price.waiting >= delay + price.stay:
        return True
    if waiting < 0.5:
        return False
    rate = running * slot - load.arrivals - load.trend * (delay + NEXT_READING)
    if rate <= 0:
        return True
    # A queue that falls to nothing at an even rate is a triangle: its area is what everybody waits, added up. One more
    # instance takes its share at once and makes the rest fall faster.
    saved = waiting**2 / (2 * rate) - max(0.0, waiting - concurrency) ** 2 / (2 * (rate + slot))
    return saved * price.waiting >= delay + price.stay


def ahead(load: Load, supply: Supply, concurrency: int, headroom: float) -> int:
    """Instances that a growing load will need when a new one is ready; 0 while it does not grow. `headroom` as in
    `need.staff`."""
    if load.trend <= 0:
        return 0
    arrivals = load.arrivals + load.trend * (supply.seconds(1) + NEXT_READING)
    return staff(arrivals * load.seconds, concurrency, headroom)
