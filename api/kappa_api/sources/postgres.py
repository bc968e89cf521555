"""`source.postgres`: changes of rows in PostgreSQL's tables by logical decoding, or what is sent with NOTIFY.

A Trigger names `tables` or `channels`. The Secret holds the server's URL (`url`) and, for TLS, `ca.crt`, `tls.crt` and
`tls.key`. `publication` and `slot` are for databases whose admin makes them: then Kappa neither changes nor drops them.
"""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.secretref import read_secret_ref

OPERATIONS: Final = ("insert", "update", "delete", "truncate")
DEFAULT_OPERATIONS: Final = ("insert", "update", "delete")
MAX_TABLES: Final = 200
MAX_CHANNELS: Final = 100
#: PostgreSQL cuts longer identifiers off.
IDENTIFIER_BYTES: Final = 63


@dataclass(frozen=True, slots=True)
class Postgres:
    """`tables`: (schema, name) each, as the catalog has them. `operations`: some of OPERATIONS. `channels`: of LISTEN.
    `publication`, `slot`: names of ones that exist already, or empty."""

    secret: str
    tables: tuple[tuple[str, str], ...] = ()
    operations: tuple[str, ...] = DEFAULT_OPERATIONS
    channels: tuple[str, ...] = ()
    publication: str = ""
    slot: str = ""


def read(reader: Reader) -> Postgres:
    """Reads `spec.source.postgres`."""
    secret = read_secret_ref(reader, required=True)
    tables = reader.strings("tables", _table_fault)
    channels = reader.strings("channels", _identifier_fault)
    operations = reader.strings("operations", _operation_fault)
    publication = reader.string("publication", pattern=r"[^\x00]{1,63}", hint="the name of a publication")
    slot = reader.string("slot", pattern=r"[a-z0-9_]{1,63}", hint="the name of a replication slot: a-z, 0-9 and _")
    if ("tables" in reader) == ("channels" in reader):
        reader.fault("", "must have exactly one of tables and channels")
    for key, names, most in (("tables", tables, MAX_TABLES), ("channels", channels, MAX_CHANNELS)):
        if key in reader and not names:
            reader.fault(key, "must name at least one")
        if len(names) > most:
            reader.fault(key, f"must have at most {most} names")
        if len({_table(name) if key == "tables" else name for name in names}) < len(names):
            reader.fault(key, "must not name anything twice")
    if "channels" in reader:
        for key in ("operations", "publication", "slot"):
            if key in reader:
                reader.fault(key, "has no meaning with channels")
    reader.unknown()
    return Postgres(
        secret=secret,
        tables=tuple(_table(text) for text in tables),
        operations=tuple(name for name in OPERATIONS if name in operations) or DEFAULT_OPERATIONS,
        channels=channels,
        publication=publication,
        slot=slot,
    )


def _table(text: str) -> tuple[str, str]:
    schema, dot, name = text.partition(".")
    return (schema, name) if dot else ("public", text)


def _table_fault(text: str) -> str:
    for piece in _table(text):
        if fault := _identifier_fault(piece):
            return f"{text[:80]!r} is not schema.table: {fault}"
    return ""


def _identifier_fault(text: str) -> str:
    if not text or "\0" in text or '"' in text:
        return "a name as the catalog has it, without quotes"
    if len(text.encode()) > IDENTIFIER_BYTES:
        return f"a name has at most {IDENTIFIER_BYTES} bytes"
    return ""


def _operation_fault(text: str) -> str:
    return "" if text in OPERATIONS else f"{text[:40]!r} is not supported: use some of {', '.join(OPERATIONS)}"
