"""From a request's host and path to a function: `/fn/<namespace>/<name>/...`, or the table of `spec.http.routes`.

The table is immutable and swapped whole. Who owns a route that two functions ask for is decided by
`kappa_api.routes.assign`, the same code the operator uses to report the conflict. Among routes that match, the more
exact host wins (name, then `*.` wildcard, then any host), then at each segment literal text before `{name}` before
`{name+}`. On a host that belongs to a namespace only its own routes answer, those for any host included.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import quote_plus, unquote

from kappa_api import names
from kappa_api.delivery import DEFAULT_DELIVERY, Delivery
from kappa_api.function import Function
from kappa_api.limits import NO_LIMITS, RequestLimits
from kappa_api.routes import Claim, Route, assign, is_shared, namespace_of, parse_template
from kappa_gateway.auth.guard import Access
from kappa_gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Entry:
    """What the request path needs to know of a Function. Holds no code: ten thousand of them must stay small.

    `timeout` in seconds; `max_body` in bytes, 0 for the gateway's own limit.
    """

    key: str
    created: str
    timeout: float
    concurrency: int
    idempotent: bool = False
    max_body: int = 0
    limits: RequestLimits = NO_LIMITS
    routes: tuple[Route, ...] = ()
    prefix_line: bytes = b""
    function_line: bytes = b""  # names the function to the instance
    access: Access | None = None  # None: anybody may call
    version: tuple[str, int] = ("", 0)  # (uid, generation): what a change of status leaves alone
    delivery: Delivery = DEFAULT_DELIVERY
    most: int = 20  # invocations that all its instances together may run
    shaped: bool = True  # its runtime makes handlers' events out of CloudEvents

    @classmethod
    def of(cls, function: Function) -> "Entry":
        http = function.spec.http
        return cls(
            key=function.key,
            created=function.created,
            timeout=float(function.spec.timeout_seconds),
            concurrency=function.spec.concurrency,
            idempotent=http.idempotent,
            max_body=http.max_body_bytes,
            limits=http.limits,
            access=Access.of(http),
            routes=http.routes,
            prefix_line=f"x-forwarded-prefix: {names.FUNCTION_PATH}{function.key}\r\n".encode(),
            function_line=f"{names.HEADER_FUNCTION}: {function.key}\r\n".encode(),
            version=(function.uid, function.generation),
            delivery=_one_of_a_kind(function.spec.delivery),
            most=function.spec.concurrency * function.spec.scaling.max_replicas,
            shaped=function.spec.signature == "event" and bool(function.spec.runtime),
        )


@lru_cache(1000)
def _one_of_a_kind(delivery: Delivery) -> Delivery:
    """Most Functions say the same, or nothing: they share one object."""
    return delivery


@dataclass(frozen=True, slots=True)
class Match:
    """A host route that fits: the function, the template and the decoded parameters."""

    key: str
    template: str
    parameters: Mapping[str, str]

    def lines(self) -> bytes:
        """The header lines that tell the function how it was reached."""
        encoded = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in self.parameters.items())
        return f"{names.HEADER_ROUTE}: {self.template}\r\n{names.HEADER_PATH_PARAMETERS}: {encoded}\r\n".encode()


@dataclass(slots=True)
class _Node:
    """One segment of the templates below a host. `leaf` maps a method (or *) to (owner, template, parameter names)."""

    literal: dict[str, "_Node"] = field(default_factory=dict)
    hole: "_Node | None" = None
    rest: "_Node | None" = None
    leaf: dict[str, tuple[str, str, tuple[str, ...]]] = field(default_factory=dict)


class RouteTable:
    """All host routes at one moment."""

    def __init__(self, entries: Iterable[Entry] = (), shared: Collection[str] = ()) -> None:
        self._hosts: dict[str, _Node] = {}
        self._namespaces: dict[str, str] = {}  # of each host that one namespace has for itself: `namespace/`
        routed = [entry for entry in entries if entry.routes]
        owners, self.conflicts = assign((Claim(e.key, e.created, e.routes) for e in routed), shared)
        for entry in routed:
            for route in entry.routes:
                claimed = route.keys()
                methods = [key[2] for key in claimed if owners.get(key) == entry.key]
                if methods:
                    self._add(route, entry.key, methods)
                    if not is_shared(route.host, shared):
                        self._namespaces[route.host] = namespace_of(entry.key) + "/"

    def find(self, host: str, method: str, path: str) -> Match:
        """The function for a request; `path` is raw and without the query. Raises GatewayError (404, 405)."""
        pieces = path[1:].split("/")
        allowed: set[str] = set()
        search = _Search(pieces, method, allowed)
        for name, root in self._roots(host):
            search.inside = search.inside or self._namespaces.get(name, "")
            found = _walk(root, 0, (), search)
            if found is not None:
                return found
        if allowed:
            allow = ", ".join(sorted(allowed))
            raise GatewayError("method_not_allowed", f"{method} is not allowed here; allowed: {allow}", allow=allow)
        raise GatewayError("not_found", "no function has this host and path")

    def names_host(self, host: str, method: str, path: str) -> bool:
        """Whether a route that names its host, or a wildcard for it, fits."""
        if not self._hosts:
            return False
        search = _Search(path[1:].split("/"), method, set())
        for name, root in self._roots(host):
            search.inside = search.inside or self._namespaces.get(name, "")
            if name and _walk(root, 0, (), search) is not None:
                return True
        return False

    def _roots(self, host: str) -> Iterable[tuple[str, _Node]]:
        hosts = self._hosts
        if host in hosts and host:
            yield host, hosts[host]
        rest = host
        while (dot := rest.find(".")) >= 0:
            rest = rest[dot + 1 :]
            if (wild := hosts.get("*." + rest)) is not None:
                yield "*." + rest, wild
        if "" in hosts:
            yield "", hosts[""]

    def _add(self, route: Route, owner: str, methods: Iterable[str]) -> None:
        node = self._hosts.setdefault(route.host, _Node())
        parameters: list[str] = []
        for segment in parse_template(route.path):
            if segment.greedy:
                node.rest = node = node.rest or _Node()
            elif segment.parameter:
                node.hole = node = node.hole or _Node()
            else:
                node = node.literal.setdefault(unquote(segment.text), _Node())
            if segment.parameter:
                parameters.append(segment.text)
        for method in methods:
            node.leaf.setdefault(method, (owner, route.path, tuple(parameters)))

    def __repr__(self) -> str:
        return f"<RouteTable hosts={sorted(self._hosts)} conflicts={len(self.conflicts)}>"


@dataclass(slots=True)
class _Search:
    """What is looked for. `inside`: only functions whose key begins so; `allowed` collects the methods of misses."""

    pieces: list[str]
    method: str
    allowed: set[str]
    inside: str = ""


def _walk(node: _Node, at: int, values: tuple[str, ...], search: _Search) -> Match | None:
    pieces = search.pieces
    if at == len(pieces):
        return _leaf(node, values, search)
    text = unquote(pieces[at])
    found = None
    if (child := node.literal.get(text)) is not None:
        found = _walk(child, at + 1, values, search)
    if found is None and node.hole is not None and text:
        found = _walk(node.hole, at + 1, (*values, text), search)
    if found is None and node.rest is not None and any(pieces[at:]):
        found = _leaf(node.rest, (*values, unquote("/".join(pieces[at:]))), search)
    return found


def _leaf(node: _Node, values: tuple[str, ...], search: _Search) -> Match | None:
    leaf = node.leaf.get(search.method) or node.leaf.get("*")
    if leaf is None:
        search.allowed.update(key for key, (owner, _, _) in node.leaf.items() if owner.startswith(search.inside))
        return None
    owner, template, parameters = leaf
    if not owner.startswith(search.inside):
        return None
    return Match(owner, template, dict(zip(parameters, values, strict=True)))


def split_function_path(target: str, prefix: str = names.FUNCTION_PATH) -> tuple[str, str]:
    """`/fn/<namespace>/<name><rest>` as (`namespace/name`, rest). The rest begins with / and keeps query and encoding.

    The name is taken literally: an encoded or empty one matches no function.
    """
    start = len(prefix)
    middle = target.find("/", start)
    if middle < 0:
        return target[start:], "/"
    end = target.find("/", middle + 1)
    query = target.find("?", middle + 1)
    if query >= 0 and (end < 0 or query < end):
        return target[start:query], "/" + target[query:]
    if end < 0:
        return target[start:], "/"
    return target[start:end], target[end:]


_SLASHES: Final = re.compile(r"[/\\]+")


def check_path(target: str) -> None:
    """Refuses paths that would mean something else to whoever normalises them, and the runtime's own paths.

    Raises GatewayError: 400 for `.` and `..` segments (encoded or not), 404 for `/_kappa`.
    """
    if not ("%" in target or "/." in target or "_kappa" in target or "\\" in target):  # five times as fast as a pattern
        return
    path = unquote(target.partition("?")[0])
    pieces = _SLASHES.split(path)
    if "." in pieces or ".." in pieces:
        raise GatewayError("bad_request", "the path has . or .. segments: send it in its normal form")
    if next((piece for piece in pieces if piece), "") == names.PATH_PREFIX.strip("/"):
        raise GatewayError("not_found", "this path is reserved")
