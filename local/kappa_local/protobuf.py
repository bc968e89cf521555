"""Reads the protobuf bodies that kubectl sends from its typed commands (`create namespace`, `create secret`,
`create token`, `create rolebinding`, `auth can-i`).

Only the kinds of those commands; everything else kubectl and the client libraries send is JSON. Field numbers are
those of Kubernetes' generated.proto files, which never change.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from kappa_local.errors import bad_request
from kappa_local.types import Obj

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

_META = (1, "metadata", "ObjectMeta")
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "Unknown": ((1, "typeMeta", "TypeMeta"), (2, "raw", "raw")),
    "TypeMeta": ((1, "apiVersion", "string"), (2, "kind", "string")),
    "ObjectMeta": (
        (1, "name", "string"),
        (2, "generateName", "string"),
        (3, "namespace", "string"),
        (11, "labels", "map:string"),
        (12, "annotations", "map:string"),
        (14, "finalizers", "list:string"),
    ),
    "Namespace": (_META,),
    "ConfigMap": (_META, (2, "data", "map:string"), (3, "binaryData", "map:bytes"), (4, "immutable", "bool")),
    "Secret": (
        _META,
        (2, "data", "map:bytes"),
        (3, "type", "string"),
        (4, "stringData", "map:string"),
        (5, "immutable", "bool"),
    ),
    "ServiceAccount": (_META,),
    "SelfSubjectAccessReview": (_META, (2, "spec", "AccessSpec")),
    "AccessSpec": ((1, "resourceAttributes", "ResourceAttributes"), (2, "nonResourceAttributes", "PathAttributes")),
    "ResourceAttributes": (
        (1, "namespace", "string"),
        (2, "verb", "string"),
        (3, "group", "string"),
        (4, "version", "string"),
        (5, "resource", "string"),
        (6, "subresource", "string"),
        (7, "name", "string"),
    ),
    "PathAttributes": ((1, "path", "string"), (2, "verb", "string")),
    "SelfSubjectRulesReview": (_META, (2, "spec", "RulesSpec")),
    "RulesSpec": ((1, "namespace", "string"),),
    "SelfSubjectReview": (_META,),
    "TokenRequest": (_META, (2, "spec", "TokenSpec")),
    "TokenSpec": ((1, "audiences", "list:string"), (4, "expirationSeconds", "int")),
    "Role": (_META, (2, "rules", "list:PolicyRule")),
    "ClusterRole": (_META, (2, "rules", "list:PolicyRule")),
    "PolicyRule": (
        (1, "verbs", "list:string"),
        (2, "apiGroups", "list:string"),
        (3, "resources", "list:string"),
        (4, "resourceNames", "list:string"),
        (5, "nonResourceURLs", "list:string"),
    ),
    "RoleBinding": (_META, (2, "subjects", "list:Subject"), (3, "roleRef", "RoleRef")),
    "ClusterRoleBinding": (_META, (2, "subjects", "list:Subject"), (3, "roleRef", "RoleRef")),
    "Subject": ((1, "kind", "string"), (2, "apiGroup", "string"), (3, "name", "string"), (4, "namespace", "string")),
    "RoleRef": ((1, "apiGroup", "string"), (2, "kind", "string"), (3, "name", "string")),
}
KINDS = (
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "Namespace",
    "Role",
    "RoleBinding",
    "Secret",
    "SelfSubjectAccessReview",
    "SelfSubjectReview",
    "SelfSubjectRulesReview",
    "ServiceAccount",
    "TokenRequest",
)


def decode(body: bytes) -> Obj | None:
    """The object of a request body; None for a kind that is not known here."""
    if not body.startswith(_MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = _message(body[len(_MAGIC) :], "Unknown")
        head: Obj = envelope["typeMeta"]
        if head["kind"] not in KINDS:
            return None
        return {**head, **_message(envelope["raw"], head["kind"])}
    except (IndexError, KeyError, ValueError) as e:
        raise bad_request(f"protobuf: {e}") from e


def _message(data: bytes, name: str) -> Obj:
    known = {number: (field, kind) for number, field, kind in _MESSAGES[name]}
    out: Obj = {}
    for number, value in _fields(data):
        if number not in known:
            continue
        field, kind = known[number]
        if kind.startswith("map:"):
            _add_pair(out.setdefault(field, {}), value, kind.removeprefix("map:"))
        elif kind.startswith("list:"):
            out.setdefault(field, []).append(_value(value, kind.removeprefix("list:")))
        else:
            out[field] = _value(value, kind)
    return out


def _add_pair(target: Obj, data: bytes | int, kind: str) -> None:
    assert isinstance(data, bytes)
    pair = dict(_fields(data))
    target[str(_value(pair.get(1, b""), "string"))] = _value(pair.get(2, b""), kind)


def _value(value: bytes | int, kind: str) -> object:
    match kind:
        case "bool":
            return bool(value)
        case "int":
            return value
    assert isinstance(value, bytes)
    match kind:
        case "string":
            return value.decode()
        case "bytes":
            return base64.b64encode(value).decode()
        case "raw":
            return value
    return _message(value, kind)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(field number, value): an int for a varint, bytes for everything with a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(data, at)
            yield number, data[at : at + size]
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
