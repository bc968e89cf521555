"""Server-side apply. Pure: (live object, applied configuration, manager) -> merged object with managedFields.

Fields are tracked from an object's first apply on; until then everything belongs to the manager `before-first-apply`.
(The real server since 1.18 tracks every write from the start. Tracking costs a set of paths per write, and almost no
object here is ever applied by a second manager.)
"""

from __future__ import annotations

from typing import Any

from kappa_local import fieldset
from kappa_local.errors import apply_conflict
from kappa_local.fieldset import FieldSet, Path
from kappa_local.schema import Node
from kappa_local.types import Obj

_META = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
)
FIRST = "before-first-apply"


def owned(obj: Obj, schema: Node) -> FieldSet:
    """The fields of an object that can have a manager."""
    trimmed = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    metadata = {name: value for name, value in (obj.get("metadata") or {}).items() if name not in _META}
    if metadata:
        trimmed["metadata"] = metadata
    return fieldset.fields(trimmed, schema)


def apply(live: Obj | None, config: Obj, schema: Node, manager: Obj, *, force: bool) -> Obj:
    """The live object after the apply. `manager`: {manager, apiVersion, subresource?, time}. Raises 409 on
    conflicts.
    """
    wanted = owned(config, schema)
    entries: list[Obj] = list((live or {}).get("metadata", {}).get("managedFields") or [])
    if live is not None and not entries:
        entries = [_entry({**manager, "manager": FIRST, "subresource": ""}, "Update", owned(live, schema))]
    mine, others = _split(entries, manager)
    if live is not None:
        others = _yield_fields(live, config, schema, wanted, others, force=force)
    merged = merge(live or {}, config, schema)
    # Shortest first: a list item goes as a whole, before its key would go and leave an item that nothing names.
    for path in sorted(fieldset.decode(mine["fieldsV1"]) - wanted if mine else (), key=len):
        if not any(_covers(entry, path) for entry in others):
            merged = fieldset.remove(merged, schema, path)
    entry = _entry(manager, "Apply", wanted)
    if mine is not None and mine["fieldsV1"] == entry["fieldsV1"]:
        entry["time"] = mine.get("time", entry["time"])
    return _with_entries(merged, [*others, entry])


def track(old: Obj, new: Obj, schema: Node, manager: Obj) -> Obj:
    """`new` with managedFields after an ordinary write: what changed now belongs to `manager`. Untracked objects
    stay so.
    """
    entries: list[Obj] = old["metadata"].get("managedFields") or []
    if not entries or "managedFields" not in new["metadata"]:
        return new
    before, after = owned(old, schema), owned(new, schema)
    changed = frozenset(
        path
        for path in after
        if path not in before or fieldset.lookup(old, schema, path) != fieldset.lookup(new, schema, path)
    )
    gone = before - after
    if not changed and not gone:
        return _with_entries(new, entries)
    kept, mine = [], changed
    for entry in entries:
        fields = fieldset.decode(entry["fieldsV1"])
        if entry["operation"] == "Update" and _same(entry, manager):
            mine = (fields - gone) | changed
        elif left := fields - changed - gone:
            kept.append(entry if left == fields else {**entry, "fieldsV1": fieldset.encode(left)})
    if mine:
        kept.append(_entry(manager, "Update", mine))
    return _with_entries(new, kept)


def merge(live: Any, config: Any, node: Node | None) -> Any:
    """`config` laid over `live`, list items matched by their keys."""
    if isinstance(config, dict) and isinstance(live, dict) and not fieldset.is_atomic_map(config, node):
        out = dict(live)
        for name, value in config.items():
            out[name] = merge(live.get(name), value, node.child(name) if node is not None else None)
        return out
    if isinstance(live, list) and node is not None and fieldset.associative(config, node):
        named = {fieldset.element(item, node): item for item in config}
        out_items = []
        for item in live:
            name = fieldset.element(item, node)
            out_items.append(merge(item, named.pop(name), node.items) if name in named else item)
        return [*out_items, *named.values()]
    return config


def _split(entries: list[Obj], manager: Obj) -> tuple[Obj | None, list[Obj]]:
    mine = next((entry for entry in entries if entry["operation"] == "Apply" and _same(entry, manager)), None)
    return mine, [entry for entry in entries if entry is not mine]


def _same(entry: Obj, manager: Obj) -> bool:
    return bool(
        entry["manager"] == manager["manager"]
        and (entry.get("subresource") or "") == (manager.get("subresource") or "")
    )


def _covers(entry: Obj, path: Path) -> bool:
    fields = fieldset.decode(entry["fieldsV1"])
    return path in fields or any(other[: len(path)] == path for other in fields)


def _yield_fields(
    live: Obj, config: Obj, schema: Node, wanted: FieldSet, others: list[Obj], *, force: bool
) -> list[Obj]:
    """The other managers' entries after this apply took what it sets differently; a 409 unless `force`."""
    taken = frozenset(
        path
        for path in wanted
        if not path[-1].startswith("k:")
        and fieldset.lookup(live, schema, path) != fieldset.lookup(config, schema, path)
    )
    conflicts: list[tuple[str, str]] = []
    left: list[Obj] = []
    for entry in others:
        fields = fieldset.decode(entry["fieldsV1"])
        lost = fields & taken
        sub = f' with subresource "{entry["subresource"]}"' if entry.get("subresource") else ""
        using = f" using {entry['apiVersion']}" if entry["operation"] == "Update" else ""
        conflicts += [(f'"{entry["manager"]}"{sub}{using}', fieldset.dotted(path)) for path in sorted(lost)]
        if not lost:
            left.append(entry)
        elif fields - lost:
            left.append({**entry, "fieldsV1": fieldset.encode(fields - lost)})
    if conflicts and not force:
        raise apply_conflict(conflicts)
    return left


def _entry(manager: Obj, operation: str, fields: FieldSet) -> Obj:
    entry: Obj = {
        "manager": manager["manager"],
        "operation": operation,
        "apiVersion": manager["apiVersion"],
        "time": manager["time"],
        "fieldsType": "FieldsV1",
        "fieldsV1": fieldset.encode(fields),
    }
    if manager.get("subresource"):
        entry["subresource"] = manager["subresource"]
    return entry


def _with_entries(obj: Obj, entries: list[Obj]) -> Obj:
    return {**obj, "metadata": {**obj.get("metadata", {}), "managedFields": entries}}
