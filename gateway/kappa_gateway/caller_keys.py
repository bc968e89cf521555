"""Who a caller is for limits: its verified identity, or else its address.

An IPv6 address counts by its /64: that is what one host gets, so single addresses would be no limit. An IPv4 address
written as IPv6 is the IPv4 address.
"""

import hashlib
import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

#: Addresses whose key is remembered: parsing costs more than all the rest of a limit.
MEMO_SIZE: Final = 4096
#: Longer identities are kept as a digest, so that what callers send does not decide how much memory they take.
_LONGEST: Final = 48
UNKNOWN: Final = b"?"
_WITH_PORT: Final = re.compile(rb"\[([^\]]*)\](?::\d+)?|([0-9.]+):\d+")

_memo: dict[bytes, bytes] = {}


def by_identity(identity: str) -> bytes:
    """The key of a verified identity. Never equal to that of an address."""
    text = identity.encode("utf-8", "surrogateescape")
    if len(text) > _LONGEST:
        text = hashlib.blake2b(text, digest_size=24).digest()
    return b"id:" + text


def by_address(text: bytes) -> bytes:
    """The key of an address as text: 4 bytes (IPv4), 8 bytes (IPv6, its /64), or UNKNOWN. A port may follow it."""
    key = _memo.get(text)
    if key is None:
        if len(_memo) >= MEMO_SIZE:
            _memo.clear()
        key = _memo[text] = _parse(text)
    return key


def by_forwarded(fields: Sequence[bytes], hops: int, peer: bytes) -> bytes:
    """The key of the caller behind `hops` trusted proxies. `fields`: the X-Forwarded-For lines; `peer`: the key of who
    is connected to us.

    Each proxy adds at the end who it was called by, so what it saw stands `hops` places from there; what stands before
    it is hearsay. A list that is too short did not come through all of them: then the peer itself counts, as it does
    without any proxy.
    """
    if not hops:
        return peer
    if len(fields) == 1 and hops == 1:
        return by_address(fields[0].rpartition(b",")[2].strip())
    addresses = b",".join(fields).split(b",") if fields else []
    return by_address(addresses[-hops].strip()) if len(addresses) >= hops else peer


def _parse(text: bytes) -> bytes:
    if len(text) > 64:
        return UNKNOWN
    found = _WITH_PORT.fullmatch(text)
    plain = ((found[1] or found[2]) if found else text).decode("latin-1").partition("%")[0]
    try:
        return IPv4Address(plain).packed
    except AddressValueError:
        pass
    try:
        address = IPv6Address(plain)
    except AddressValueError:
        return UNKNOWN
    return address.ipv4_mapped.packed if address.ipv4_mapped else address.packed[:8]
