"""Validation of a value against a CRD schema, with the messages and field paths of the real server (1.20 wording)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from kappa_local.errors import Cause
from kappa_local.schema import Node

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: (isinstance(v, int) and not isinstance(v, bool)) or (isinstance(v, float) and v.is_integer()),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def validate(value: Any, node: Node, path: str = "") -> list[Cause]:
    """Every fault of `value`, in the order of the schema. `path` is '' for the object itself."""
    if value is None and node.nullable:
        return []
    return [
        *_check_type(value, node, path),
        *_check_enum(value, node, path),
        *_check_string(value, node, path),
        *_check_number(value, node, path),
        *_check_array(value, node, path),
        *_check_object(value, node, path),
        *_check_combined(value, node, path),
    ]


def show(value: Any) -> str:
    """A value as the server prints it in an error."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def invalid(path: str, value: Any, message: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {message}", path or "<nil>")


def type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and not value.is_integer():
        return "number"
    for name in ("string", "boolean", "integer", "array", "object"):
        if _TYPES[name](value):
            return name
    return "number"


def _check_type(value: Any, node: Node, path: str) -> list[Cause]:
    if node.int_or_string:
        if _TYPES["integer"](value) or isinstance(value, str):
            return []
        wanted = "integer,string"
    elif (
        (node.format == "quantity" and isinstance(value, (int, float)))
        or not node.type
        or _TYPES.get(node.type, lambda _v: True)(value)
    ):
        return []
    else:
        wanted = node.type
    found = type_name(value)
    return [invalid(path, found, f'{path} in body must be of type {wanted}: "{found}"')]


def _check_enum(value: Any, node: Node, path: str) -> list[Cause]:
    allowed = node.raw.get("enum")
    if allowed is None or any(value == item and type(value) is type(item) for item in allowed):
        return []
    listed = ", ".join(show(item if isinstance(item, str) else show(item)) for item in allowed)
    message = f"Unsupported value: {show(value)}: supported values: {listed}"
    return [Cause("FieldValueNotSupported", message, path)]


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(r"\z", r"\Z"))


def _check_string(value: Any, node: Node, path: str) -> list[Cause]:
    if not isinstance(value, str):
        return []
    raw, causes = node.raw, []
    if (limit := raw.get("maxLength")) is not None and len(value) > limit:
        causes.append(invalid(path, value, f"{path} in body should be at most {limit} chars long"))
    if (limit := raw.get("minLength")) is not None and len(value) < limit:
        causes.append(invalid(path, value, f"{path} in body should be at least {limit} chars long"))
    if (pattern := raw.get("pattern")) and not _compiled(pattern).search(value):
        causes.append(invalid(path, value, f"{path} in body should match '{pattern}'"))
    check = _FORMATS.get(node.format)
    if check is not None and not _passes(check, value):
        causes.append(invalid(path, value, f"{path} in body must be of type {node.format}: {show(value)}"))
    return causes


def _check_number(value: Any, node: Node, path: str) -> list[Cause]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return []
    raw, causes = node.raw, []
    if (limit := raw.get("maximum")) is not None:
        strict = raw.get("exclusiveMaximum", False)
        if value > limit or (strict and value == limit):
            word = "less than" if strict else "less than or equal to"
            causes.append(invalid(path, value, f"{path} in body should be {word} {limit}"))
    if (limit := raw.get("minimum")) is not None:
        strict = raw.get("exclusiveMinimum", False)
        if value < limit or (strict and value == limit):
            word = "greater than" if strict else "greater than or equal to"
            causes.append(invalid(path, value, f"{path} in body should be {word} {limit}"))
    if (factor := raw.get("multipleOf")) is not None and value % factor:
        causes.append(invalid(path, value, f"{path} in body should be a multiple of {factor}"))
    bits = {"int32": 31, "int64": 63}.get(node.format)
    if bits is not None and not -(2**bits) <= value < 2**bits:
        causes.append(invalid(path, value, f"{path} in body must be of type {node.format}: {show(show(value))}"))
    return causes


