"""CustomResourceDefinitions: checked and made into served resources. Pure."""

from __future__ import annotations

from typing import Any

from kappa_local.errors import Cause
from kappa_local.resources import Column, Resource, Scale
from kappa_local.schema import Node
from kappa_local.types import Obj

AGE = Column("Age", "date", ".metadata.creationTimestamp")


def faults(crd: Obj) -> list[Cause]:
    """What the server refuses in a CRD (the common faults, not all of them)."""
    spec: Obj = crd.get("spec") or {}
    names: Obj = spec.get("names") or {}
    found = [
        Cause("FieldValueRequired", "Required value", f"spec.{path}")
        for path, value in (
            ("group", spec.get("group")),
            ("scope", spec.get("scope")),
            ("names.plural", names.get("plural")),
            ("names.kind", names.get("kind")),
        )
        if not value
    ]
    expected = f"{names.get('plural')}.{spec.get('group')}"
    if not found and crd["metadata"].get("name") != expected:
        name = crd["metadata"].get("name")
        message = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        found.append(Cause("FieldValueInvalid", message, "metadata.name"))
    if spec.get("scope") not in (None, "", "Namespaced", "Cluster"):
        message = f'Unsupported value: "{spec["scope"]}": supported values: "Cluster", "Namespaced"'
        found.append(Cause("FieldValueNotSupported", message, "spec.scope"))
    versions: list[Obj] = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        found.append(Cause("FieldValueInvalid", message, "spec.versions"))
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            found.append(Cause("FieldValueRequired", "Required value: schemas are required", path))
        else:
            found += _structural(schema, path, root=True)
    return found


def _structural(schema: Obj, path: str, *, root: bool = False) -> list[Cause]:
    """Faults against the rules of a structural schema: each level has a type."""
    found: list[Cause] = []
    if root and schema.get("type") != "object":
        text = 'must be "object" at the root' if schema.get("type") else "must not be empty at the root"
        kind = "FieldValueInvalid" if schema.get("type") else "FieldValueRequired"
        message = f'Invalid value: "{schema["type"]}": {text}' if schema.get("type") else f"Required value: {text}"
        found.append(Cause(kind, message, f"{path}.type"))
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not root and not schema.get("type") and not free:
        found.append(
            Cause("FieldValueRequired", "Required value: must not be empty for specified object fields", f"{path}.type")
        )
    for name, child in (schema.get("properties") or {}).items():
        found += _structural(child, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        found += _structural(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        found += _structural(schema["additionalProperties"], f"{path}.additionalProperties")
    return found


def defaulted(crd: Obj) -> Obj:
    """The CRD with the names and the conversion that the server fills in."""
    spec = dict(crd["spec"])
    names = dict(spec.get("names") or {})
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    spec["names"] = names
    spec.setdefault("conversion", {"strategy": "None"})
    return {**crd, "spec": spec}


def established(crd: Obj, now: str) -> Obj:
    """The status of a CRD that is served."""
    spec = crd["spec"]
    conditions = [
        _condition("NamesAccepted", "NoConflicts", "no conflicts found", now),
        _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", now),
    ]
    old = crd.get("status") or {}
    if {c["type"] for c in old.get("conditions") or ()} >= {"NamesAccepted", "Established"}:
        conditions = old["conditions"]
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    stored = list(dict.fromkeys([*(old.get("storedVersions") or ()), storage]))
    return {"conditions": conditions, "acceptedNames": spec["names"], "storedVersions": stored}


def _condition(kind: str, reason: str, message: str, now: str) -> Obj:
    return {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}


def resources(crd: Obj) -> list[Resource]:
    """One resource per served version."""
    spec: Obj = crd["spec"]
    names: Obj = spec["names"]
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    made = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources: Obj = version.get("subresources") or {}
        raw = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        if spec.get("preserveUnknownFields"):
            raw = {**raw, "x-kubernetes-preserve-unknown-fields": True}
        made.append(
            Resource(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                singular=names.get("singular") or names["kind"].lower(),
                kind=names["kind"],
                list_kind=names.get("listKind") or "",
                namespaced=spec["scope"] == "Namespaced",
                schema=Node(raw, {}),
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in subresources,
                scale=_scale(subresources.get("scale")),
                fields=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
                columns=_columns(version.get("additionalPrinterColumns")),
                custom=True,
                generation=True,
                storage_version=storage,
            )
        )
    return made


def _scale(raw: Any) -> Scale | None:
    if not isinstance(raw, dict):
        return None
    selector = raw.get("labelSelectorPath")
    return Scale(
        raw["specReplicasPath"].lstrip("."),
        raw["statusReplicasPath"].lstrip("."),
        selector.lstrip(".") if selector else None,
    )


def _columns(raw: Any) -> tuple[Column, ...]:
    name = Column("Name", "string", ".metadata.name", format="name")
    if not raw:
        return (name, AGE)
    return (
        name,
        *(
            Column(
                item["name"],
                item["type"],
                item["jsonPath"],
                item.get("priority") or 0,
                item.get("description") or "",
                item.get("format") or "",
            )
            for item in raw
        ),
    )
