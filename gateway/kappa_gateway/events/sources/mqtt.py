"""The source `mqtt`: what devices publish, on the platform's own listener or on a broker that a Secret names."""

from typing import Final

from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Place, Source, Surroundings, Trace
from kappa_gateway.events.sources.mqtt_broker import Broker, session_of
from kappa_gateway.events.sources.mqtt_nats import STREAM, Listener

SHAPE: Final = "sqs"


def place(trigger: Trigger) -> Place:
    """A broker knows one session of a Trigger and ends it when another gateway begins it. From NATS all gateways read
    what there is together, unless the order counts."""
    return Place.ONE if trigger.source.secret or trigger.ordered else Place.EACH


def trace(trigger: Trigger, surroundings: Surroundings) -> Trace | None:
    """See `source.Source`."""
    secret = trigger.source.secret
    if secret:
        session = session_of(trigger)
        how = "connect once with this client id and a clean session"
        return Trace(("broker", secret), f"the session {session} at the broker that the Secret {secret} names: {how}")
    if not trigger.source.qos:
        return None
    names = f"kappa-{trigger.uid}-0 and the next numbers"
    return Trace(("listener",), f"consumers of the stream {STREAM} on the platform's NATS: {names}")


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    """The Trigger's source."""
    return Broker(trigger, surroundings) if trigger.source.secret else Listener(trigger, surroundings)
