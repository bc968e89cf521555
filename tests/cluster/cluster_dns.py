"""Cluster DNS: dnsmasq on the node's address, and a small watcher that feeds it from the API.

Debian has no CoreDNS. For each Service there is an address record, as Kubernetes' DNS specification has it:
`service.namespace.svc.cluster.local` (a headless one: the ready pods' addresses, and `hostname.service...` for pods
that have a host name). Not served: SRV records, ExternalName, records by pod address.

Run as a program, this module is the watcher: it lists and watches Services and Endpoints, writes a hosts file and tells
dnsmasq to read it again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster_api import Api, ApiError, Json
from cluster_processes import start
from cluster_run import ClusterError, say, tail, wait_for
from cluster_settings import CLUSTER_DOMAIN, NODE_ADDRESS, Settings, load

_SETTLE_SECONDS = 0.02  # several changes come at once (Service and Endpoints); one rewrite for all of them
_RETRY_SECONDS = 0.5
_PATHS = ("/api/v1/services", "/api/v1/endpoints")


def records(services: Iterable[Json], endpoints: Iterable[Json]) -> str:
    """The hosts file for these objects: one `address name` per line, sorted."""
    by_name = {_key(item): item for item in endpoints}
    lines: set[str] = set()
    for service in services:
        namespace, name = _key(service)
        domain = f"{name}.{namespace}.svc.{CLUSTER_DOMAIN}"
        spec = service.get("spec", {})
        address = spec.get("clusterIP", "")
        if address and address != "None":
            lines.add(f"{address} {domain}")
        elif address == "None":
            unready = bool(spec.get("publishNotReadyAddresses"))
            lines |= _headless(domain, by_name.get((namespace, name), {}), unready)
    return "".join(f"{line}\n" for line in sorted(lines))


def _headless(domain: str, endpoints: Json, unready: bool) -> set[str]:
    lines = set()
    for subset in endpoints.get("subsets") or []:
        addresses = list(subset.get("addresses") or [])
        if unready:
            addresses += subset.get("notReadyAddresses") or []
        for entry in addresses:
            lines.add(f"{entry['ip']} {domain}")
            if entry.get("hostname"):
                lines.add(f"{entry['ip']} {entry['hostname']}.{domain}")
    return lines


def _key(item: Json) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


class Mirror:
    """What the API server has of two kinds, kept current by two threads. `changed` is set whenever it may differ."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._items: dict[str, dict[tuple[str, str], Json]] = {}
        self.changed = threading.Event()

    def start(self) -> None:
        """Begin to follow, in daemon threads."""
        for path in _PATHS:
            threading.Thread(target=self._follow, args=(path,), daemon=True).start()

    def snapshot(self) -> Mapping[str, list[Json]] | None:
        """The objects by path; None until both kinds have been listed."""
        with self._lock:
            if len(self._items) < len(_PATHS):
                return None
            return {path: list(items.values()) for path, items in self._items.items()}

    def _follow(self, path: str) -> None:
        while True:
            try:
                listed = self._api.get(path)
                with self._lock:
                    self._items[path] = {_key(item): item for item in listed["items"]}
                self.changed.set()
                self._watch(path, listed["metadata"]["resourceVersion"])
            except (ApiError, OSError, ValueError) as e:
                say(f"{path}: {e}; listing again")
                time.sleep(_RETRY_SECONDS)

    def _watch(self, path: str, version: str) -> None:
        while True:
            for event in self._api.watch(path, version):
                if event["type"] == "ERROR":
                    raise OSError(f"the watch ended: {event['object'].get('message')}")
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._apply(path, event)

    def _apply(self, path: str, event: Json) -> None:
        item = event["object"]
        with self._lock:
            if event["type"] == "DELETED":
                self._items[path].pop(_key(item), None)
            else:
                self._items[path][_key(item)] = item
        self.changed.set()


def feed(settings: Settings) -> None:
    """Write the hosts file whenever its content changes, and have dnsmasq read it. Never returns."""
    mirror = Mirror(Api(settings, "dns"))
    mirror.start()
    written = None
    while True:
        mirror.changed.wait()
        time.sleep(_SETTLE_SECONDS)
        mirror.changed.clear()
        known = mirror.snapshot()
        if known is None:
            continue
        text = records(known[_PATHS[0]], known[_PATHS[1]])
        if text == written:
            continue
        fresh = hosts_file(settings).with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(hosts_file(settings))
        os.kill(int(pid_file(settings).read_text()), signal.SIGHUP)
        written = text
        say(f"{text.count(chr(10))} records")


def hosts_file(settings: Settings) -> Path:
    """Written by the watcher, read by dnsmasq."""
    return settings.run / "dns.hosts"


def pid_file(settings: Settings) -> Path:
    """Written by dnsmasq, read by the watcher."""
    return settings.run / "dnsmasq.pid"


def launch(settings: Settings) -> None:
    """Start dnsmasq and the watcher; return when the API server's own Service has its record."""
    hosts_file(settings).touch()
    dnsmasq = start(
        settings,
        "dnsmasq",
        [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--log-facility=-",
            f"--pid-file={pid_file(settings)}",
            f"--listen-address={NODE_ADDRESS}",
            "--bind-interfaces",
            "--no-hosts",
            f"--addn-hosts={hosts_file(settings)}",
            f"--local=/{CLUSTER_DOMAIN}/",  # never forwarded: an unknown Service is NXDOMAIN, at once
            "--no-negcache",
            "--user=root",  # it gives up root otherwise, and cannot read the hosts file again
        ],
    )
    wait_for("dnsmasq", lambda: pid_file(settings).exists(), 10, Path(dnsmasq.log))
    program: list[str | Path] = [sys.executable, "-B", Path(__file__).resolve(), "--state", settings.state]
    watcher = start(settings, "dns-watcher", program)
    wait_for("the first DNS records", lambda: hosts_file(settings).stat().st_size > 0, 20, Path(watcher.log))
    if not pid_file(settings).exists():
        raise ClusterError(f"dnsmasq ended. The end of {dnsmasq.log}:\n{tail(Path(dnsmasq.log))}")


def main() -> None:
    """The watcher's entry."""
    parser = argparse.ArgumentParser(description="feeds dnsmasq from the Kubernetes API")
    parser.add_argument("--state", type=Path, required=True)
    feed(load(parser.parse_args().state))


if __name__ == "__main__":
    main()
