"""Event patterns as Amazon EventBridge has them, compiled once and then asked for every event. Pure.

A pattern is an object with the event's keys. Below a key stands another pattern, or a list: one of its items must match
the value there. Items are exact values (strings, numbers, true, false, null) or objects with one matcher:

    {"prefix": "a"}  {"suffix": "z"}  {"equals-ignore-case": "Ok"}  {"wildcard": "a*z"}  {"exists": true}
    {"numeric": [">", 0, "<=", 5]}  {"cidr": "10.0.0.0/24"}
    {"anything-but": value, or list of values, or {"prefix" | "suffix" | "equals-ignore-case" | "wildcard": ...}}

Prefix and suffix also take {"equals-ignore-case": "text"}. `$or` holds a list of patterns of which one must match.
Where the event has a list, one of its items must match; all below a list of objects must match in the same object.

Source: "Event pattern syntax" and "Comparison operators" in the Amazon EventBridge user guide.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = Any
#: A value of the event; ABSENT: it has none there.
Test = Callable[[Json], bool]
ABSENT: Final = object()
MAX_DEPTH: Final = 20
MAX_ITEMS: Final = 500
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,40}")
_BOUNDS: Final[dict[str, Callable[[float, float], bool]]] = {
    "=": lambda value, bound: value == bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
}


class PatternError(ValueError):
    """Not a pattern. `path`: where, such as `data.amount[0].numeric`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.message = path, message


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern."""

    test: Test

    def matches(self, event: Mapping[str, Json]) -> bool:
        """`event`: CloudEvents attributes by name and, below `data`, the data."""
        try:
            return self.test(event)
        except RecursionError:  # lists in lists in lists: nothing that somebody could have meant
            return False


def compile_pattern(pattern: Json) -> Pattern:
    """Raises PatternError for the first fault. Top-level keys are CloudEvents attributes, `data` and `$or`."""
    return Pattern(_Compiler().pattern(pattern, "", 0))


class _Compiler:
    """Counts items, so that a pattern's size, and with it the cost of every event, is bounded."""

    def __init__(self) -> None:
        self._items = 0

    def pattern(self, value: Json, path: str, depth: int) -> Test:
        if not isinstance(value, Mapping):
            raise PatternError(path, f"must be an object, not {_kind(value)}")
        if not value:
            raise PatternError(path, "must not be empty: leave it out to match everything")
        if depth > MAX_DEPTH:
            raise PatternError(path, f"is more than {MAX_DEPTH} levels deep")
        tests: list[tuple[str, Test]] = []
        either: Test | None = None
        for key, below in value.items():
            where = f"{path}.{key}" if path else str(key)
            if key == "$or":
                either = self._or(below, path, depth)
                continue
            if not path and key != "data" and not _ATTRIBUTE.fullmatch(str(key)):
                raise PatternError(where, "is no attribute of a CloudEvent (a-z, 0-9); what events hold is below data")
            tests.append((str(key), self._below(below, where, depth)))

        def matches(found: Json) -> bool:
            if isinstance(found, list) and found:
                return any(matches(item) for item in found)
            if not isinstance(found, Mapping):
                # Nothing is below: only what must be absent is satisfied
                found = {}
            if either is not None and not either(found):
                return False
            return all(test(found.get(key, ABSENT)) for key, test in tests)

        return matches

    def _below(self, value: Json, path: str, depth: int) -> Test:
        if isinstance(value, Mapping):
            return self.pattern(value, path, depth + 1)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise PatternError(path, f"must be a list of values or an object, not {_kind(value)}: [{_shown(value)}]")
        if not value:
            raise PatternError(path, "must have at least one item: an empty list matches nothing")
        tests = [self._item(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return lambda found: _some(found, tests)

    def _or(self, value: Json, path: str, depth: int) -> Test:
        where = f"{path}.$or" if path else "$or"
        if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) < 2:
            raise PatternError(where, "must be a list of at least two patterns")
        # A branch is checked as what stands beside $or is; at the top these are attributes
        tests = [self._branch(item, path, f"{where}[{index}]", depth) for index, item in enumerate(value)]
        return lambda found: any(test(found) for test in tests)

    def _branch(self, item: Json, path: str, where: str, depth: int) -> Test:
        try:
            return self.pattern(item, path, depth + 1)
        except PatternError as error:
            rest = error.path[len(path) :].lstrip(".")
            raise PatternError(f"{where}.{rest}" if rest else where, error.message) from None

    def _item(self, item: Json, path: str) -> Test:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise PatternError(path, f"the pattern has more than {MAX_ITEMS} values")
        if isinstance(item, Mapping):
            return _matcher(item, path)
        if isinstance(item, list | tuple):
            raise PatternError(path, "must be a value or a matcher, not a list")
        return _exact(item, path)


def _some(found: Json, tests: Sequence[Test]) -> bool:
    """Whether one of the items matches the value, or one of the values if it is a list."""
    if isinstance(found, list):
        # `exists` looks at the list as a whole, which is there even if it is empty
        return any(_some(value, tests) for value in found) or any(
            isinstance(test, _Exists) and test(found) for test in tests
        )
    return any(test(found) for test in tests)


class _Exists:
    """A class of its own, because it asks whether there is a value, and not which."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def __call__(self, found: Json) -> bool:
        return (found is not ABSENT) is self._wanted


def _exact(wanted: Json, path: str) -> Test:
    if isinstance(wanted, float) and not math.isfinite(wanted):
        raise PatternError(path, "must be a finite number")
    if wanted is None or isinstance(wanted, bool):
        return lambda found: found is wanted
    if isinstance(wanted, int | float):
        return lambda found: _number(found) and found == wanted
    if isinstance(wanted, str):
        return lambda found: isinstance(found, str) and found == wanted
    raise PatternError(path, f"must be a string, a number, true, false or null, not {_kind(wanted)}")


def _matcher(item: Mapping[str, Json], path: str) -> Test:
    if len(item) != 1:
        raise PatternError(path, f"must have exactly one of {', '.join(_MATCHERS)}")
    ((name, value),) = item.items()
    where = f"{path}.{name}"
    if name not in _MATCHERS:
        raise PatternError(where, f"is no matcher: use one of {', '.join(_MATCHERS)}")
    return _MATCHERS[name](value, where)


def _prefix(value: Json, path: str) -> Test:
    if isinstance(value, Mapping):
        text = _ignoring_case(value, path)
        return lambda found: isinstance(found, str) and found.casefold().startswith(text)
    plain = _text(value, path)
    return lambda found: isinstance(found, str) and found.startswith(plain)


def _suffix(value: Json, path: str) -> Test:
    if isinstance(value, Mapping):
        text = _ignoring_case(value, path)
        return lambda found: isinstance(found, str) and found.casefold().endswith(text)
    plain = _text(value, path)
    return lambda found: isinstance(found, str) and found.endswith(plain)


def _equals_ignore_case(value: Json, path: str) -> Test:
    text = _text(value, path, empty=True).casefold()
    return lambda found: isinstance(found, str) and found.casefold() == text


def _wildcard(value: Json, path: str) -> Test:
    text = _text(value, path)
    if "**" in text:
        raise PatternError(path, "must not have ** in it: one * stands for any text")
    pieces = text.split("*")
    return lambda found: isinstance(found, str) and _fits(pieces, found)


def _fits(pieces: Sequence[str], text: str) -> bool:
    """Leftmost first: linear, however the wildcards stand."""
    first, *middle = pieces
    if not middle:
        return text == first
    last = middle.pop()
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _exists(value: Json, path: str) -> Test:
    if not isinstance(value, bool):
        raise PatternError(path, f"must be true or false, not {_kind(value)}")
    return _Exists(value)


def _numeric(value: Json, path: str) -> Test:
    if not isinstance(value, list | tuple) or len(value) not in (2, 4):
        raise PatternError(path, 'must be a list such as [">", 0] or [">", 0, "<=", 5]')
    bounds: list[tuple[str, float]] = []
    for at in range(0, len(value), 2):
        sign, bound = value[at], value[at + 1]
        if not isinstance(sign, str) or sign not in _BOUNDS:
            raise PatternError(f"{path}[{at}]", f"{_shown(sign)} is no comparison: use one of {', '.join(_BOUNDS)}")
        if not _number(bound) or not math.isfinite(bound):
            raise PatternError(f"{path}[{at + 1}]", f"must be a number, not {_kind(bound)}")
        bounds.append((sign, bound))
    if len(bounds) == 2:
        (low, least), (high, most) = bounds
        if low[0] != ">" or high[0] != "<" or least > most or (least == most and (low, high) != (">=", "<=")):
            raise PatternError(path, "must be a range: the lower bound (> or >=), then a higher upper one (< or <=)")
    return lambda found: _number(found) and all(_BOUNDS[sign](found, bound) for sign, bound in bounds)


def _cidr(value: Json, path: str) -> Test:
    try:
        network = ipaddress.ip_network(_text(value, path), strict=False)
    except ValueError as error:
        raise PatternError(path, f"{_shown(value)} is no network such as 10.0.0.0/24") from error

    def inside(found: Json) -> bool:
        if not isinstance(found, str):
            return False
        try:
            return ipaddress.ip_address(found) in network
        except ValueError:
            return False

    return inside


def _anything_but(value: Json, path: str) -> Test:
    """Matches every single value that is there and is none of these."""
    if isinstance(value, Mapping):
        if len(value) != 1 or next(iter(value)) not in _BUT:
            raise PatternError(path, f"must have exactly one of {', '.join(_BUT)}, or be values")
        ((name, below),) = value.items()
        tests = _each(below, f"{path}.{name}", _BUT[name])
    else:
        tests = _each(value, path, _exact)
    return lambda found: found is not ABSENT and not isinstance(found, Mapping) and not any(t(found) for t in tests)


def _each(value: Json, path: str, make: Callable[[Json, str], Test]) -> list[Test]:
    if not isinstance(value, list | tuple):
        return [make(value, path)]
    if not value:
        raise PatternError(path, "must have at least one item")
    if len(value) > MAX_ITEMS:
        raise PatternError(path, f"has more than {MAX_ITEMS} items")
    return [make(item, f"{path}[{index}]") for index, item in enumerate(value)]


_BUT: Final[dict[str, Callable[[Json, str], Test]]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
}
_MATCHERS: Final[dict[str, Callable[[Json, str], Test]]] = {
    **_BUT,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
    "cidr": _cidr,
}


def _ignoring_case(value: Mapping[str, Json], path: str) -> str:
    if list(value) != ["equals-ignore-case"]:
        raise PatternError(path, 'must be a text, or {"equals-ignore-case": text}')
    return _text(value["equals-ignore-case"], f"{path}.equals-ignore-case").casefold()


def _text(value: Json, path: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise PatternError(path, f"must be a text, not {_kind(value)}")
    if not value and not empty:
        raise PatternError(path, "must not be empty")
    return value


def _number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Json) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _shown(value: Json) -> str:
    return repr(value)[:60]
