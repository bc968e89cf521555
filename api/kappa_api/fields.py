"""Reads one JSON object field by field and collects every fault under its path, instead of stopping at the first.

A `Reader` is handed down the document; each getter returns a value of the right type even where the input is wrong,
so that reading can go on and report all the faults at once. Call `unknown()` at the end of an object to refuse
misspelt keys.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kappa_api.errors import Problem

Json = Any
_HALF = "holds half of a character: an escape of a surrogate pair without the other one"


class Reader:
    """One object of the document, its path, and the list of faults shared by the whole document."""

    def __init__(self, value: Json, path: str, problems: list[Problem]) -> None:
        self.path, self.problems = path, problems
        self._seen: set[str] = set()
        if not isinstance(value, Mapping):
            if value is not None:
                self._fault("", f"must be an object, not {_kind(value)}")
            value = {}
        self._value: Mapping[str, Json] = value

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def fault(self, key: str, message: str) -> None:
        """Reports a fault of the field `key` of this object."""
        self._fault(f".{key}" if key else "", message)

    def _fault(self, suffix: str, message: str) -> None:
        self.problems.append(Problem(self.path + suffix, message))

    def _get(self, key: str) -> Json:
        self._seen.add(key)
        return self._value.get(key)

    def string(self, key: str, default: str = "", *, required: bool = False, pattern: str = "", hint: str = "") -> str:
        """A string; with `pattern` it must match as a whole, and `hint` says what that means in words."""
        value = self._get(key)
        if value is None:
            if required:
                self.fault(key, f"is required{f': {hint}' if hint else ''}")
            return default
        if not isinstance(value, str):
            self.fault(key, f"must be a string, not {_kind(value)}")
            return default
        if not _is_text(value):
            self.fault(key, _HALF)
            return default
        if pattern and not re.fullmatch(pattern, value):
            self.fault(key, f"{value[:80]!r} is not valid: {hint or f'must match {pattern}'}")
            return default
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number in `low..high`."""
        value = self._get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(key, f"must be a whole number, not {_kind(value)}")
            return default
        if not low <= value <= high:
            self.fault(key, f"{value} is out of range: must be from {low} to {high}")
            return default
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(key, f"must be true or false, not {_kind(value)}")
            return default
        return value

    def choice(self, key: str, default: str, allowed: Sequence[str]) -> str:
        value = self.string(key, default)
        if value not in allowed:
            self.fault(key, f"{value[:80]!r} is not supported: use one of {', '.join(allowed)}")
            return default
        return value

    def child(self, key: str) -> "Reader":
        """The object under `key`; an empty one when it is absent."""
        return Reader(self._get(key), f"{self.path}.{key}" if self.path else key, self.problems)

    def items(self, key: str) -> Iterator["Reader"]:
        """The objects of the list under `key`."""
        for index, value in enumerate(self._list(key)):
            yield Reader(value if value is not None else "", f"{self.path}.{key}[{index}]", self.problems)

    def strings(self, key: str, check: Callable[[str], str] | None = None) -> tuple[str, ...]:
        """A list of strings; `check` returns what is wrong with one, or an empty string."""
        found = []
        for index, value in enumerate(self._list(key)):
            if not isinstance(value, str):
                self.fault(f"{key}[{index}]", f"must be a string, not {_kind(value)}")
            elif not _is_text(value):
                self.fault(f"{key}[{index}]", _HALF)
            elif check and (message := check(value)):
                self.fault(f"{key}[{index}]", message)
            else:
                found.append(value)
        return tuple(found)

    def string_map(self, key: str) -> dict[str, str]:
        """An object whose values are strings."""
        value = self._get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(key, f"must be an object, not {_kind(value)}")
            return {}
        found = {}
        for name, text in value.items():
            if not isinstance(text, str):
                self.fault(f"{key}[{name}]", f"must be a string, not {_kind(text)}")
            elif not _is_text(str(name) + text):
                self.fault(f"{key}[{name}]", _HALF)
            else:
                found[name] = text
        return found

    def objects(self, key: str, required: str = "") -> tuple[Mapping[str, Json], ...]:
        """A list of objects passed through as they are (pod fields); each must have the string field `required`."""
        found = []
        for index, value in enumerate(self._list(key)):
            if not isinstance(value, Mapping):
                self.fault(f"{key}[{index}]", f"must be an object, not {_kind(value)}")
            elif required and not (isinstance(value.get(required), str) and value[required]):
                self.fault(f"{key}[{index}].{required}", "is required")
            else:
                found.append(value)
        return tuple(found)

    def mapping(self, key: str) -> Mapping[str, Json]:
        """An object passed through as it is."""
        value = self._get(key)
        if value is None or isinstance(value, Mapping):
            return value or {}
        self.fault(key, f"must be an object, not {_kind(value)}")
        return {}

    def _list(self, key: str) -> Sequence[Json]:
        value = self._get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            self.fault(key, f"must be a list, not {_kind(value)}")
            return ()
        return value

    def unknown(self) -> None:
        """Reports every key that no getter asked for."""
        for key in self._value:
            if key not in self._seen:
                self.fault(str(key), f"is not a field; known here: {', '.join(sorted(self._seen))}")


def _is_text(value: str) -> bool:
    """JSON's escapes can hold half characters, which nothing that comes after can write."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Json) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
