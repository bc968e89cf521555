"""Schema nodes: one form for the OpenAPI schemas of CRDs and of built-in kinds.

A node is a read-only view of one schema with its children made on demand (built-in definitions refer to each other,
some to themselves). Pruning and defaulting live here; validation, merging and field ownership are in modules of their
own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

from kappa_local.types import Obj

REF_PREFIX = "#/components/schemas/"
METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


class Node:
    """One schema. `definitions` resolves `$ref`."""

    def __init__(self, raw: Obj, definitions: Mapping[str, Obj]) -> None:
        self._definitions = definitions
        siblings = raw
        while "$ref" in raw:
            raw = definitions[raw["$ref"].removeprefix(REF_PREFIX)]
        self.raw = raw
        self._siblings = siblings
        self.type: str = raw.get("type", "")
        self.format: str = raw.get("format", "")
        self.int_or_string: bool = bool(raw.get("x-kubernetes-int-or-string")) or self.format == "int-or-string"
        self.preserve: bool = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
        self.embedded: bool = bool(raw.get("x-kubernetes-embedded-resource"))
        self.nullable: bool = bool(raw.get("nullable"))

    def extension(self, name: str) -> Any:
        """`x-kubernetes-<name>`, from the place of use before the definition."""
        key = f"x-kubernetes-{name}"
        return self._siblings.get(key, self.raw.get(key))

    @cached_property
    def properties(self) -> dict[str, Node]:
        return {name: Node(raw, self._definitions) for name, raw in (self.raw.get("properties") or {}).items()}

    @cached_property
    def items(self) -> Node | None:
        raw = self.raw.get("items")
        return Node(raw, self._definitions) if isinstance(raw, dict) else None

    @cached_property
    def additional(self) -> Node | None:
        """The schema of a map's values; None when there is none. `additionalProperties: true` allows anything."""
        raw = self.raw.get("additionalProperties")
        if raw is True:
            return Node({"x-kubernetes-preserve-unknown-fields": True}, {})
        return Node(raw, self._definitions) if isinstance(raw, dict) else None

    def child(self, name: str) -> Node | None:
        return self.properties.get(name) or self.additional

    @cached_property
    def has_defaults(self) -> bool:
        """Whether a default lies anywhere below (CRD schemas only: they are finite)."""
        return "default" in self.raw or any(
            node.has_defaults for node in (*self.properties.values(), self.items, self.additional) if node is not None
        )

    @cached_property
    def open(self) -> bool:
        """Whether unknown fields stay: said so, or an object about which nothing is said (built-in free-form types)."""
        return self.preserve or (not self.properties and self.additional is None)


@lru_cache(maxsize=1)
def builtin_definitions() -> dict[str, Obj]:
    text = files("kappa_local").joinpath("data/builtin_schemas.json").read_text()
    loaded: dict[str, Obj] = json.loads(text)
    return loaded


@lru_cache(maxsize=256)
def builtin(definition: str) -> Node:
    """The node of a built-in definition, such as `io.k8s.api.core.v1.Pod`."""
    return Node({"$ref": REF_PREFIX + definition}, builtin_definitions())


def prune(value: Any, node: Node, path: str = "", unknown: list[str] | None = None, *, root: bool = False) -> Any:
    """`value` without the fields that the schema does not know; their paths are appended to `unknown`.

    `root` marks a whole object (or an embedded one), whose apiVersion, kind and metadata always stay.
    Returns the same object where nothing had to go.
    """
    if isinstance(value, dict):
        out: Obj | None = None
        for name, item in value.items():
            if (root or node.embedded) and name in ("apiVersion", "kind", "metadata"):
                continue
            child = node.child(name)
            here = f"{path}.{name}" if path else name
            if child is None:
                if node.preserve or (node.open and not root):
                    continue
                if out is None:
                    out = dict(value)
                del out[name]
                if unknown is not None:
                    unknown.append(here)
                continue
            kept = prune(item, child, here, unknown)
            if kept is not item:
                if out is None:
                    out = dict(value)
                out[name] = kept
        return value if out is None else out
    if isinstance(value, list) and node.items is not None:
        items = [prune(item, node.items, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def default(value: Any, node: Node) -> Any:
    """`value` with the schema's defaults filled in; null counts as absent where the schema is not nullable."""
    if not node.has_defaults:
        return value
    if isinstance(value, dict):
        out = dict(value)
        for name, child in node.properties.items():
            if (name not in out or (out[name] is None and not child.nullable)) and "default" in child.raw:
                out[name] = copy.deepcopy(child.raw["default"])
            if name in out:
                out[name] = default(out[name], child)
        if node.additional is not None:
            for name in out.keys() - node.properties.keys():
                out[name] = default(out[name], node.additional)
        return out
    if isinstance(value, list) and node.items is not None:
        return [default(item, node.items) for item in value]
    return value