def _check_array(value: Any, node: Node, path: str) -> list[Cause]:
    if not isinstance(value, list):
        return []
    raw, causes = node.raw, []
    if (limit := raw.get("maxItems")) is not None and len(value) > limit:
        causes.append(invalid(path, value, f"{path} in body should have at most {limit} items"))
    if (limit := raw.get("minItems")) is not None and len(value) < limit:
        causes.append(invalid(path, value, f"{path} in body should have at least {limit} items"))
    if raw.get("uniqueItems") and len({show(item) for item in value}) < len(value):
        causes.append(invalid(path, value, f"{path} in body shouldn't contain duplicates"))
    causes += _check_list_keys(value, node, path)
    if node.items is not None:
        for index, item in enumerate(value):
            causes += validate(item, node.items, f"{path}[{index}]")
    return causes


def _check_list_keys(value: list[Any], node: Node, path: str) -> list[Cause]:
    kind = node.extension("list-type")
    if kind not in ("map", "set"):
        return []
    keys = node.extension("list-map-keys") or []
    seen: set[str] = set()
    causes = []
    for index, item in enumerate(value):
        identity: Any = item
        if kind == "map":
            identity = {key: item[key] for key in keys if key in item} if isinstance(item, dict) else None
        text = show(identity)
        if text in seen:
            causes.append(Cause("FieldValueDuplicate", f"Duplicate value: {text}", f"{path}[{index}]"))
        seen.add(text)
    return causes


def _check_object(value: Any, node: Node, path: str) -> list[Cause]:
    if not isinstance(value, dict):
        return []
    raw = node.raw
    prefix = f"{path}." if path else ""
    causes = []
    if (limit := raw.get("maxProperties")) is not None and len(value) > limit:
        causes.append(invalid(path, value, f"{path} in body should have at most {limit} properties"))
    if (limit := raw.get("minProperties")) is not None and len(value) < limit:
        causes.append(invalid(path, value, f"{path} in body should have at least {limit} properties"))
    causes += [
        Cause("FieldValueRequired", "Required value", prefix + name)
        for name in raw.get("required") or ()
        if name not in value
    ]
    for name, item in value.items():
        if not path and name == "metadata":
            continue
        child = node.child(name)
        if child is not None:
            causes += validate(item, child, prefix + name)
    return causes


def _check_combined(value: Any, node: Node, path: str) -> list[Cause]:
    """allOf, anyOf, oneOf, not. They carry value checks only: structural schemas keep types out of them."""
    raw = node.raw
    causes: list[Cause] = []
    for part in raw.get("allOf") or ():
        causes += validate(value, Node(part, {}), path)
    if options := raw.get("anyOf"):
        failed = [validate(value, Node(option, {}), path) for option in options]
        if all(failed):
            causes += [_combined(path, "must validate at least one schema (anyOf)"), *min(failed, key=len)]
    if options := raw.get("oneOf"):
        failed = [validate(value, Node(option, {}), path) for option in options]
        passed = sum(not faults for faults in failed)
        if passed == 0:
            text = "must validate one and only one schema (oneOf). Found none valid"
            causes += [_combined(path, text), *min(failed, key=len)]
        elif passed > 1:
            text = f"must validate one and only one schema (oneOf). Found {passed} valid alternatives"
            causes.append(_combined(path, text))
    if (refused := raw.get("not")) is not None and not validate(value, Node(refused, {}), path):
        causes.append(_combined(path, "must not validate the schema (not)"))
    return causes


def _combined(path: str, text: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "": "{path}" {text}', "<nil>")


def _passes(check: Callable[[str], Any], value: str) -> bool:
    try:
        return check(value) is not False
    except (ValueError, binascii.Error):
        return False


_FORMATS: dict[str, Callable[[str], Any]] = {
    "date-time": lambda v: "T" in v.upper() and datetime.fromisoformat(v.upper().replace("Z", "+00:00")),
    "date": date.fromisoformat,
    "byte": lambda v: base64.b64decode(v, validate=True) is not None,
    "ipv4": lambda v: bool(ipaddress.IPv4Address(v)) or True,
    "ipv6": lambda v: bool(ipaddress.IPv6Address(v)) or True,
    "cidr": lambda v: bool(ipaddress.ip_network(v, strict=False)) or True,
    "email": lambda v: re.fullmatch(r"[^@\s]+@[^@\s]+", v) is not None,
    "hostname": lambda v: re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9.]{0,252}[A-Za-z0-9])?", v) is not None,
    "uri": lambda v: re.match(r"^([A-Za-z][A-Za-z0-9+.-]*:|/)", v) is not None,
    "uuid": lambda v: re.fullmatch(r"(?i)[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", v) is not None,
    "duration": lambda v: re.fullmatch(r"-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+|0|\d+ (\w+)", v) is not None,
}
