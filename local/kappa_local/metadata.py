"""Rules for metadata that hold for every resource: names, what a client may not set, what an update keeps. Pure."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from kappa_local.errors import Cause
from kappa_local.resources import Rule
from kappa_local.types import Obj
from kappa_local.validate import show

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_REGEX = "(e.g. {}, regex used for validation is '{}')"
_NAME_RULES: dict[Rule, tuple[str, int, str]] = {
    "subdomain": (
        _SUBDOMAIN,
        253,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        "and end with an alphanumeric character " + _REGEX.format("'example.com'", _SUBDOMAIN),
    ),
    "label": (
        _LABEL,
        63,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character " + _REGEX.format("'my-name',  or '123-abc'", _LABEL),
    ),
    "label1035": (
        _LABEL_1035,
        63,
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
        "character, and end with an alphanumeric character " + _REGEX.format("'my-name',  or 'abc-123'", _LABEL_1035),
    ),
    "path": (r"(?!\.\.?$)[^/%]+", 253, "may not contain '/' or '%'"),
}
_GENERATED = "bcdfghjklmnpqrstvwxz2456789"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated(prefix: str) -> str:
    """`prefix` and five characters, as generateName makes them."""
    return prefix[:58] + "".join(secrets.choice(_GENERATED) for _ in range(5))


def name_faults(name: str, rule: Rule) -> list[Cause]:
    pattern, limit, text = _NAME_RULES[rule]
    found = []
    if len(name) > limit:
        found.append(
            Cause(
                "FieldValueInvalid",
                f"Invalid value: {show(name)}: must be no more than {limit} characters",
                "metadata.name",
            )
        )
    if not re.fullmatch(pattern, name):
        found.append(Cause("FieldValueInvalid", f"Invalid value: {show(name)}: {text}", "metadata.name"))
    return found


def faults(metadata: Obj) -> list[Cause]:
    """Faults in labels, annotations, finalizers and owner references."""
    found: list[Cause] = []
    for key, value in (metadata.get("labels") or {}).items():
        found += _key_faults(key, "metadata.labels")
        if value and (len(value) > 63 or not re.fullmatch(_QUALIFIED, value)):
            text = (
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
                "must start and end with an alphanumeric character "
                + _REGEX.format("'MyValue',  or 'my_value',  or '12345'", f"({_QUALIFIED})?")
            )
            if len(value) > 63:
                text = "must be no more than 63 characters"
            found.append(Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {text}", "metadata.labels"))
    for key in metadata.get("annotations") or {}:
        found += _key_faults(key, "metadata.annotations")
    for owner in metadata.get("ownerReferences") or ():
        found += [
            Cause(
                "FieldValueInvalid", f'Invalid value: "": {name} must not be empty', f"metadata.ownerReferences.{name}"
            )
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        ]
    return found


def _key_faults(key: str, path: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    good = re.fullmatch(_QUALIFIED, name) and len(name) <= 63 and (not slash or re.fullmatch(_SUBDOMAIN, prefix))
    if good:
        return []
    text = (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character " + _REGEX.format("'MyName',  or 'my.name',  or '123-abc'", _QUALIFIED)
    )
    return [Cause("FieldValueInvalid", f"Invalid value: {show(key)}: {text}", path)]


def type_faults(metadata: Obj) -> str | None:
    """What a typed decoder would refuse in metadata, as its message; None when all is well."""
    for field in ("labels", "annotations"):
        values = metadata.get(field)
        if values is None:
            continue
        if not isinstance(values, dict):
            return f"cannot unmarshal {_go(values)} into Go struct field ObjectMeta.metadata.{field} of type map"
        for value in values.values():
            if not isinstance(value, str):
                return f"cannot unmarshal {_go(value)} into Go struct field ObjectMeta.metadata.{field} of type string"
    for field in ("finalizers", "ownerReferences"):
        if metadata.get(field) is not None and not isinstance(metadata[field], list):
            return f"cannot unmarshal {_go(metadata[field])} into Go struct field ObjectMeta.metadata.{field}"
    return None


def _go(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "null"


def fresh(given: Obj, *, name: str, namespace: str, uid: str, created: str) -> Obj:
    """The metadata of a new object: what the client said, less what only the server may say."""
    kept = {
        key: value
        for key, value in given.items()
        if key in ("generateName", "labels", "annotations", "ownerReferences", "finalizers", "managedFields") and value
    }
    head: Obj = {"name": name}
    if namespace:
        head["namespace"] = namespace
    return {**head, "uid": uid, "creationTimestamp": created, **kept}


def updated(given: Obj, old: Obj) -> Obj:
    """The metadata of an update: the client's labels, annotations, owners and finalizers; the server's everything
    else.
    """
    out = {
        key: value
        for key, value in old.items()
        if key not in ("labels", "annotations", "ownerReferences", "finalizers", "managedFields")
    }
    for key in ("labels", "annotations", "ownerReferences", "finalizers", "managedFields"):
        if given.get(key):
            out[key] = given[key]
    return out


def update_faults(given: Obj, old: Obj) -> list[Cause]:
    """Changes that metadata does not allow."""
    found = []
    for key in ("uid", "name", "namespace"):
        if given.get(key) and given[key] != old.get(key):
            found.append(
                Cause("FieldValueInvalid", f"Invalid value: {show(given[key])}: field is immutable", f"metadata.{key}")
            )
    if old.get("deletionTimestamp"):
        added = set(given.get("finalizers") or ()) - set(old.get("finalizers") or ())
        if added:
            listed = ", ".join(show(name) for name in sorted(added))
            text = (
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{listed}}}"
            )
            found.append(Cause("FieldValueForbidden", text, "metadata.finalizers"))
    return found
