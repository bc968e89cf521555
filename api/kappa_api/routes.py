"""Host routes: the path template language, and who owns a route that two Functions ask for.

Gateway (to match) and operator (to report conflicts) must agree, so the rule lives here: a pure function of all
Functions. Templates: `/hello/{name}` matches one segment, `/files/{path+}` matches the rest (one segment or more, as in
API Gateway).

A named host belongs to one namespace, because all its paths are one origin to browsers: the oldest Function that names
the host, or a wildcard that covers it, decides which. Other namespaces get no route on it, unless the admin shares it.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\+?)\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*,;=:@%-]*")
_HOST = re.compile(r"(?=.{1,253}$)(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a template: literal text, or (`parameter`) a named hole; `greedy` takes all that follows."""

    text: str
    parameter: bool = False
    greedy: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of `spec.http.routes`. An empty `host` means any host; empty `methods` means all."""

    path: str
    host: str = ""
    methods: tuple[str, ...] = ()

    def keys(self) -> tuple[tuple[str, str, str], ...]:
        """What this route claims: (host, shape of the path, method). Two routes collide when they share a key."""
        shape = "/".join("{+}" if s.greedy else "{}" if s.parameter else s.text for s in parse_template(self.path))
        return tuple((self.host, "/" + shape, method) for method in (self.methods or ("*",)))


@dataclass(frozen=True, slots=True)
class Claim:
    """A Function's routes and its age: `created` is the RFC 3339 creation time, `owner` its `namespace/name`."""

    owner: str
    created: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A route that `owner` asked for and `holder`, being older, has; with `whole_host`, the host is the other
    namespace's, whatever the path."""

    owner: str
    holder: str
    route: Route
    whole_host: bool = False


def parse_template(path: str) -> tuple[Segment, ...]:
    """Splits a template into segments. Raises ValueError with the remedy when it is not one."""
    if not path.startswith("/"):
        raise ValueError(f"{path!r} must begin with /")
    segments: list[Segment] = []
    seen: set[str] = set()
    for piece in path[1:].split("/"):
        if segments and segments[-1].greedy:
            raise ValueError("a {name+} parameter must be the last segment")
        if match := _PARAMETER.fullmatch(piece):
            name, plus = match.groups()
            if name in seen:
                raise ValueError(f"parameter {{{name}}} appears twice")
            seen.add(name)
            segments.append(Segment(name, True, bool(plus)))
        elif _LITERAL.fullmatch(piece):
            segments.append(Segment(piece))
        else:
            raise ValueError(f"segment {piece!r} is not valid: use plain text, {{name}} or {{name+}}")
    return tuple(segments)


def host_problem(host: str) -> str:
    """What is wrong with a host name (RFC 1123, `*.` in front allowed), or an empty string."""
    return "" if _HOST.fullmatch(host) else f"{host[:80]!r} is not a lower-case host name such as api.example.org"


def shared_hosts(text: str) -> frozenset[str]:
    """The hosts of a comma-separated list, as `KAPPA_SHARED_HOSTS` holds them."""
    return frozenset(host for piece in text.split(",") if (host := piece.strip().lower()))


def covering(host: str) -> Iterator[str]:
    """The host and the wildcards that cover it, the most exact first: a.b.c, *.b.c, *.c."""
    yield host
    rest = host.removeprefix("*.")
    while (dot := rest.find(".")) >= 0:
        rest = rest[dot + 1 :]
        yield f"*.{rest}"


def is_shared(host: str, shared: Collection[str]) -> bool:
    """Whether several namespaces may have routes on a host: one that the admin shares, and no host at all."""
    return not host or any(each in shared for each in covering(host))


def assign(
    claims: Iterable[Claim], shared: Collection[str] = ()
) -> tuple[dict[tuple[str, str, str], str], tuple[Conflict, ...]]:
    """Gives each route key to the oldest Function that asks for it (ties: by `namespace/name`).

    Returns the owner of each key, and the routes that were refused. A route without methods claims every method and
    collides with any other route of the same host and shape; a host that is not `shared` is of one namespace.
    """
    hosts: dict[str, str] = {}
    owners: dict[tuple[str, str, str], str] = {}
    conflicts: list[Conflict] = []
    taken: dict[tuple[str, str], dict[str, str]] = {}
    for claim in sorted(claims, key=lambda c: (c.created, c.owner)):
        for route in claim.routes:
            keep = hosts.get(next((host for host in covering(route.host) if host in hosts), ""))
            if keep is not None and namespace_of(keep) != namespace_of(claim.owner):
                conflicts.append(Conflict(claim.owner, keep, route, whole_host=True))
                continue
            keys = route.keys()
            held = taken.setdefault(keys[0][:2], {})
            holder = next((held[m] for m in held if _overlap(m, route.methods) and held[m] != claim.owner), None)
            if holder is not None:
                conflicts.append(Conflict(claim.owner, holder, route))
                continue
            if not is_shared(route.host, shared):
                hosts.setdefault(route.host, claim.owner)
            for key in keys:
                owners.setdefault(key, claim.owner)
                held.setdefault(key[2], claim.owner)
    return owners, tuple(conflicts)


def namespace_of(owner: str) -> str:
    """The namespace in `namespace/name`."""
    return owner.partition("/")[0]


def _overlap(held: str, methods: tuple[str, ...]) -> bool:
    return held == "*" or not methods or held in methods
