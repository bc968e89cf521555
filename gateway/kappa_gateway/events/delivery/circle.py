"""Work that is stopped because functions trigger each other in a circle: what its dead letter and the log say."""

import json
from typing import Final

from kappa_gateway.events.delivery.attempts import LOOP
from kappa_gateway.events.delivery.target import Target
from kappa_gateway.events.delivery.verdict import Outcome
from kappa_gateway.events.work import EVENT_CALL, Work

_SENDER: Final = 200  # characters of it


def circle(work: Work, target: Target, most: int) -> Outcome:
    """What stands for the answer of a function that was not called."""
    sender = _sender(work)
    by = f", and was caused by {sender}" if sender else ""
    text = f"{target.function or 'its function'} was not called: it is {work.hops} hops away from the first cause{by}"
    return Outcome(code=LOOP, message=f"{text}; gateway.events.maxHops is {most}")


def _sender(work: Work) -> str:
    """The source of an event, which names the function where that emitted it; of a call it is not known."""
    if work.call not in (None, EVENT_CALL):
        return ""
    try:
        source = json.loads(work.body).get("source", "")
    except (ValueError, AttributeError):
        return ""
    return ascii(source)[1:-1][:_SENDER] if isinstance(source, str) else ""
