"""Paths, bodies, forms: what is read from a request before anything is done."""

from __future__ import annotations

import pytest

from kappa_local import codec, openapi, protobuf
from kappa_local.errors import ApiError, Cause, invalid
from kappa_local.lists import Shape, shape
from kappa_local.requestinfo import RequestInfo, parse
from kappa_local.resources import Registry
from kappa_local.server import check_origin


@pytest.mark.parametrize(
    ("path", "info"),
    [
        ("/api/v1/pods", RequestInfo("", "v1", None, "pods", "", "")),
        ("/api/v1/namespaces", RequestInfo("", "v1", None, "namespaces", "", "")),
        ("/api/v1/namespaces/a", RequestInfo("", "v1", None, "namespaces", "a", "")),
        ("/api/v1/namespaces/a/status", RequestInfo("", "v1", None, "namespaces", "a", "status")),
        ("/api/v1/namespaces/a/pods", RequestInfo("", "v1", "a", "pods", "", "")),
        ("/api/v1/namespaces/a/pods/b/log", RequestInfo("", "v1", "a", "pods", "b", "log")),
        ("/apis/g.io/v2/things/x/scale", RequestInfo("g.io", "v2", None, "things", "x", "scale")),
        ("/apis/g.io/v2/namespaces/a/things/x", RequestInfo("g.io", "v2", "a", "things", "x", "")),
        ("/apis/g.io/v2", RequestInfo("g.io", "v2", None, "", "", "")),
        ("/apis/g.io", None),
        ("/healthz", None),
    ],
)
def test_paths(path: str, info: RequestInfo | None) -> None:
    assert parse(path) == info


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Shape()),
        ("application/json", Shape()),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Shape("Table")),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Shape("PartialObjectMetadata")),
        ("application/vnd.kubernetes.protobuf,application/json", Shape()),
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", Shape()),
    ],
)
def test_forms(accept: str, form: Shape) -> None:
    assert shape(accept, {}) == form


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({"Host": "127.0.0.1:7443"}, True),
        ({"Host": "localhost:7443"}, True),
        ({"Host": "[::1]:7443"}, True),
        ({"Host": "evil.example.com:7443"}, False),
        ({"Host": "127.0.0.1:7443", "Origin": "https://evil.example.com"}, False),
        ({"Host": "127.0.0.1:7443", "Sec-Fetch-Site": "cross-site"}, False),
    ],
)
def test_web_pages_stay_out(headers: dict[str, str], good: bool) -> None:
    if good:
        check_origin(headers)
    else:
        with pytest.raises(ApiError, match="not web pages"):
            check_origin(headers)


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def test_protobuf() -> None:
    head = field(1, b"v1") + field(2, b"Secret")
    meta = field(1, b"name") + field(11, field(1, b"a") + field(2, b"b"))
    body = field(1, meta) + field(2, field(1, b"key") + field(2, b"\x00\xff")) + bytes([5 << 3, 1])
    assert protobuf.decode(b"k8s\x00" + field(1, head) + field(2, body)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "name", "labels": {"a": "b"}},
        "data": {"key": "AP8="},
        "immutable": True,
    }


def test_protobuf_of_other_kinds_is_refused() -> None:
    head = field(1, b"apps/v1") + field(2, b"Deployment")
    body = b"k8s\x00" + field(1, head) + field(2, b"")
    with pytest.raises(ApiError) as caught:
        codec.loads(body, protobuf.CONTENT_TYPE)
    assert caught.value.code == 415
    with pytest.raises(ApiError):
        codec.loads(b"nonsense", protobuf.CONTENT_TYPE)


def test_a_status_object() -> None:
    error = invalid("g.io", "Thing", "x", [Cause("FieldValueRequired", "Required value", "spec.a")])
    assert error.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'Thing.g.io "x" is invalid: spec.a: Required value',
        "reason": "Invalid",
        "details": {
            "name": "x",
            "group": "g.io",
            "kind": "Thing",
            "causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"}],
        },
        "code": 422,
    }


def test_every_openapi_document_is_closed() -> None:
    registry = Registry.with_builtins()
    for group, versions in registry.group_versions().items():
        for version in versions:
            document = openapi.document(registry, group, version)
            schemas = document["components"]["schemas"]
            assert openapi._references(document) <= schemas.keys()
