"""What a write makes of an object: decoding checks, pruning, defaults, validation, generation. Pure: no store, no
clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kappa_local import builtin, crd, metadata
from kappa_local.apply import track
from kappa_local.errors import ApiError, Cause, bad_request, conflict, invalid
from kappa_local.resources import Resource
from kappa_local.schema import Node, default, prune
from kappa_local.types import Obj
from kappa_local.validate import validate


@dataclass
class WriteOptions:
    """The options of a write request. `warnings` collects what goes into Warning headers."""

    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Warn"
    """fieldValidation: Ignore, Warn or Strict: what happens to unknown fields, which are dropped in any case."""
    force: bool = False
    now: str = ""
    warnings: list[str] = field(default_factory=list)

    def entry(self, resource: Resource, subresource: str = "") -> Obj:
        """The identity of this writer for managedFields."""
        return {
            "manager": self.manager,
            "apiVersion": resource.api_version,
            "subresource": subresource,
            "time": self.now,
        }


def coerce(resource: Resource, given: Any, options: WriteOptions, *, patched: bool = False) -> Obj:
    """A request's object as the schema sees it: right kind, nothing unknown, defaults filled in."""
    if not isinstance(given, dict):
        raise bad_request("couldn't get version/kind; json parse error: the object provided is not an object")
    _check_kind(resource, given)
    meta = given.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise bad_request("json: cannot unmarshal into Go struct field .metadata of type v1.ObjectMeta")
    obj = {**given, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta or {}}
    if fault := metadata.type_faults(obj["metadata"]):
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: json: {fault}'
        )
    unknown: list[str] = []
    obj = prune(obj, resource.schema, unknown=unknown, root=True)
    if unknown:
        _report_unknown(resource, unknown, options, patched=patched)
    if resource.custom:
        obj = default(drop_nulls(obj, resource.schema), resource.schema)
    else:
        obj = without_nulls(obj)
        if faults := [cause for cause in validate(obj, resource.schema) if "must be of type" in cause.message]:
            head = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise bad_request(f"{head}: json: cannot unmarshal: {faults[0].text()}")
        obj = builtin.defaulted(resource.kind, obj)
    return {**obj, "apiVersion": resource.stored_api_version}


def _check_kind(resource: Resource, given: Obj) -> None:
    api_version, kind = given.get("apiVersion"), given.get("kind")
    if resource.custom and not (api_version and kind):
        missing = "Kind" if not kind else "apiVersion"
        raise bad_request(f"Object '{missing}' is missing in the request body" if kind else "Object 'Kind' is missing")
    if api_version and api_version != resource.api_version:
        expected = f"does not match the expected API version ({resource.api_version})"
        raise bad_request(f"the API version in the data ({api_version}) {expected}")
    if kind and kind != resource.kind:
        raise bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}: converting ({kind}) to '
            f"({resource.kind}): unknown conversion"
        )


def _report_unknown(resource: Resource, unknown: list[str], options: WriteOptions, *, patched: bool) -> None:
    texts = [f'unknown field "{path}"' for path in unknown]
    if options.validation == "Warn":
        options.warnings.extend(texts)
    if options.validation != "Strict":
        return
    listed = "strict decoding error: " + ", ".join(texts)
    if patched:
        raise invalid("", "", "", [Cause("FieldValueInvalid", f'Invalid value: "": {listed}', "patch")])
    raise bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {listed}'
    )


def drop_nulls(value: Any, node: Node) -> Any:
    """A custom object without the nulls that its schema does not allow: the server takes them for absent."""
    if isinstance(value, dict):
        out = {}
        for name, item in value.items():
            child = node.child(name)
            if item is None and child is not None and not child.nullable and not child.preserve:
                continue
            out[name] = drop_nulls(item, child) if child is not None else item
        return out
    if isinstance(value, list) and node.items is not None:
        return [drop_nulls(item, node.items) for item in value]
    return value


