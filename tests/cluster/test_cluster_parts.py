"""The cluster's pure parts; no root, no network, nothing started. `up`, end-to-end tests and `down` prove the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_cleanup import mounts_under, rules_to_clean
from cluster_dns import records
from cluster_images import full_name
from cluster_packages import Source, parse_deb822, parse_one_line
from cluster_pip import local_folders, parse, without_missing
from cluster_run import ClusterError


def _service(name: str, address: str, **spec: object) -> dict[str, object]:
    return {"metadata": {"namespace": "ns", "name": name}, "spec": {"clusterIP": address, **spec}}


ENDPOINTS = {
    "metadata": {"namespace": "ns", "name": "heads"},
    "subsets": [
        {"addresses": [{"ip": "198.18.0.3", "hostname": "a"}, {"ip": "198.18.0.2"}]},
        {"notReadyAddresses": [{"ip": "198.18.0.4", "hostname": "b"}]},
    ],
}


def test_dns_records() -> None:
    heads = "heads.ns.svc.cluster.local"
    ready = f"198.18.0.2 {heads}\n198.18.0.3 a.{heads}\n198.18.0.3 {heads}\n"
    rows: list[tuple[dict[str, object], str]] = [
        (_service("web", "198.19.0.9"), "198.19.0.9 web.ns.svc.cluster.local\n"),
        (_service("outside", ""), ""),  # ExternalName
        (_service("empty", "None"), ""),  # no endpoints yet
        (_service("heads", "None"), ready),
        (
            _service("heads", "None", publishNotReadyAddresses=True),
            f"{ready}198.18.0.4 b.{heads}\n198.18.0.4 {heads}\n",
        ),
    ]
    for service, expected in rows:
        assert records([service], [ENDPOINTS]) == expected


def test_only_our_rules_are_cleaned() -> None:
    saved = """\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:CNI-0a1b - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A POSTROUTING -s 198.18.0.2/32 -m comment --comment "name: \\"kappa\\"" -j CNI-0a1b
-A KUBE-SERVICES -j KUBE-NODEPORTS
COMMIT
*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
COMMIT
"""
    assert (
        rules_to_clean(saved)
        == """\
*nat
-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-D POSTROUTING -s 198.18.0.2/32 -m comment --comment "name: \\"kappa\\"" -j CNI-0a1b
-F KUBE-SERVICES
-F CNI-0a1b
-X KUBE-SERVICES
-X CNI-0a1b
COMMIT
"""
    )
    assert rules_to_clean("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n") == ""


def test_mounts_last_first_and_only_ours() -> None:
    mountinfo = (
        "1 0 254:0 / / rw - ext4 /dev/vda rw\n"
        "2 1 0:5 / /data/kubelet rw - tmpfs tmpfs rw\n"
        "3 1 0:6 / /data-of-another rw - tmpfs tmpfs rw\n"
        "4 2 0:7 / /data/kubelet/a\\040b rw - tmpfs tmpfs rw\n"
    )
    assert mounts_under(mountinfo, (Path("/data"),)) == ["/data/kubelet/a b", "/data/kubelet"]


def test_apt_sources() -> None:
    one_line = """\
# deb http://mirror.test/debian commented main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main contrib # why
deb-src http://mirror.test/debian bookworm main
"""
    assert parse_one_line(one_line) == [Source("http://mirror.test/debian", "bookworm", "main contrib", "/k.gpg")]
    deb822 = """\
Types: deb
# a comment
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN-----
 .
 -----END-----

Types: deb
Enabled: no
URIs: http://mirror.test/off
Suites: bookworm
Components: main
"""
    (source,) = parse_deb822(deb822)
    assert (
        source.stanza("deb-src")
        == """\
Types: deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN-----
 .
 -----END-----
"""
    )


def test_image_names() -> None:
    rows = {
        "web:1": "docker.io/library/web:1",
        "local/web:1": "docker.io/local/web:1",
        "docker.io/local/web:1": "docker.io/local/web:1",
        "localhost:5000/web:1": "localhost:5000/web:1",
    }
    assert {name: full_name(name) for name in rows} == rows
    for untagged in ("web", "localhost:5000/web"):
        with pytest.raises(ClusterError):
            full_name(untagged)


def test_pip_settings(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    (tmp_path / "index" / "simple").mkdir(parents=True)
    wheels.mkdir()
    listing = (
        f":env:.find-links='{wheels}'\n"
        "global.find-links='/nowhere'\n"
        "global.index-url='https://index.test/simple'\n"
        f"global.extra-index-url='file://{tmp_path}/index/simple\\nfile:///nowhere/simple'\n"
        "global.cert='/ca.crt'\n"
        "install.user='true'\n"
    )
    sections = without_missing(parse(listing))
    assert sections == {
        "global": {
            "find-links": str(wheels),
            "index-url": "https://index.test/simple",
            "extra-index-url": f"file://{tmp_path}/index/simple",
        }
    }
    assert local_folders(sections) == [tmp_path / "index", wheels]
