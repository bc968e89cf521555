"""What may stand under spec.source.webhook, .s3 and .mqtt, and what is said of the rest."""

from typing import Any

import pytest

from kappa_api.errors import SpecError
from kappa_api.sources.mqtt import Mqtt
from kappa_api.sources.s3 import S3
from kappa_api.sources.webhook import Webhook
from kappa_api.trigger import parse_trigger

REF = {"secretRef": {"name": "s"}}


def parse(kind: str, source: dict[str, Any]) -> Any:
    meta = {"name": "t", "namespace": "default"}
    return parse_trigger({"metadata": meta, "spec": {"function": "f", "source": {kind: source}}}).source


GOOD = [
    ("webhook", {"preset": "github", **REF}, Webhook("github", "s")),
    ("webhook", {"preset": "token", **REF}, Webhook("token", "s", header="authorization")),
    (
        "webhook",
        {
            "preset": "hmac",
            **REF,
            "header": "X-Sig",
            "algorithm": "sha512",
            "encoding": "base64",
            "prefix": "v1=",
            "timestampHeader": "X-Time",
            "separator": "",
            "toleranceSeconds": 60,
            "idHeader": "X-Id",
            "typeHeader": "X-Kind",
        },
        Webhook("hmac", "s", "x-sig", "sha512", "base64", "v1=", "x-time", "", 60, "x-id", "x-kind"),
    ),
    # A CRD fills in its defaults whatever the preset is.
    ("webhook", {"preset": "stripe", **REF, "algorithm": "sha256", "separator": "."}, Webhook("stripe", "s")),
    ("s3", REF, S3("s")),
    ("s3", {**REF, "buckets": ["a-*"], "events": ["s3:*", "s3:ObjectCreated:Put"]},
     S3("s", ("a-*",), ("s3:*", "s3:ObjectCreated:Put"))),
    ("mqtt", {"topics": ["a/+/b", "#", "/x", "+"]}, Mqtt(("a/+/b", "#", "/x", "+"))),
    ("mqtt", {"topics": ["a"], "qos": 0, **REF}, Mqtt(("a",), 0, "s")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "source", "expected"), GOOD)
def test_good_ones_are_read(kind: str, source: dict[str, Any], expected: Any) -> None:
    assert parse(kind, source) == expected


BAD = [
    ("webhook", {}, ["webhook.preset: ", "webhook.secretRef"]),
    ("webhook", {"preset": "github", **REF, "header": "x"}, ["header: means nothing with preset github"]),
    ("webhook", {"preset": "token", **REF, "algorithm": "sha1"}, ["algorithm: means nothing with preset token"]),
    ("webhook", {"preset": "hmac", **REF}, ["header: is required"]),
    ("webhook", {"preset": "hmac", **REF, "header": "a b", "algorithm": "md5"}, ["'a b'", "'md5'"]),
    ("webhook", {"preset": "stripe", **REF, "toleranceSeconds": 0}, ["toleranceSeconds: 0 is out of range"]),
    ("webhook", {"preset": "slack", **REF, "secret": "x"}, ["secret: is not a field"]),
    ("s3", {}, ["secretRef"]),
    ("s3", {**REF, "buckets": ["a/b"], "events": ["ObjectCreated", "s3:Object*"]}, ["buckets[0]", "events[0]", "[1]"]),
    ("s3", {**REF, "events": ["s3:*"] * 101}, ["at most 100"]),
    ("mqtt", {}, ["topics: must have 1 to 20"]),
    ("mqtt", {"topics": ["a/#/b", "a+", "x#", "", "\0"], "qos": 2}, ["[0]", "[1]", "[2]", "[3]", "[4]", "qos: 2"]),
    ("mqtt", {"topics": ["a"] * 21}, ["1 to 20"]),
]


@pytest.mark.parametrize(("kind", "source", "told"), BAD)
def test_bad_ones_are_refused_with_the_field(kind: str, source: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse(kind, source)
    for part in told:
        assert part in str(caught.value)