def without_nulls(value: Any) -> Any:
    """A built-in object without nulls: a typed decoder cannot tell them from absent fields."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def created(resource: Resource, obj: Obj, *, namespace: str, uid: str, options: WriteOptions) -> Obj:
    """A coerced object as it goes into the store. Raises 422 with every fault."""
    given = obj["metadata"]
    name = given.get("name") or (metadata.generated(given["generateName"]) if given.get("generateName") else "")
    out = {
        **obj,
        "metadata": metadata.fresh(given, name=name, namespace=namespace, uid=uid, created=options.now),
    }
    if resource.generation:
        out["metadata"]["generation"] = 1
    if resource.status:
        out.pop("status", None)
    if not resource.custom:
        status = builtin.initial_status(resource.kind, out)
        if status is not None:
            out["status"] = status
    if resource.kind == "Namespace" and not resource.custom:
        out["metadata"]["labels"] = {"kubernetes.io/metadata.name": name, **out["metadata"].get("labels", {})}
    causes = metadata.name_faults(name, resource.names) if name else []
    if not name:
        causes.append(Cause("FieldValueRequired", "Required value: name or generateName is required", "metadata.name"))
    _refuse(resource, name, [*causes, *metadata.faults(given), *_content_faults(resource, out, None)])
    return _finished(resource, out, options)


def updated(
    resource: Resource, obj: Obj, old: Obj, options: WriteOptions, subresource: str = "", *, patched: bool = False
) -> Obj:
    """A coerced object as it replaces `old`. Equal to `old` when nothing changed. A patch has no uid precondition."""
    given, name = obj["metadata"], old["metadata"]["name"]
    _check_version(resource, given, old, patched=patched)
    if subresource == "status":
        out = _status_only(resource, obj, old)
    else:
        out = {**obj, "metadata": metadata.updated(given, old["metadata"])}
        if resource.status:
            out.pop("status", None)
            if "status" in old:
                out["status"] = old["status"]
    causes = [*metadata.update_faults(given, old["metadata"]), *metadata.faults(given)]
    _refuse(resource, name, [*causes, *_content_faults(resource, out, old)])
    out = _finished(resource, out, options)
    if resource.generation and subresource != "status" and _content(resource, out) != _content(resource, old):
        out["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
    if "managedFields" in given and given["managedFields"] != old["metadata"].get("managedFields"):
        return out
    return track(old, out, resource.schema, options.entry(resource, subresource))


def _check_version(resource: Resource, given: Obj, old: Obj, *, patched: bool) -> None:
    name = old["metadata"]["name"]
    if not patched and given.get("uid") and given["uid"] != old["metadata"]["uid"]:
        why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: {old['metadata']['uid']}"
        raise conflict(resource.group, resource.plural, name, why)
    version = given.get("resourceVersion")
    if version and version != old["metadata"]["resourceVersion"]:
        raise conflict(resource.group, resource.plural, name)
    if not version and (resource.custom or resource.kind == "Lease"):
        message = "Invalid value: 0x0: must be specified for an update"
        raise invalid(
            resource.group, resource.kind, name, [Cause("FieldValueInvalid", message, "metadata.resourceVersion")]
        )


def _status_only(resource: Resource, obj: Obj, old: Obj) -> Obj:
    """`old` with the status of `obj`: all that a write to the status subresource may change (and, for built-in
    kinds, labels and annotations, which their strategies let through).
    """
    meta = dict(old["metadata"])
    if not resource.custom:
        for field_name in ("labels", "annotations", "finalizers"):
            meta.pop(field_name, None)
            if obj["metadata"].get(field_name):
                meta[field_name] = obj["metadata"][field_name]
    out = {**{key: value for key, value in old.items() if key != "status"}, "metadata": meta}
    if obj.get("status") is not None:
        out["status"] = obj["status"]
    return out


def _content(resource: Resource, obj: Obj) -> Mapping[str, Any]:
    skipped = ("metadata", "apiVersion", "kind", *(("status",) if resource.status else ()))
    return {key: value for key, value in obj.items() if key not in skipped}


def _content_faults(resource: Resource, obj: Obj, old: Obj | None) -> list[Cause]:
    if resource.custom:
        return validate(obj, resource.schema)
    if resource.kind == "CustomResourceDefinition":
        return crd.faults(obj)
    return builtin.faults(resource.kind, obj, old)


def _finished(resource: Resource, obj: Obj, options: WriteOptions) -> Obj:
    if resource.kind == "CustomResourceDefinition":
        obj = crd.defaulted(obj)
        return {**obj, "status": crd.established(obj, options.now)}
    return obj


def _refuse(resource: Resource, name: str, causes: list[Cause]) -> None:
    if causes:
        raise invalid(resource.group, resource.kind, name, causes)


def precondition_fault(resource: Resource, obj: Obj, preconditions: Obj) -> ApiError | None:
    """The 409 for a delete whose preconditions do not hold."""
    meta = obj["metadata"]
    uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
    if uid and uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
        return conflict(resource.group, resource.kind, meta["name"], why)
    if version and version != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
            f"({meta['resourceVersion']}). The object might have been modified"
        )
        return conflict(resource.group, resource.kind, meta["name"], why)
    return None
