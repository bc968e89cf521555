"""Sets of fields: which paths a value holds, as `managedFields` writes them. Pure.

A path is a tuple of elements in the FieldsV1 notation: `f:name` a field, `k:{"name":"x"}` a list item by its keys,
`v:"x"` an item of a set. A set holds the leaves, and each list item itself (written as `.`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kappa_local.schema import Node
from kappa_local.types import Obj

Path = tuple[str, ...]
FieldSet = frozenset[Path]


def element(item: Any, node: Node) -> str | None:
    """How an item of an associative list is named; None when the list is atomic."""
    kind = node.extension("list-type")
    if kind == "set" or (
        kind is None and "merge" in str(node.extension("patch-strategy") or "") and not isinstance(item, dict)
    ):
        return "v:" + json.dumps(item, separators=(",", ":"))
    keys = list_keys(node)
    if keys and isinstance(item, dict):
        values = {key: item[key] for key in sorted(keys) if key in item}
        return "k:" + json.dumps(values, separators=(",", ":"))
    return None


def list_keys(node: Node) -> tuple[str, ...]:
    if node.extension("list-type") == "map":
        return tuple(node.extension("list-map-keys") or ())
    if node.extension("list-type") is None and "merge" in str(node.extension("patch-strategy") or ""):
        key = node.extension("patch-merge-key")
        return (key,) if isinstance(key, str) else ()
    return ()


def associative(value: Any, node: Node | None) -> bool:
    """Whether a list is merged item by item."""
    return (
        isinstance(value, list)
        and node is not None
        and bool(
            list_keys(node)
            or node.extension("list-type") == "set"
            or ("merge" in str(node.extension("patch-strategy") or ""))
        )
    )


def is_atomic_map(value: Any, node: Node | None) -> bool:
    return isinstance(value, dict) and node is not None and node.extension("map-type") == "atomic"


def fields(value: Any, node: Node | None, prefix: Path = ()) -> FieldSet:
    """Every field that `value` sets."""
    found: set[Path] = set()
    _collect(value, node, prefix, found)
    return frozenset(found)


def _collect(value: Any, node: Node | None, path: Path, found: set[Path]) -> None:
    if isinstance(value, dict) and value and not is_atomic_map(value, node):
        for name, item in value.items():
            _collect(item, node.child(name) if node is not None else None, (*path, f"f:{name}"), found)
        return
    if value and node is not None and associative(value, node):
        for item in value:
            name = element(item, node)
            if name is None:
                break
            found.add((*path, name))
            if isinstance(item, dict):
                _collect(item, node.items, (*path, name), found)
        else:
            return
    if path:
        found.add(path)


def lookup(value: Any, node: Node | None, path: Path) -> tuple[bool, Any]:
    """(whether the path exists in `value`, what is there)."""
    for step in path:
        if step.startswith("f:"):
            if not isinstance(value, dict) or step[2:] not in value:
                return False, None
            value = value[step[2:]]
            node = node.child(step[2:]) if node is not None else None
            continue
        if not isinstance(value, list) or node is None:
            return False, None
        for item in value:
            if element(item, node) == step:
                value = item
                break
        else:
            return False, None
        node = node.items
    return True, value


def remove(value: Any, node: Node | None, path: Path) -> Any:
    """`value` without the field at `path`; containers that become empty stay, as the server leaves them."""
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        name = step[2:]
        if not isinstance(value, dict) or name not in value:
            return value
        out = dict(value)
        if rest:
            out[name] = remove(value[name], node.child(name) if node is not None else None, rest)
            if out[name] in ({}, []) and value[name] not in ({}, []):
                del out[name]
        else:
            del out[name]
        return out
    if not isinstance(value, list) or node is None:
        return value
    kept = []
    for item in value:
        if element(item, node) != step:
            kept.append(item)
        elif rest:
            kept.append(remove(item, node.items, rest))
    return kept


def encode(paths: Iterable[Path]) -> Obj:
    """A set as FieldsV1."""
    root: Obj = {}
    for path in sorted(paths):
        at = root
        for step in path:
            at = at.setdefault(step, {})
        if path[-1].startswith("k:"):
            at.setdefault(".", {})
    return root


def decode(tree: Obj, prefix: Path = ()) -> FieldSet:
    """FieldsV1 as a set."""
    found: set[Path] = set()
    for step, below in tree.items():
        if step == ".":
            found.add(prefix)
            continue
        path = (*prefix, step)
        deeper = decode(below, path) if below else frozenset()
        found |= deeper or {path}
    return frozenset(found)


def dotted(path: Path) -> str:
    """A path for people: `.spec.containers[name="a"].image`."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += "." + step[2:]
        elif step.startswith("k:"):
            pairs = ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(step[2:]).items())
            text += f"[{pairs}]"
        else:
            text += f"[={step[2:]}]"
    return text
