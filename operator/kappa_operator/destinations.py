"""Which addresses the operator may fetch archives from: pure rules about schemes, names and addresses.

A Function's author chooses the URL, the operator's pod makes the connection: without these rules anybody who may apply
a Function could read what only the cluster's own network reaches (server-side request forgery). Only public addresses
are allowed unless the admin lists others, and the address that is judged is the one that is connected to (`archive.py`
resolves once), so that a name cannot change its address in between.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from kappa_api.addresses import Address, unwrapped

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Not public whatever Python's tables say: their content differs between versions. Shared and benchmark space,
#: protocol assignments, local NAT64, Teredo, site-local, and the wire server of Azure, which has a public address.
_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "198.18.0.0/15",
            "240.0.0.0/4",
            "168.63.129.16/32",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "fec0::/10",
            "fc00::/7",
        ),
    )
)


class DestinationsError(ValueError):
    """A list of destinations that cannot be read; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """What the admin allows and forbids besides the rules.

    `networks`: allowed whatever they are. `hosts`: names (`*.` in front: any below) that may have private addresses;
    loopback and link-local ones, where cloud metadata is, only `networks` can allow. `forbidden`: networks that are
    refused though they are public, such as pod addresses of a cluster that uses public ones. `http`: allow plain http.
    """

    networks: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    forbidden: tuple[Network, ...] = ()
    http: bool = False

    @classmethod
    def parse(cls, allowed: str, forbidden: str, *, http: bool) -> "Destinations":
        """From comma-separated lists: `allowed` of CIDRs and names, `forbidden` of CIDRs. Raises DestinationsError."""
        networks, hosts = [], []
        for entry in _entries(allowed):
            network = _network(entry)
            if network is not None:
                networks.append(network)
            elif "/" in entry or ":" in entry or not entry.removeprefix("*.").strip("."):
                raise DestinationsError(f"{entry!r} is neither a CIDR, such as 10.1.0.0/16, nor a host name")
            else:
                hosts.append(entry.lower().rstrip("."))
        found = []
        for entry in _entries(forbidden):
            network = _network(entry)
            if network is None:
                raise DestinationsError(f"{entry!r} is not a CIDR, such as 10.1.0.0/16")
            found.append(network)
        return cls(tuple(networks), tuple(hosts), tuple(found), http)

    def scheme_problem(self, scheme: str) -> str:
        """What is wrong with a URL's scheme, or an empty string."""
        if scheme == "https" or (scheme == "http" and self.http):
            return ""
        if scheme == "http":
            return "plain http is not allowed here: use https, or ask the admin to allow it (KAPPA_ARCHIVE_HTTP)"
        return f"{scheme[:20]!r} is not allowed: use https"

    def literal_problem(self, host: str) -> str:
        """What is wrong with a host that is an address by itself; an empty string for an allowed one, and for names."""
        try:
            address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
        except ValueError:
            return ""
        return self.address_problem(host, address)

    def address_problem(self, host: str, address: Address) -> str:
        """What is wrong with connecting to `address` because a URL says `host`, or an empty string."""
        inner = unwrapped(address)
        if any(_within(each, self.networks) for each in (address, inner)):
            return ""
        if _within(inner, self.forbidden) or _within(address, self.forbidden):
            kind = "a forbidden"
        elif inner.is_loopback or inner.is_link_local or inner.is_unspecified or inner.is_multicast:
            kind = "a loopback, link-local or multicast"
        elif _within(inner, _NEVER) or not inner.is_global or inner.is_reserved:
            if self._named(host):
                return ""
            kind = "a private"
        else:
            return ""
        return (
            f"{host[:200]} has {kind} address ({address}): archives come from public addresses; "
            "use one, or ask the admin to allow it (KAPPA_ARCHIVE_ALLOW)"
        )

    def _named(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return any(name.endswith(each[1:]) if each.startswith("*.") else name == each for each in self.hosts)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _entries(text: str) -> Iterable[str]:
    return (entry for piece in text.split(",") if (entry := piece.strip()))


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
