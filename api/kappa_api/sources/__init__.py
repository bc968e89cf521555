"""The kinds of sources that a Trigger may have: one small module each, which reads its part of `spec.source`.

Adding one: a module here with a frozen dataclass and `read`, a line in READERS, its part of the CRD, and a module of
the same name in `kappa_gateway.events.sources`.
"""

from collections.abc import Callable
from typing import Any, Final

from kappa_api.fields import Reader

#: Under the field's name in `spec.source`. A reader reports faults to its Reader and calls `unknown()` itself.
READERS: Final[dict[str, Callable[[Reader], Any]]] = {}
