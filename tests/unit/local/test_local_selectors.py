"""Label and field selectors."""

from __future__ import annotations

import pytest

from kappa_local.errors import ApiError
from kappa_local.selectors import parse

LABELS = {"app": "web", "tier": "gold", "example.com/a": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app=api", False),
        ("app!=api", True),
        ("none!=x", True),
        ("app in (web, api)", True),
        ("app notin (web)", False),
        ("none notin (web)", True),
        ("app", True),
        ("none", False),
        ("!none", True),
        ("!app", False),
        ("example.com/a", True),
        ("example.com/a=", True),
        ("app=web,tier=gold,!none", True),
        ("app=web,tier in (silver,bronze)", False),
    ],
)
def test_labels(text: str, matches: bool) -> None:
    assert parse(text, "", ()).matches({"metadata": {"labels": LABELS}}) is matches


@pytest.mark.parametrize("text", ["a in b", "a==b==c", "=x", "a in (b", "a b"])
def test_labels_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement"):
        parse(text, "", ())


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=a", True),
        ("metadata.name!=a", False),
        ("status.phase=Running,metadata.namespace=n", True),
        ("spec.nodeName=", True),
        ("spec.hostNetwork=true", True),
    ],
)
def test_fields(text: str, matches: bool) -> None:
    pod = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"hostNetwork": True}, "status": {"phase": "Running"}}
    assert parse("", text, ("status.phase", "spec.nodeName", "spec.hostNetwork")).matches(pod) is matches


def test_a_field_that_is_not_supported() -> None:
    with pytest.raises(ApiError, match=r"field label not supported: spec\.x"):
        parse("", "spec.x=1", ())


def test_one_exact_name_is_known() -> None:
    assert parse("", "metadata.name=a,status.phase!=x", ("status.phase",)).exact("metadata.name") == "a"
    assert parse("", "metadata.name!=a", ()).exact("metadata.name") is None
