"""OpenAPI v3 documents, one per group and version: what kubectl needs for `apply`, `edit`, `explain` and validation.
Pure.

Paths list just the operations that clients look at: PATCH with its parameters says that the server validates fields
itself.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kappa_local.discovery import GIT_VERSION
from kappa_local.resources import Registry, Resource
from kappa_local.schema import METADATA, REF_PREFIX, builtin_definitions
from kappa_local.types import Obj

_PATCH_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")
_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")


V2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def version_2() -> tuple[bytes, Obj]:
    """The OpenAPI v2 document as protobuf and as JSON: empty. kubectl reads it where it validates by itself
    (`kind: List`) and skips what it does not find there; each object is validated by the server in any case.
    """
    info = _text(1, "Kubernetes") + _text(2, GIT_VERSION)
    empty = {"swagger": "2.0", "info": {"title": "Kubernetes", "version": GIT_VERSION}, "paths": {}}
    return _text(1, "2.0") + bytes([2 << 3 | 2, len(info)]) + info, empty


def _text(number: int, text: str) -> bytes:
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def index(registry: Registry) -> Obj:
    """The list of documents; the hash in each address changes with the content."""
    paths = {}
    for group, versions in registry.group_versions().items():
        for version in versions:
            at = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[at] = {"serverRelativeURL": f"/openapi/v3/{at}?hash={_hash(registry, group, version)}"}
    return {"paths": paths}


def _hash(registry: Registry, group: str, version: str) -> str:
    served = [(resource.plural, resource.schema.raw) for resource in registry.resources(group, version)]
    return hashlib.sha256(json.dumps(served, sort_keys=True).encode()).hexdigest()[:32].upper()


def document(registry: Registry, group: str, version: str) -> Obj:
    schemas: Obj = {}
    paths: Obj = {}
    for resource in registry.resources(group, version):
        name = _schema_name(resource)
        schemas[name] = _schema(resource)
        paths.update(_paths(resource, name))
    _add_references(schemas)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": GIT_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(resource: Resource) -> str:
    if resource.definition:
        return resource.definition
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _schema(resource: Resource) -> Obj:
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    raw = {**resource.schema.raw, "x-kubernetes-group-version-kind": [gvk]}
    if resource.custom:
        head = {
            "apiVersion": {
                "type": "string",
                "description": "The versioned schema of this representation of an object.",
            },
            "kind": {"type": "string", "description": "The REST resource this object represents."},
            "metadata": {"allOf": [{"$ref": REF_PREFIX + METADATA}], "description": "Standard object's metadata."},
        }
        raw["properties"] = {**(raw.get("properties") or {}), **head}
    return raw


def _add_references(schemas: Obj) -> None:
    """Adds the definitions that are referred to, and those they refer to."""
    definitions = builtin_definitions()
    waiting = list(_references(schemas))
    while waiting:
        name = waiting.pop()
        if name not in schemas:
            schemas[name] = definitions[name]
            waiting.extend(_references(definitions[name]))


def _references(node: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(node, dict):
        ref = node.get("$ref")
        if isinstance(ref, str):
            found.add(ref.removeprefix(REF_PREFIX))
        for value in node.values():
            found |= _references(value)
    elif isinstance(node, list):
        for value in node:
            found |= _references(value)
    return found


def _paths(resource: Resource, schema: str) -> Obj:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = f"{root}{scope}/{resource.plural}"
    paths: Obj = {collection: {"get": _operation(resource, "list", schema, ())}}
    if "create" in resource.verbs:
        paths[collection]["post"] = _operation(resource, "post", schema, _WRITE_PARAMETERS)
    if "patch" in resource.verbs:
        paths[f"{collection}/{{name}}"] = {
            "get": _operation(resource, "get", schema, ()),
            "put": _operation(resource, "put", schema, _WRITE_PARAMETERS),
            "patch": _operation(resource, "patch", schema, _PATCH_PARAMETERS),
            "delete": _operation(resource, "delete", schema, ("dryRun",)),
        }
    return paths


def _operation(resource: Resource, action: str, schema: str, parameters: tuple[str, ...]) -> Obj:
    content: Obj = {"application/json": {"schema": {"$ref": REF_PREFIX + schema}}}
    operation: Obj = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "schema": {"type": "boolean" if name == "force" else "string", "uniqueItems": True},
            }
            for name in parameters
        ],
        "responses": {"200": {"description": "OK", "content": content}},
    }
    if action == "patch":
        kinds = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
        if not resource.custom:
            kinds.append("application/strategic-merge-patch+json")
        patch: Obj = {"schema": {"type": "object"}}
        operation["requestBody"] = {"content": dict.fromkeys(kinds, patch)}
    elif action in ("post", "put"):
        operation["requestBody"] = {"content": content}
    return operation
