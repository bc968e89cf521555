"""Patches: JSON (RFC 6902), merge (RFC 7386) and strategic merge. Pure: (object, patch) -> new object."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch

from kappa_local.errors import ApiError, Cause, bad_request, invalid
from kappa_local.schema import Node
from kappa_local.types import Obj

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


def json_patch(obj: Obj, operations: Any) -> Obj:
    """Applies RFC 6902 operations. A failed `test` or a missing path is the caller's error (422)."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    try:
        patched: Obj = jsonpatch.apply_patch(obj, operations)
    except jsonpatch.JsonPatchTestFailed as e:
        raise _unprocessable("testing path failed", e) from e
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as e:
        raise _unprocessable("the server rejected our request due to an error in our request", e) from e
    except (TypeError, KeyError, IndexError, AttributeError) as e:
        raise _unprocessable("the server rejected our request due to an error in our request", e) from e
    return patched


def _unprocessable(summary: str, error: Exception) -> ApiError:
    return ApiError(422, "Invalid", f"{summary}: {error}", {})


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merge_patch(out.get(name), value)
    return out


def strategic_patch(target: Obj, patch: Obj, node: Node) -> Obj:
    """Kubernetes' strategic merge: like a merge patch, but lists with a merge key are merged element by element."""
    merged = _merge_map(target, patch, node)
    return {} if merged is None else merged


def _merge_map(target: Obj, patch: Obj, node: Node | None) -> Obj | None:
    """The merged map; None when the patch says to delete it."""
    directive = patch.get(_DIRECTIVE)
    if directive == "delete":
        return None
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != _DIRECTIVE}
    if directive not in (None, "merge"):
        raise invalid("", "", "", [Cause("FieldValueInvalid", f"Unknown value for $patch: {directive}", "patch")])
    out = dict(target)
    if _RETAIN in patch:
        out = {name: value for name, value in out.items() if name in patch[_RETAIN]}
    orders = {name.removeprefix(_ORDER): value for name, value in patch.items() if name.startswith(_ORDER)}
    for name, value in patch.items():
        if name.startswith(_DELETE_PRIMITIVES):
            field = name.removeprefix(_DELETE_PRIMITIVES)
            out[field] = [item for item in out.get(field) or () if item not in value]
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        child = node.child(name) if node is not None else None
        if value is None:
            out.pop(name, None)
        elif isinstance(value, dict):
            kept = _merge_map(out[name] if isinstance(out.get(name), dict) else {}, value, child)
            if kept is None:
                out.pop(name, None)
            else:
                out[name] = kept
        elif isinstance(value, list):
            current = out.get(name)
            out[name] = _merge_list(current if isinstance(current, list) else [], value, child, orders.get(name))
        else:
            out[name] = value
    for name, order in orders.items():
        if name not in patch and isinstance(out.get(name), list):
            child = node.child(name) if node is not None else None
            out[name] = _ordered(out[name], order, _merge_key(child))
    return out


def _merge_key(node: Node | None) -> str | None:
    key = node.extension("patch-merge-key") if node is not None else None
    return key if isinstance(key, str) else None


def _merges(node: Node | None) -> bool:
    return node is not None and "merge" in str(node.extension("patch-strategy") or "")


def _merge_list(current: list[Any], patch: list[Any], node: Node | None, order: list[Any] | None) -> list[Any]:
    if not _merges(node):
        return [item for item in patch if not (isinstance(item, dict) and _DIRECTIVE in item)]
    key = _merge_key(node)
    if key is None:
        merged = [*current, *(item for item in patch if item not in current)]
        return _ordered(merged, order, None)
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [item for item in patch if item.get(_DIRECTIVE) != "replace"]
    out = list(current)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        index = next((i for i, old in enumerate(out) if isinstance(old, dict) and old.get(key) == item[key]), None)
        kept = _merge_map(out[index] if index is not None else {}, item, node.items if node is not None else None)
        if index is None:
            if kept is not None:
                out.append(kept)
        elif kept is None:
            del out[index]
        else:
            out[index] = kept
    return _ordered(out, order, key)


def _ordered(items: list[Any], order: list[Any] | None, key: str | None) -> list[Any]:
    """`items` in the order that the patch asks for; those it does not name stay behind those it does."""
    if not order:
        return items
    wanted = [entry.get(key) if key is not None and isinstance(entry, dict) else entry for entry in order]

    def rank(item: Any) -> int:
        identity = item.get(key) if key is not None and isinstance(item, dict) else item
        return wanted.index(identity) if identity in wanted else len(wanted)

    return sorted(items, key=rank)
