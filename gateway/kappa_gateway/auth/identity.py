"""A caller whose credential was verified, and the header lines that tell the function of it.

The lines are made once per verification, not per request. Their names begin with `kappa-`, which nobody outside can
send (`headers.py` drops them), so a function may trust them.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from kappa_api import names

Json = Any

#: Printable ASCII that needs no quoting in a header value and is not `%`.
_SAFE: Final = "!#$&'()*+,/:;=?@[]^_`{|}~\"<>\\"


@dataclass(frozen=True, slots=True)
class Identity:
    """`principal` names the caller within `type`; `authorizer` is what handlers get as `requestContext.authorizer`."""

    type: str
    principal: str
    authorizer: Mapping[str, Json]
    lines: bytes

    @classmethod
    def of(cls, kind: str, principal: str, authorizer: Mapping[str, Json]) -> "Identity":
        data = base64.urlsafe_b64encode(json.dumps(authorizer, separators=(",", ":")).encode()).decode()
        lines = (
            f"{names.HEADER_IDENTITY_TYPE}: {kind}\r\n"
            f"{names.HEADER_IDENTITY_PRINCIPAL}: {quote(principal, safe=_SAFE)}\r\n"
            f"{names.HEADER_IDENTITY_DATA}: {data}\r\n"
        )
        return cls(kind, principal, authorizer, lines.encode("ascii"))

    @classmethod
    def named(cls, kind: str, principal: str, facts: Mapping[str, Json]) -> "Identity":
        """In the shape of a Lambda authorizer's context: for what has no shape of its own in API Gateway's events."""
        return cls.of(kind, principal, {"lambda": {"principalId": principal, "type": kind, **facts}})
