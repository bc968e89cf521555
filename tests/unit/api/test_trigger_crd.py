"""The Trigger's CRD and `kappa_api.trigger` say the same: kinds, fields, defaults, patterns, ranges, verdicts.

`SOURCES` has one good source of each kind; a kind that is added without its part of the CRD fails here.
"""

from typing import Any

import pytest
from kappa_schemas import at, crd, examples, fill, integers, known_fields, schema_of, takes

from kappa_api import callers, delivery, names, trigger
from kappa_api.errors import SpecError
from kappa_api.sources import READERS
from kappa_api.trigger import parse_trigger

Json = Any

SCHEMA = schema_of("triggers")
SECRET = {"secretRef": {"name": "s"}}
SOURCES: dict[str, Json] = {
    "schedule": {"cron": "*/5 * * * *"},
    "subject": {"subject": "default.orders.*"},
    "stream": {"stream": "default-orders"},
    "mqtt": {"topics": ["default/+/temperature"]},
    "s3": SECRET,
    "postgres": SECRET | {"tables": ["public.orders"]},
    "redis": SECRET | {"stream": "orders"},
    "webhook": SECRET | {"preset": "github"},
    "kubernetes": {"apiVersion": "v1", "kind": "ConfigMap"},
    "kv": {"bucket": "default-settings"},
    "object": {"bucket": "default-files"},
    "event": {},
}
KINDS = sorted(SOURCES)
EXAMPLES = [pytest.param(item, id=where) for where, item in examples(names.TRIGGER_KIND)]


def a_trigger(spec: Json, name: str = "orders") -> Json:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def base(**fields: Json) -> Json:
    return {"function": "hello", "source": {"postgres": SOURCES["postgres"]}} | fields


def source(kind: str, **fields: Json) -> Json:
    return {"function": "hello", "source": {kind: SOURCES[kind] | fields}}


def verdicts(resource: Json) -> tuple[bool, bool]:
    """Whether the schema and the code take it."""
    try:
        parse_trigger(resource)
    except SpecError:
        return takes(SCHEMA, resource), False
    return takes(SCHEMA, resource), True


def test_names() -> None:
    spec = crd("triggers")["spec"]
    assert (spec["group"], spec["names"]["plural"]) == (names.GROUP, names.TRIGGER_PLURAL)
    assert (spec["names"]["kind"], spec["names"]["shortNames"]) == (names.TRIGGER_KIND, ["trig"])
    assert [
        column["name"] for column in spec["versions"][0]["additionalPrinterColumns"] if "priority" not in column
    ] == [
        "Ready",
        "Function",
        "Source",
        "Lag",
        "Last Event",
        "Age",
    ]


def test_kinds() -> None:
    known = at(SCHEMA, "spec.source")["properties"].keys()
    assert known == SOURCES.keys()
    assert [branch["required"] for branch in at(SCHEMA, "spec.source")["oneOf"]] == [[kind] for kind in known]
    assert READERS.keys() == known


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_sources(kind: str) -> None:
    path = f"spec.source.{kind}"
    assert known_fields(parse_trigger, a_trigger(source(kind)), path) == set(at(SCHEMA, path)["properties"])


@pytest.mark.parametrize(
    ("path", "spec"),
    [
        ("spec", base()),
        ("spec.batch", base(batch={})),
        ("spec.ordered", base(ordered={"key": "subject"})),
        ("spec.backoff", base(backoff={})),
        ("spec.onSuccess", base(onSuccess={"function": "b"})),
        ("spec.onFailure", base(onFailure={"function": "b"})),
        ("spec.source.postgres.secretRef", base()),
    ],
)
def test_fields(path: str, spec: Json) -> None:
    assert known_fields(parse_trigger, a_trigger(spec), path) == set(at(SCHEMA, path)["properties"])


@pytest.mark.parametrize("kind", ["event", "s3", "webhook"])
def test_limits_of_what_is_posted(kind: str) -> None:
    path = f"spec.source.{kind}.limits"
    assert known_fields(parse_trigger, a_trigger(source(kind, limits={})), path) == {"rate", "callerRate"}
    assert set(at(SCHEMA, path)["properties"]) == {"rate", "callerRate"}
    for name in ("rate", "callerRate"):
        schema = at(SCHEMA, f"{path}.{name}")
        resource = a_trigger(source(kind, limits={name: {"requests": 1}}))
        assert known_fields(parse_trigger, resource, f"{path}.{name}") == set(schema["properties"])
        assert parse_trigger(fill(resource, SCHEMA)) == parse_trigger(resource)
        assert verdicts(a_trigger(source(kind, limits={name: {"perSeconds": 5}}))) == (False, False)
        for field, bounds in schema["properties"].items():
            low, high = bounds["minimum"], bounds["maximum"]
            for value, good in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
                wanted = {"requests": 1, field: value}
                assert verdicts(a_trigger(source(kind, limits={name: wanted}))) == (good, good), (field, value)


