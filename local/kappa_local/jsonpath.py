"""The part of kubectl's JSONPath that printer columns and scale paths use: .a.b, ['a.b'], [0], [*], [?(@.k=="v")],
..name no.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Step = Callable[[list[Any]], list[Any]]
_TOKEN = re.compile(
    r"""\.?\[\?\(@\.(?P<fkey>[^=!<>\s]+)\s*(?P<op>==|!=)\s*(?P<fval>"[^"]*"|'[^']*'|[^)\s]+)\s*\)\]"""
    r"""|\[(?P<index>-?\d+)\]|\[(?P<star>\*)\]|\[['"](?P<quoted>[^'"]+)['"]\]|\.(?P<name>(?:\\.|[^.\[\]\\])+)"""
)


def evaluate(path: str, obj: Any) -> list[Any]:
    """Every value at `path`; empty when there is none or when the path is not understood."""
    found = [obj]
    for step in _compiled(path):
        found = step(found)
    return found


@lru_cache(maxsize=1024)
def _compiled(path: str) -> tuple[Step, ...]:
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.removeprefix("$")
    if text and text[0] not in ".[":
        text = "." + text
    steps: list[Step] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return (lambda _found: [],)
        at = token.end()
        steps.append(_step(token))
    return tuple(steps)


def _step(token: re.Match[str]) -> Step:
    groups = token.groupdict()
    if groups["fkey"]:
        wanted, equal = groups["fval"].strip("\"'"), groups["op"] == "=="
        keys = groups["fkey"].split(".")
        return lambda found: [
            item for value in found for item in _items(value) if (_text(_dig(item, keys)) == wanted) is equal
        ]
    if groups["index"]:
        index = int(groups["index"])
        return lambda found: [
            value[index] for value in found if isinstance(value, list) and -len(value) <= index < len(value)
        ]
    if groups["star"]:
        return lambda found: [item for value in found for item in _items(value)]
    name = (groups["quoted"] or groups["name"]).replace("\\.", ".")
    if name == "*":
        return lambda found: [item for value in found for item in _items(value)]
    return lambda found: [value[name] for value in found if isinstance(value, dict) and name in value]


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _dig(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
