"""`source.kubernetes`: changes of the resources of one kind in the Trigger's namespace."""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.sources.stream import STARTS

CHANGES: Final = ("ADDED", "MODIFIED", "DELETED")
API_VERSION: Final = r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[a-z0-9]+"
KIND: Final = r"[A-Z][A-Za-z0-9]{0,62}"
SELECTOR: Final = r"[^\x00-\x1f]{1,1024}"


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """`changes`: some of CHANGES. `start`: `new` changes only, or `all`: first what is there, as ADDED. The selectors
    are as kubectl has them, empty for everything."""

    api_version: str
    kind: str
    label_selector: str = ""
    field_selector: str = ""
    changes: tuple[str, ...] = CHANGES
    start: str = "new"


def read(reader: Reader) -> Kubernetes:
    """Reads `spec.source.kubernetes`."""
    changes = reader.strings(
        "events", lambda text: "" if text in CHANGES else f"{text[:40]!r} is none of {', '.join(CHANGES)}"
    )
    found = Kubernetes(
        api_version=reader.string("apiVersion", required=True, pattern=API_VERSION, hint="such as v1 or apps/v1"),
        kind=reader.string("kind", required=True, pattern=KIND, hint="such as ConfigMap"),
        label_selector=reader.string("labelSelector", pattern=SELECTOR, hint="such as app=shop"),
        field_selector=reader.string("fieldSelector", pattern=SELECTOR, hint="such as metadata.name=settings"),
        changes=tuple(name for name in CHANGES if name in changes) or CHANGES,
        start=reader.choice("start", "new", STARTS),
    )
    reader.unknown()
    return found