def test_every_kind_of_source_is_a_field() -> None:
    with pytest.raises(SpecError) as caught:
        parse_trigger(a_trigger(base(source={"nothing": {}})))
    assert {problem.field for problem in caught.value.problems} == {"spec.source", "spec.source.nothing"}


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_of_sources(kind: str) -> None:
    resource = a_trigger(source(kind))
    assert verdicts(resource) == (True, True)
    assert parse_trigger(fill(resource, SCHEMA)) == parse_trigger(resource)


def test_every_default_is_in_the_schema() -> None:
    spec = base(batch={}, backoff={})
    filled = fill(a_trigger(spec), SCHEMA)["spec"]
    plain = delivery.DEFAULT_DELIVERY
    assert filled == spec | {
        "batch": {"size": trigger.Batch().size, "windowSeconds": trigger.Batch().window_seconds},
        "retries": plain.retries,
        "backoff": {
            "seconds": plain.backoff.seconds,
            "factor": plain.backoff.factor,
            "maxSeconds": plain.backoff.max_seconds,
            "jitterPercent": plain.backoff.jitter_percent,
        },
        "maxAgeSeconds": plain.max_age,
        "suspend": plain.suspend,
    }


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("metadata.name", delivery.FUNCTION_NAME),
        ("spec.function", delivery.FUNCTION_NAME),
        ("spec.ordered.key", f"({trigger.KEY_PATTERN})"),
        ("spec.onFailure.function", delivery.FUNCTION_NAME),
        ("spec.onFailure.subject", delivery.SUBJECT),
        ("spec.onFailure.url", callers.URL_PATTERN),
        *(
            (f"spec.source.{kind}.secretRef.name", callers.SECRET_NAME_PATTERN)
            for kind in ("s3", "mqtt", "postgres", "redis")
        ),
    ],
)
def test_patterns(path: str, pattern: str) -> None:
    assert at(SCHEMA, path)["pattern"] == f"^{pattern}$"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        pytest.param(path, field, id=".".join(path))
        for path, field in integers(at(SCHEMA, "spec"))
        if path[0] != "source"
    ],
)
def test_ranges(path: tuple[str, ...], field: Json) -> None:
    low, high = field["minimum"], field["maximum"]
    for value, good in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        nested: Json = value
        for name in reversed(path):
            nested = {name: nested}
        assert verdicts(a_trigger(base(**nested))) == (good, good), value


