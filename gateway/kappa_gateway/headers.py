"""Which header fields pass the gateway, and the memo that makes asking cheap.

The gateway frames every message anew: hop-by-hop fields (RFC 9110 section 7.6.1) end here in both directions, fields of
the platform (`kappa-*`) are not taken from outside (but for `hops.py`), and `x-forwarded-*` are ours. Names are
compared with `_` read as `-`: servers behind us (CGI, WSGI) cannot tell the two apart, so `kappa_request_id` would pass
for the platform's.
"""

from enum import IntEnum
from typing import Final

from kappa_api import names


class Field(IntEnum):
    """What to do with a header field. PASS is 0, so that `if not kind` is the common case."""

    PASS = 0
    DROP = 1
    HOST = 2
    CONNECTION = 3
    CONTENT_LENGTH = 4
    TRANSFER_ENCODING = 5
    EXPECT = 6
    REQUEST_ID = 7
    FORWARDED = 8
    FORWARDED_FOR = 9
    UPGRADE = 10
    REFUSED = 11
    FORWARDED_HOST = 12
    AUTHORIZATION = 13
    API_KEY = 14
    ORIGIN = 15
    WANTED_METHOD = 16
    WANTED_HEADERS = 17
    PREFER = 18
    POD = 19
    HOPS = 20


_HOP_BY_HOP: Final = frozenset(
    {"keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "http2-settings"}
)
_REQUEST: Final = {
    "host": Field.HOST,
    "connection": Field.CONNECTION,
    "content-length": Field.CONTENT_LENGTH,
    "transfer-encoding": Field.TRANSFER_ENCODING,
    "expect": Field.EXPECT,
    "upgrade": Field.UPGRADE,
    "x-request-id": Field.REQUEST_ID,
    "x-forwarded-for": Field.FORWARDED_FOR,
    "x-forwarded-host": Field.FORWARDED_HOST,
    "forwarded": Field.FORWARDED,
    "x-real-ip": Field.FORWARDED,
    "authorization": Field.AUTHORIZATION,
    "x-api-key": Field.API_KEY,
    "origin": Field.ORIGIN,
    "access-control-request-method": Field.WANTED_METHOD,
    "access-control-request-headers": Field.WANTED_HEADERS,
    "prefer": Field.PREFER,
    names.HEADER_POD: Field.POD,
    names.HEADER_HOPS: Field.HOPS,
}
_RESPONSE: Final = {
    "connection": Field.CONNECTION,
    "content-length": Field.CONTENT_LENGTH,
    "transfer-encoding": Field.TRANSFER_ENCODING,
    "upgrade": Field.UPGRADE,
    names.HEADER_REFUSED: Field.REFUSED,
}
_RESPONSE_KAPPA: Final = frozenset({names.HEADER_DURATION, names.HEADER_ERROR})

#: Names come from outside: the memo is emptied when it has this many, so that nobody can make it grow.
MEMO_SIZE: Final = 2000


class Memo(dict[bytes, Field]):
    """`memo[name]` is the Field of a header name as it came; worked out once per spelling."""

    def __init__(self, special: dict[str, Field], *, response: bool) -> None:
        super().__init__()
        self._special, self._response = special, response

    def __missing__(self, name: bytes) -> Field:
        if len(self) >= MEMO_SIZE:
            self.clear()
        kind = self[name] = self._classify(name.decode("latin-1").lower())
        return kind

    def _classify(self, spelled: str) -> Field:
        name = spelled.replace("_", "-")
        found = self._special.get(name)
        if found is not None:
            return found if name == spelled else Field.DROP
        if name in _HOP_BY_HOP:
            return Field.DROP
        if name.startswith(names.HEADER_PREFIX):
            return Field.PASS if self._response and name in _RESPONSE_KAPPA else Field.DROP
        if not self._response and name.startswith("x-forwarded-"):
            return Field.DROP if name == "x-forwarded-prefix" or name != spelled else Field.FORWARDED
        return Field.PASS


def request_memo() -> Memo:
    return Memo(_REQUEST, response=False)


def response_memo() -> Memo:
    return Memo(_RESPONSE, response=True)


def listed(value: bytes) -> frozenset[bytes]:
    """The tokens of a Connection field, lower case."""
    return frozenset(token.strip().lower() for token in value.split(b",")) - {b""}


#: What almost everybody sends as Connection: names no field, and the parsers know it already.
PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
#: Tokens of Connection that name no header field to remove.
CONNECTION_OPTIONS: Final = frozenset({b"close", b"keep-alive", b"upgrade"})
