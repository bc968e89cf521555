"""What a request asks for, read from its path: group, version, namespace, resource, name, subresource. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """`plural` is empty for requests of the group or version itself (discovery)."""

    group: str
    version: str
    namespace: str | None
    plural: str
    name: str
    subresource: str


def parse(path: str) -> RequestInfo | None:
    """None for a path outside /api and /apis."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace: str | None = None
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    rest += [""] * (3 - len(rest))
    return RequestInfo(group, version, namespace, rest[0], rest[1], "/".join(part for part in rest[2:] if part))
