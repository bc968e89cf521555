"""parse_function: what comes out, and what people are told. Which specs are good is in test_crd.py."""

from typing import Any

import pytest

from kappa_api.errors import Problem, SpecError
from kappa_api.function import (
    Archive,
    Auth,
    Code,
    Function,
    FunctionSpec,
    Http,
    PodNeeds,
    Scaling,
    parse_function,
    path_problem,
)
from kappa_api.routes import Route

Json = Any


def resource(**spec: Json) -> Json:
    return {"metadata": {"namespace": "shop", "name": "hello"}, "spec": spec}


def problems(found: Json) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_function(found)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_everything() -> None:
    mount = {"name": "v", "mountPath": "/v"}
    found = parse_function(
        {
            "metadata": {
                "namespace": "shop",
                "name": "hello",
                "uid": "u-1",
                "generation": 4,
                "creationTimestamp": "2026-01-02T03:04:05Z",
            },
            "spec": {
                "runtime": "python",
                "handler": "main.app",
                "signature": "asgi",
                "code": {"files": {"main.py": "x", "lib/a.py": "y"}},
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
                "envFrom": [{"secretRef": {"name": "s"}}],
                "resources": {"limits": {"memory": "256Mi", "cpu": 1}},
                "volumes": [{"name": "v", "emptyDir": {}}],
                "volumeMounts": [mount],
                "serviceAccountName": "robot",
                "timeoutSeconds": 5,
                "concurrency": 9,
                "scaling": {"minReplicas": 1, "maxReplicas": 2, "idleSeconds": 3},
                "http": {
                    "routes": [{"host": "a.example.org", "path": "/x/{y}", "methods": ["GET"]}],
                    "auth": {"type": "none"},
                    "idempotent": True,
                    "maxBodyBytes": 7,
                },
            },
        }
    )
    assert found == Function(
        namespace="shop",
        name="hello",
        uid="u-1",
        generation=4,
        created="2026-01-02T03:04:05Z",
        spec=FunctionSpec(
            runtime="python",
            handler="main.app",
            signature="asgi",
            code=Code(files={"main.py": "x", "lib/a.py": "y"}),
            pod=PodNeeds(
                env=({"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}),
                env_from=({"secretRef": {"name": "s"}},),
                resources={"limits": {"memory": "256Mi", "cpu": 1}},
                volumes=({"name": "v", "emptyDir": {}},),
                volume_mounts=(mount,),
                service_account_name="robot",
            ),
            timeout_seconds=5,
            concurrency=9,
            scaling=Scaling(1, 2, 3),
            http=Http(
                routes=(Route("/x/{y}", "a.example.org", ("GET",)),),
                auth=Auth("none"),
                idempotent=True,
                max_body_bytes=7,
            ),
        ),
    )
    assert found.key == "shop/hello"
    assert found.spec.pod.plain_env() == {"A": "1"}


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({"inline": "x"}, Code(files={"main.py": "x"})),
        ({"configMap": {"name": "c"}}, Code(config_map="c")),
        ({"archive": {"url": "https://a/b", "sha256": "0" * 64}}, Code(archive=Archive("https://a/b", "0" * 64))),
    ],
)
def test_sources(source: Json, code: Code) -> None:
    assert parse_function(resource(runtime="python", handler="main.h", code=source)).spec == FunctionSpec(
        code=code, runtime="python", handler="main.h"
    )


def test_image() -> None:
    found = parse_function(resource(code={"image": "x:1", "command": ["a"], "args": ["b", "c"]}))
    assert found.spec == FunctionSpec(code=Code(image="x:1", command=("a",), args=("b", "c")))


def test_null_is_as_good_as_absent() -> None:
    plain = {"runtime": "python", "handler": "main.h", "code": {"inline": "x"}}
    nulls = dict.fromkeys(("signature", "env", "scaling", "http", "timeoutSeconds", "volumes", "resources"))
    assert parse_function(resource(**plain, **nulls)) == parse_function(resource(**plain))


