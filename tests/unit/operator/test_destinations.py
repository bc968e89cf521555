"""From where archives may be fetched: every way to write an address that is not public, and what admins may allow."""

import ipaddress

import pytest

from kappa_operator.destinations import Destinations, DestinationsError

NOTHING = Destinations()
REFUSED = {
    "loopback": "127.0.0.1",
    "loopback of a pod": "127.8.4.2",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "private A": "10.0.0.1",
    "private B": "172.16.0.1",
    "private C": "192.168.1.1",
    "shared address space (pods of some clouds, metadata of one)": "100.100.100.200",
    "metadata": "169.254.169.254",
    "metadata of Oracle": "192.0.0.192",
    "wire server of Azure": "168.63.129.16",
    "benchmark": "198.18.0.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "documentation": "192.0.2.1",
    "IPv6 loopback": "::1",
    "IPv6 unspecified": "::",
    "IPv6 link-local": "fe80::1",
    "IPv6 site-local": "fec0::1",
    "unique local": "fd00:ec2::254",
    "IPv6 multicast": "ff02::1",
    "IPv6 documentation": "2001:db8::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "mapped": "::ffff:10.0.0.1",
    "mapped loopback": "::ffff:127.0.0.1",
    "compatible": "::10.0.0.1",
    "NAT64": "64:ff9b::a00:1",
    "NAT64 metadata": "64:ff9b::a9fe:a9fe",
    "local NAT64": "64:ff9b:1::808:808",
    "6to4": "2002:a00:1::1",
    "discard only": "100::1",
}
ALLOWED = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED.keys())
def test_refused_without_being_asked_for(address: str) -> None:
    problem = NOTHING.address_problem("code.example.org", ipaddress.ip_address(address))
    assert "code.example.org has a" in problem
    assert "KAPPA_ARCHIVE_ALLOW" in problem
    assert NOTHING.literal_problem(address)
    assert NOTHING.literal_problem(f"[{address}]" if ":" in address else address)


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses(address: str) -> None:
    assert NOTHING.address_problem("h", ipaddress.ip_address(address)) == ""


def test_zones_do_not_hide_an_address() -> None:
    assert NOTHING.literal_problem("fe80::1%eth0")


@pytest.mark.parametrize(
    ("allow", "host", "address", "fine"),
    [
        ("10.1.0.0/16", "any.org", "10.1.2.3", True),
        ("10.1.0.0/16", "any.org", "10.2.2.3", False),
        ("10.1.0.0/16", "any.org", "::ffff:10.1.2.3", True),
        ("169.254.169.254", "any.org", "169.254.169.254", True),
        ("code.corp", "code.corp", "10.0.0.1", True),
        ("code.corp", "CODE.corp.", "10.0.0.1", True),
        ("code.corp", "evil.code.corp", "10.0.0.1", False),
        ("code.corp", "notcode.corp", "10.0.0.1", False),
        ("*.corp", "code.corp", "10.0.0.1", True),
        ("*.corp", "corp", "10.0.0.1", False),
        ("*.corp", "evilcorp", "10.0.0.1", False),
        # A name may be allowed to be private, never to be metadata or the operator itself.
        ("code.corp", "code.corp", "169.254.169.254", False),
        ("code.corp", "code.corp", "127.0.0.1", False),
        ("code.corp", "code.corp", "::1", False),
        ("code.corp", "code.corp", "64:ff9b::a9fe:a9fe", False),
        ("fd12::/16, code.corp", "other", "fd12::1", True),
    ],
)
def test_what_the_admin_allows(allow: str, host: str, address: str, fine: bool) -> None:
    chosen = Destinations.parse(allow, "", http=False)
    assert (chosen.address_problem(host, ipaddress.ip_address(address)) == "") is fine


def test_what_the_admin_forbids() -> None:
    chosen = Destinations.parse("code.corp", "8.8.0.0/16, 2606:4700::/32", http=False)
    for address in ("8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1"):
        assert "a forbidden address" in chosen.address_problem("code.corp", ipaddress.ip_address(address))
    assert chosen.address_problem("code.corp", ipaddress.ip_address("9.9.9.9")) == ""


@pytest.mark.parametrize(
    ("allow", "forbid"), [("10.0.0.0/33", ""), ("fe80::zz", ""), ("*.", ""), ("", "code.corp"), ("http://x", "")]
)
def test_lists_that_cannot_be_read(allow: str, forbid: str) -> None:
    with pytest.raises(DestinationsError, match="CIDR"):
        Destinations.parse(allow, forbid, http=False)


def test_schemes() -> None:
    assert NOTHING.scheme_problem("https") == ""
    assert "KAPPA_ARCHIVE_HTTP" in NOTHING.scheme_problem("http")
    assert Destinations(http=True).scheme_problem("http") == ""
    for scheme in ("ftp", "file", "", "gopher", "data"):
        assert "use https" in Destinations(http=True).scheme_problem(scheme)