GOOD: list[Json] = [
    base(),
    base(filter={"type": ["a"], "data": {"amount": [{"numeric": [">", 5]}]}}),
    base(batch={"size": 100, "windowSeconds": 5}),
    base(ordered={"key": "data.customer.id"}),
    base(ordered={"key": "subject"}),
    base(retries=0, maxAgeSeconds=60, onFailure={"subject": "default.failed"}, suspend=True),
    base(source={"event": {"types": ["a", "b.*"], "auth": {"type": "none"}}}),
    base(source={"event": {"auth": {"type": "apiKey", "apiKey": {"secrets": [{"name": "k"}]}}}}),
    base(source={"mqtt": {"topics": ["a/#"], "qos": 0} | SECRET}),
    base(source={"s3": SECRET | {"buckets": ["a*"], "events": ["s3:ObjectCreated:*", "s3:*"]}}),
    base(source={"postgres": SECRET | {"channels": ["jobs"]}}),
    base(source={"redis": SECRET | {"stream": "a:b", "start": "all", "group": "mine"}}),
    base(source={"schedule": {"at": "2030-01-31T08:00:00Z", "data": {"a": [1]}, "missed": "skip"}}),
    base(source={"schedule": {"cron": "@daily", "timeZone": "Europe/Berlin"}}),
    base(source={"subject": {"subject": "default.>"} | SECRET}),
    base(source={"stream": {"stream": "default-a", "subjects": ["default.a"], "start": "all"}}),
    base(source={"kubernetes": {"apiVersion": "apps/v1", "kind": "Deployment", "events": ["ADDED"]}}),
    base(source={"kv": {"bucket": "default-a", "keys": ["a.*"]}}),
    base(source={"webhook": SECRET | {"preset": "hmac", "header": "X-Signature", "prefix": "sha256="}}),
]
BAD: list[Json] = [
    {},
    {"function": "hello"},
    {"source": {"event": {}}},
    base(function="other/hello"),
    base(function=3),
    base(source={}),
    base(source=[]),
    base(source={"nothing": {}}),
    base(source={"event": {}, "postgres": SOURCES["postgres"]}),
    base(source={"postgres": "x"}),
    base(source={"postgres": {"tables": ["a"]}}),
    base(source={"postgres": SECRET}),
    base(source={"postgres": SECRET | {"tables": ["a"], "channels": ["b"]}}),
    base(source={"postgres": SECRET | {"tables": []}}),
    base(source={"postgres": SECRET | {"tables": ["a"], "operations": ["upsert"]}}),
    base(source={"redis": SECRET}),
    base(source={"redis": SECRET | {"stream": "a", "start": "middle"}}),
    base(source={"mqtt": {}}),
    base(source={"mqtt": {"topics": []}}),
    base(source={"mqtt": {"topics": ["a"], "qos": 2}}),
    base(source={"s3": {}}),
    base(source={"s3": SECRET | {"events": ["ObjectCreated"]}}),
    base(source={"webhook": SECRET}),
    base(source={"webhook": SECRET | {"preset": "gitlab"}}),
    base(source={"webhook": {"preset": "github"}}),
    base(source={"event": {"types": [3]}}),
    base(source={"event": {"auth": {"type": "basic"}}}),
    base(source={"schedule": {}}),
    base(source={"schedule": {"cron": "* * * * *", "at": "2030-01-31T08:00:00Z"}}),
    base(source={"schedule": {"cron": "* * * * *", "missed": "none"}}),
    base(source={"schedule": {"cron": "* * * * *", "timeZone": "Mid Earth"}}),
    base(source={"schedule": {"cron": "* * * * *", "data": "x"}}),
    base(source={"subject": {}}),
    base(source={"stream": {"stream": "a.b"}}),
    base(source={"kv": {"bucket": "a.b"}}),
    base(source={"object": {}}),
    base(source={"kubernetes": {"kind": "ConfigMap"}}),
    base(source={"kubernetes": {"apiVersion": "v1", "kind": "configmaps"}}),
    base(source={"kubernetes": {"apiVersion": "v1", "kind": "ConfigMap", "events": ["BOOKMARK"]}}),
    base(filter=[]),
    base(batch=3),
    base(batch={"size": "3"}),
    base(ordered={}),
    base(ordered={"key": "data."}),
    base(ordered={"key": "Subject"}),
    base(onSuccess={}),
    base(onSuccess={"function": "a", "subject": "b"}),
    base(suspend="yes"),
]
#: The schema takes these, the code does not.
ONLY_CODE: dict[str, Json] = {
    "ordered batches": base(ordered={"key": "subject"}, batch={"size": 2}),
    "a cron expression that never fires": base(source={"schedule": {"cron": "0 0 31 2 *"}}),
    "a wildcard within a subject": base(source={"subject": {"subject": "default.a*"}}),
    "unknown field": base(filters={}),
    "unknown field below": base(batch={"count": 3}),
    "results are of asynchronous invocations": base(resultSeconds=5),
    "a pattern within a topic": base(source={"mqtt": {"topics": ["a+/b"]}}),
    "hmac without a header": base(source={"webhook": SECRET | {"preset": "hmac"}}),
}


@pytest.mark.parametrize("spec", GOOD, ids=lambda spec: str(spec)[:90])
def test_both_take(spec: Json) -> None:
    assert verdicts(a_trigger(spec)) == (True, True)


@pytest.mark.parametrize("spec", BAD, ids=lambda spec: str(spec)[:90])
def test_both_refuse(spec: Json) -> None:
    assert verdicts(a_trigger(spec)) == (False, False)


@pytest.mark.parametrize("spec", ONLY_CODE.values(), ids=ONLY_CODE)
def test_only_code_refuses(spec: Json) -> None:
    assert verdicts(a_trigger(spec)) == (True, False)


@pytest.mark.parametrize("resource", EXAMPLES)
def test_both_take_the_examples(resource: Json) -> None:
    assert verdicts(resource) == (True, True)


@pytest.mark.parametrize("name", ["", "-a", "a-", "1a", "A", "a.b", "a" * 53, "a_b"])
def test_both_refuse_names(name: str) -> None:
    assert verdicts(a_trigger(base(), name)) == (False, False)
