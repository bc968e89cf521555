"""PostgreSQL's values, as text, to JSON.

What JSON can hold exactly becomes what it is; all else stays the text that PostgreSQL prints under the settings in
SESSION, so that nothing is rounded. Times are RFC 3339. docs/events-data.md has the table for users.
"""

import base64
import json
import math
from collections.abc import Callable
from typing import Any, Final

from kappa_gateway.events.json_text import deep

Json = Any

#: Printing depends on these: they are set on the connection that the rows come through.
SESSION: Final = {
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}


def to_json(type_oid: int, text: str) -> Json:
    """The value of a column of this type (pg_type.oid). Text that is not as expected stays as it is."""
    element = _ELEMENTS.get(type_oid)
    try:
        found = read_array(text, *element) if element is not None else _SCALARS.get(type_oid, str)(text)
        return text if deep(found) else found
    except (ValueError, IndexError, RecursionError):
        return text


def read_array(text: str, type_oid: int, delimiter: str = ",") -> Json:
    """An array's text form, such as {1,NULL,"a b"}, to nested lists. Raises ValueError."""
    if text.startswith("["):  # bounds other than 1: [0:1]={a,b}
        text = text[text.index("=") + 1 :]
    found, end = _array(text, 0, type_oid, delimiter)
    if end != len(text):
        raise ValueError("text after the array")
    return found


def _array(text: str, at: int, type_oid: int, delimiter: str) -> tuple[list[Json], int]:
    if text[at] != "{":
        raise ValueError("an array begins with {")
    found: list[Json] = []
    item: Json
    at += 1
    if text[at] == "}":
        return found, at + 1
    while True:
        if text[at] == "{":
            item, at = _array(text, at, type_oid, delimiter)
        elif text[at] == '"':
            plain, at = _quoted(text, at + 1)
            item = to_json(type_oid, plain)
        else:
            end = at
            while text[end] not in (delimiter, "}"):
                end += 1
            item = None if text[at:end] == "NULL" else to_json(type_oid, text[at:end])
            at = end
        found.append(item)
        if text[at] == "}":
            return found, at + 1
        if text[at] != delimiter:
            raise ValueError("items without a delimiter")
        at += 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    pieces = []
    while text[at] != '"':
        if text[at] == "\\":
            at += 1
        pieces.append(text[at])
        at += 1
    return "".join(pieces), at + 1


def _boolean(text: str) -> Json:
    return {"t": True, "f": False}[text] if text in ("t", "f") else text


def _float(text: str) -> Json:
    value = float(text)
    return value if math.isfinite(value) else text  # JSON has no NaN and no Infinity


def _json(text: str) -> Json:
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    if math.isfinite(value := float(text)):
        return value
    raise ValueError(f"{text} is no number of JSON here")  # jsonb holds larger ones than a float: the text stays


def _bytes(text: str) -> Json:
    if not text.startswith("\\x"):
        raise ValueError("not in hex")
    return base64.b64encode(bytes.fromhex(text[2:])).decode()


def _timestamp(text: str) -> Json:
    """2024-05-01 10:00:00.5 to 2024-05-01T10:00:00.5; infinity and years before Christ stay as they are."""
    return text.replace(" ", "T", 1) if text[:1].isdigit() and text.count(" ") == 1 else text


def _timestamptz(text: str) -> Json:
    return _timestamp(text.removesuffix("+00") + "Z") if text.endswith("+00") else text


_SCALARS: Final[dict[int, Callable[[str], Json]]] = {
    16: _boolean,
    17: _bytes,
    20: int,
    21: int,
    23: int,
    26: int,
    114: _json,
    700: _float,
    701: _float,
    1114: _timestamp,
    1184: _timestamptz,
    3802: _json,
}

#: Type of an array to the type of its items and what stands between them. All of pg_type that rows commonly hold.
_ELEMENTS: Final[dict[int, tuple[int, str]]] = {
    array: (item, ",")
    for array, item in {
        1000: 16,
        1001: 17,
        1002: 18,
        1003: 19,
        1005: 21,
        1007: 23,
        1009: 25,
        1014: 1042,
        1015: 1043,
        1016: 20,
        1021: 700,
        1022: 701,
        1028: 26,
        1041: 869,
        651: 650,
        1115: 1114,
        1182: 1082,
        1183: 1083,
        1185: 1184,
        1187: 1186,
        1231: 1700,
        199: 114,
        2951: 2950,
        3807: 3802,
    }.items()
}
