"""Network addresses, as those see them who connect: what an address of one family means in the other. Pure."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: IPv6 that only wraps an IPv4 address: what counts is the address inside (RFC 4291, RFC 6052).
_WRAPPERS = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96")))
#: 6to4 (RFC 3056) has it after the first two bytes.
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside a mapped, compatible, NAT64 or 6to4 address; any other address as it is."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    packed = address.packed
    if address in _SIX_TO_FOUR:
        return ipaddress.IPv4Address(packed[2:6])
    if any(address in wrapper for wrapper in _WRAPPERS) and int(address) > 1:  # :: and ::1 are no wrappers
        return ipaddress.IPv4Address(packed[12:])
    return address
