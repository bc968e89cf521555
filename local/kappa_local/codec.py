"""Objects on the wire: entries to JSON bytes in the version that was asked for, and request bodies to objects.

Objects are kept in one version. CRD versions differ only in their name here (conversion strategy None); events.k8s.io
events are kept as core events and converted.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from kappa_local import protobuf
from kappa_local.errors import bad_request, unsupported_media_type
from kappa_local.resources import Resource
from kappa_local.store import Entry, encode_body
from kappa_local.types import Obj

_TO_EVENTS_API = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_READABLE = (
    "application/json",
    "application/yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_TO_CORE = {new: old for old, new in _TO_EVENTS_API.items()}


def inbound(resource: Resource, obj: Obj) -> Obj:
    """An object of a request as it is kept. The caller has checked apiVersion and kind."""
    if resource.stored_as is None:
        return obj
    return {
        **{_TO_CORE.get(name, name): value for name, value in obj.items()},
        "apiVersion": resource.stored_api_version,
    }


def outbound(resource: Resource, obj: Obj) -> Obj:
    """A kept object as `resource` serves it."""
    if resource.stored_as is not None:
        obj = {_TO_EVENTS_API.get(name, name): value for name, value in obj.items()}
    if obj.get("apiVersion") == resource.api_version:
        return obj
    return {**obj, "apiVersion": resource.api_version}


def encode(resource: Resource, entry: Entry) -> bytes:
    """One object as JSON."""
    head = f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode()
    return head + _body(resource, entry)


def _body(resource: Resource, entry: Entry) -> bytes:
    return entry.body if resource.stored_as is None else encode_body(outbound(resource, entry.obj))


def encode_items(resource: Resource, entries: list[Entry]) -> bytes:
    """The items of a list, comma-separated. Items of built-in kinds do not repeat kind and apiVersion, as in the
    real server.
    """
    if resource.custom:
        head = f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode()
        return b",".join([head + entry.body for entry in entries])
    return b",".join([b"{" + _body(resource, entry) for entry in entries])


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def loads(body: bytes, content_type: str) -> Any:
    """A request body. JSON is also YAML, but forty times slower to read as YAML."""
    kind = content_type.partition(";")[0].strip()
    if kind == protobuf.CONTENT_TYPE and (decoded := protobuf.decode(body)) is not None:
        return decoded
    if kind not in _READABLE:
        raise unsupported_media_type(_READABLE)
    if not body:
        raise bad_request("unexpected end of JSON input")
    if kind in ("application/yaml", "application/apply-patch+yaml") and not body.lstrip().startswith((b"{", b"[")):
        try:
            return yaml.safe_load(body)
        except yaml.YAMLError as e:
            raise bad_request(f"error decoding YAML: {e}") from e
    try:
        return json.loads(body)
    except ValueError as e:
        if kind in ("application/yaml", "application/apply-patch+yaml"):
            return yaml.safe_load(body)
        raise bad_request(f"couldn't get version/kind; json parse error: {e}") from e
