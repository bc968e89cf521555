"""How many hops work is away from its first cause, so that functions that trigger each other in a circle are stopped.

A hop is an invocation that causes another one. A call or an event from outside is 0 hops away; what its invocation
calls or emits is 1 away, what that causes 2. Nobody can be forced to say the number: the runtime says it with what it
sends itself, functions have it in their context, and whoever does not send it on begins anew at 0. So everybody is
believed: a larger number than the true one only stops one's own work sooner.

An instance gets the number of what it will cause, to be sent on as it came. Pure.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from kappa_api import names
from kappa_api.cloudevents import CloudEvent

#: Digits that are read; whoever sends more has a number beyond every bound.
_DIGITS: Final = 6
_LINE: Final = names.HEADER_HOPS.encode() + b": %d\r\n"


def read(value: bytes | str) -> int:
    """The number as a header field or an attribute has it; 0 for what is none."""
    return int(value[:_DIGITS]) if value.isascii() and value.isdigit() else 0


def line(hops: int) -> bytes:
    """The header line for an instance that gets work of so many hops."""
    return _LINE % (hops + 1)


def of_event(event: CloudEvent) -> int:
    return read(event.extensions.get(names.EXTENSION_HOPS, ""))


def of_message(headers: Mapping[str, str]) -> dict[str, str]:
    """The extension attribute for an event that is made of a message with these headers of NATS; often none."""
    found = next((read(value) for name, value in headers.items() if name.lower() == names.HEADER_HOPS), 0)
    return {names.EXTENSION_HOPS: str(found)} if found else {}


def farthest(event: CloudEvent, headers: Mapping[str, str]) -> CloudEvent:
    """The event that came as a message with these headers, with the larger of both numbers."""
    told = of_message(headers)
    if not told or read(told[names.EXTENSION_HOPS]) <= of_event(event):
        return event
    return replace(event, extensions={**event.extensions, **told})


def caused(hops: int) -> dict[str, str]:
    """The extension attribute for an event that tells of the end of work of so many hops."""
    return {names.EXTENSION_HOPS: str(hops + 1)}


def looped(hops: int, most: int) -> bool:
    """Whether work of so many hops is one round too many. `most` 0: it never is.

    The number after next is let through: the outcome of work that was stopped has it (`may_tell`), and nothing else
    that does not choose its number. So `onFailure` tells of a loop, and what that causes is stopped in turn, for good.
    """
    return 0 < most < hops and hops != most + 2


def may_tell(hops: int, most: int) -> bool:
    """Whether the outcome of work that was stopped is sent to its destination: only of what was stopped first, or a
    loop through a destination would go on."""
    return hops == most + 1
