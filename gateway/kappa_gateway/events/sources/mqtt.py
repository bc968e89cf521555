"""The source `mqtt`: what devices publish, on the platform's own listener or on a broker that a Secret names."""

from typing import Final

from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Place, Source, Surroundings
from kappa_gateway.events.sources.mqtt_broker import Broker
from kappa_gateway.events.sources.mqtt_nats import Listener

SHAPE: Final = "sqs"


def place(trigger: Trigger) -> Place:
    """A broker knows one session of a Trigger and ends it when another gateway begins it. From NATS all gateways read
    what there is together, unless the order counts."""
    return Place.ONE if trigger.source.secret or trigger.ordered else Place.EACH


def make(trigger: Trigger, surroundings: Surroundings) -> Source:
    """The Trigger's source."""
    return Broker(trigger, surroundings) if trigger.source.secret else Listener(trigger, surroundings)