def test_every_fault_is_told_at_once() -> None:
    found = problems(
        {
            "metadata": {"name": "Hello"},
            "spec": {
                "runtime": "python",
                "code": {"inline": "x", "image": "y"},
                "env": [{"name": "KAPPA_X", "value": 1}],
                "scaling": {"minReplicas": 3, "maxReplicas": 2},
                "timeout": 3,
            },
        }
    )
    assert list(found) == [
        "metadata.name",
        "spec.code",
        "spec.runtime",
        "spec.env[0].name",
        "spec.env[0].value",
        "spec.scaling.minReplicas",
        "spec.timeout",
    ]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "spec.code", "must have exactly one of inline, files, configMap, archive, image; found none"),
        (
            {"code": {"inline": "x"}, "runtime": "python"},
            "spec.handler",
            "is required unless code.image is set",
        ),
        (
            {"code": {"inline": "x"}, "runtime": "python", "handler": "main"},
            "spec.handler",
            "'main' is not valid: module.attribute, such as main.handler",
        ),
        (
            {"code": {"image": "x"}, "signature": "asgi"},
            "spec.signature",
            "does not go with code.image: the image brings its own server; remove this field",
        ),
        (
            {"code": {"image": "x"}, "timeoutSeconds": 0},
            "spec.timeoutSeconds",
            "0 is out of range: must be from 1 to 3600",
        ),
        (
            {"code": {"image": "x"}, "http": {"auth": {"type": "basic"}}},
            "spec.http.auth.type",
            "'basic' is not supported: use one of none, apiKey, jwt, kubernetes",
        ),
        ({"code": {"image": "x"}, "http": {"auth": {"type": "jwt"}}}, "spec.http.auth.jwt", "is required for type jwt"),
        (
            {"code": {"image": "x"}, "http": {"auth": {"apiKey": {"secrets": [{"name": "s"}]}}}},
            "spec.http.auth.apiKey",
            "goes with type apiKey, but type is none: remove it, or change the type",
        ),
        (
            {"code": {"image": "x"}, "http": {"cors": {"allowOrigins": ["*"], "allowCredentials": True}}},
            "spec.http.cors.allowCredentials",
            "does not go with allowOrigins *: name the origins that may send cookies and keys",
        ),
        (
            {"code": {"image": "x"}, "http": {"routes": [{"path": "/{a+}/b"}]}},
            "spec.http.routes[0].path",
            "a {name+} parameter must be the last segment",
        ),
        (
            {"code": {"image": "x"}, "resources": {"limits": {"memory": "1MB"}}},
            "spec.resources.limits.memory",
            "'1MB' is not a quantity such as 256Mi or 500m",
        ),
    ],
)
def test_messages(spec: Json, field: str, message: str) -> None:
    assert problems(resource(**spec))[field] == message


def test_error_names_the_object() -> None:
    with pytest.raises(SpecError) as caught:
        parse_function(resource(code={"image": ""}))
    error = caught.value
    assert (error.kind, error.namespace, error.name) == ("Function", "shop", "hello")
    assert str(error) == "spec.code.image: '' is not valid: an image reference"
    assert error.problems == (Problem("spec.code.image", "'' is not valid: an image reference"),)


@pytest.mark.parametrize(
    "junk", [{}, {"spec": None}, {"spec": []}, {"metadata": None, "spec": "x"}, {"spec": {"code": 3}}]
)
def test_junk_is_a_spec_error(junk: Json) -> None:
    with pytest.raises(SpecError):
        parse_function(junk)


@pytest.mark.parametrize("path", ["main.py", "a/b/c.txt", ".env", "a..b", "ü.py", "a" * 255])
def test_good_paths(path: str) -> None:
    assert path_problem(path) == ""


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a\\b", "a\0b", "a" * 256])
def test_bad_paths(path: str) -> None:
    assert path_problem(path)
