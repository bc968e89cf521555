"""Debian packages: what is missing gets installed, no service gets started, sources come through a private apt setup.

Nothing here names a mirror: the private sources list is made from the one that the machine already has.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster_run import ClusterError, run, run_logged

RUNTIME_PACKAGES = (
    *("containerd", "runc", "containernetworking-plugins", "etcd-server", "dnsmasq-base"),
    *("iptables", "conntrack", "ebtables", "ethtool", "socat", "iproute2", "kmod", "mount", "openssl"),
)
PAUSE_PACKAGES = ("gcc", "libc6-dev")
REFLECT2_PACKAGE = "golang-github-modern-go-reflect2-dev"
BUILD_PACKAGES = ("golang-go", "rsync", "jq", "bc", "dpkg-dev", "make", REFLECT2_PACKAGE)
IMAGE_PACKAGES = ("buildah", "mmdebstrap")

POLICY = Path("/usr/sbin/policy-rc.d")
_WAIT = ("-o", "DPkg::Lock::Timeout=120")  # somebody else may be installing
_SOURCES = Path("/etc/apt/sources.list")
_SOURCE_PARTS = Path("/etc/apt/sources.list.d")


@dataclass(frozen=True)
class Source:
    """One apt repository of this machine, in deb822 terms."""

    uris: str
    suites: str
    components: str
    signed_by: str = ""
    trusted: str = ""

    def stanza(self, types: str) -> str:
        """The deb822 stanza for `deb`, `deb-src` or both."""
        lines = [f"Types: {types}", f"URIs: {self.uris}", f"Suites: {self.suites}", f"Components: {self.components}"]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}".replace(": \n", ":\n"))  # a file's path, or a whole key
        if self.trusted:
            lines.append(f"Trusted: {self.trusted}")
        return "\n".join(lines) + "\n"


def release() -> dict[str, str]:
    """`/etc/os-release` as a dictionary; empty where there is none."""
    try:
        text = Path("/etc/os-release").read_text()
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def demand_debian_root() -> None:
    """Refuse politely where this cannot work, and name what would."""
    remedy = "Set KUBECONFIG to a cluster you have (kind, k3d, any other) and run this again: it is used as it is."
    if os.geteuid() != 0:
        raise ClusterError(f"Starting Kubernetes on this machine needs root. Run it as root, or: {remedy}")
    told = release()
    if told.get("ID") != "debian" or told.get("VERSION_CODENAME") != "bookworm":
        name = told.get("PRETTY_NAME", "this system")
        raise ClusterError(f"This builds Kubernetes from Debian 12's (bookworm) sources, and this is {name}. {remedy}")


def parse_one_line(text: str) -> list[Source]:
    """The `deb` lines of a classic sources.list."""
    found = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^]]*)]\s+)?(\S+)\s+(\S+)\s*(.*)$", line.strip())
        if not match:
            continue
        pairs = (option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
        options = {key.lower(): value for key, value in pairs}
        components = match[4].split("#")[0].strip()
        found.append(Source(match[2], match[3], components, options.get("signed-by", ""), options.get("trusted", "")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The enabled `deb` stanzas of a .sources file."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:  # a continuation: an embedded key in Signed-By, or a long list
                fields[key] += "\n" + line
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            found.append(
                Source(
                    fields.get("uris", ""),
                    fields.get("suites", ""),
                    fields.get("components", ""),
                    fields.get("signed-by", ""),
                    fields.get("trusted", ""),
                )
            )
    return found


def machine_sources() -> list[Source]:
    """The repositories this machine uses that carry Debian itself (`main` of the running release)."""
    found: list[Source] = []
    files = [_SOURCES, *sorted(_SOURCE_PARTS.glob("*"))]
    for path in files:
        if path.suffix == ".list" and path.is_file():
            found += parse_one_line(path.read_text())
        elif path.suffix == ".sources" and path.is_file():
            found += parse_deb822(path.read_text())
    codename = release().get("VERSION_CODENAME", "")
    debian = [s for s in found if codename in s.suites and "main" in s.components.split()]
    # A vendor's repository may well call its suite "bookworm" too; Debian's own have the base suite or its satellites.
    if not any(codename in s.suites.split() for s in debian):
        raise ClusterError(f"No apt source for Debian's {codename} main in {_SOURCES} or {_SOURCE_PARTS}/: add one.")
    return debian


def write_sources(path: Path, types: str) -> Path:
    """Write the machine's Debian repositories as a deb822 file (`path` must end in `.sources`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(source.stanza(types) for source in machine_sources()))
    return path


def missing(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that dpkg does not have installed."""
    told = run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages], check=False)
    have = {line.split()[0] for line in told.splitlines() if line.endswith(" installed")}
    return [name for name in packages if name not in have]


def install(packages: Sequence[str], log: Path) -> list[str]:
    """Install what is missing, without starting any service. Returns what was installed."""
    needed = missing(packages)
    if not needed:
        return []
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run_logged(["apt-get", "-q", *_WAIT, "update"], log, env=env)
    with _no_services():
        command = ["apt-get", "-q", "-y", *_WAIT, "--no-install-recommends", "install", *needed]
        run_logged(command, log, env=env, progress=lambda: f"installing {len(needed)} packages")
    return needed


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Forbid maintainer scripts to start services (containerd, etcd) while packages are installed.

    `policy-rc.d` is the interface for that (invoke-rc.d(8)); the machine's own file comes back afterwards. It is moved
    aside under a fixed name, so that an interrupted run is repaired by the next one.
    """
    aside = POLICY.with_name(POLICY.name + ".kappa-saved")
    if POLICY.exists() and not aside.exists():
        shutil.move(POLICY, aside)
    try:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)
        if aside.exists():
            shutil.move(aside, POLICY)


def download_source(package: str, folder: Path, log: Path) -> Path:
    """Download a Debian source package into `folder`, return its `.dsc`. The machine's own apt setup stays as it is."""
    private = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (private / part).mkdir(parents=True, exist_ok=True)
    sources = write_sources(private / "kappa.sources", "deb-src")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": private / "lists",
        "Dir::Cache": private / "cache",
        "APT::Sandbox::User": "root",  # the folder may lie where the user _apt cannot go
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    run_logged(["apt-get", "-q", *flags, "update"], log)
    run_logged(["apt-get", "-q", *flags, "source", "--download-only", package], log, cwd=folder)
    described = sorted(folder.glob(f"{package}_*.dsc"))
    if not described:
        raise ClusterError(f"apt-get source {package} brought no .dsc; see {log}")
    return described[-1]
