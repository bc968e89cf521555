"""The source `event`: nothing runs here. `events/front/publish.py` is called over HTTP, and asks each Trigger of the
kind whether it takes an event (`kappa_api.sources.event`)."""

from typing import Final

from kappa_gateway.events.source import Place

PLACE: Final = Place.NONE
SHAPE: Final = "cloudevent"
