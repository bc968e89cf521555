"""The publication and the slot of a Trigger: made, held to the Trigger's tables, looked after and dropped.

The publication is made before the slot: the server looks it up as it was at each change that it decodes, and a slot
that is older than its publication can never be read. Names come from the Trigger's uid, so that a Trigger that is made
anew under an old name does not go on with an old slot.
"""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from kappa_api.sources.postgres import Postgres
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import SourceError, Trace
from kappa_gateway.events.sources.postgres_connect import told

Connection = psycopg.AsyncConnection[Any]

ROOT_VERSION: Final = 130_000  # publish_via_partition_root, wal_status
STATEMENT_SECONDS: Final = 30
END_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.05

_TABLES: Final = """
  WITH RECURSIVE asked AS (
    SELECT c.oid, n.nspname, c.relname, c.relkind
      FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
      JOIN pg_namespace n USING (nspname) JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname
  ), part AS (
    SELECT oid AS root, oid FROM asked
    UNION ALL SELECT part.root, i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.oid
  )
  SELECT a.nspname, a.relname, a.relkind,
    bool_and(c.relkind = 'p' OR c.relreplident IN ('f', 'i')
      OR c.relreplident = 'd' AND EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary)),
    ARRAY(SELECT t.attname::text FROM pg_index x JOIN pg_attribute t ON t.attrelid = x.indrelid
          AND t.attnum = ANY (x.indkey) WHERE x.indrelid = a.oid AND x.indisprimary ORDER BY t.attnum)
  FROM asked a JOIN part p ON p.root = a.oid JOIN pg_class c ON c.oid = p.oid
  GROUP BY a.oid, a.nspname, a.relname, a.relkind
"""
_PUBLISHED: Final = """
  SELECT n.nspname, c.relname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = %s
"""
_SLOT: Final = """
  SELECT s.plugin, s.database, s.active_pid, a.application_name, to_jsonb(s) ->> 'wal_status'
    FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = %s
"""

#: A standby that was promoted has the identifier of the server it was copied from, and another timeline.
_WHERE: Final = """
  SELECT s.system_identifier, c.timeline_id, current_database() FROM pg_control_system() s, pg_control_checkpoint() c
"""


@dataclass(frozen=True, slots=True)
class Names:
    """`own`: what Kappa makes for the Trigger is called so, and in pg_stat_activity its connections. `publication` and
    `slot` are the same unless the Trigger names others, which Kappa only uses."""

    own: str
    publication: str
    slot: str

    @property
    def ours_publication(self) -> bool:
        return self.publication == self.own

    @property
    def ours_slot(self) -> bool:
        return self.slot == self.own


def names_of(trigger: Trigger) -> Names:
    source: Postgres = trigger.source
    readable = re.sub(r"[^a-z0-9]", "_", f"{trigger.namespace}_{trigger.name}")[:40]
    own = f"kappa_{readable}_{hashlib.sha256((trigger.uid or trigger.key).encode()).hexdigest()[:12]}"
    return Names(own, source.publication or own, source.slot or own)


def trace(trigger: Trigger, server: str) -> Trace | None:
    """What stays in the database without the Trigger; None: nothing of Kappa's. `server`: empty if it is not known."""
    source, names = trigger.source, names_of(trigger)
    if source.channels or not (names.ours_slot or names.ours_publication):
        return None
    where = server or f"the database that the Secret {source.secret} names"
    text = (
        f"the replication slot {names.own}, for which the server keeps its log, and the publication {names.own}, in "
        f"{where}: SELECT pg_drop_replication_slot('{names.own}'); DROP PUBLICATION IF EXISTS {names.own};"
    )
    return Trace((source.secret,), text, server)


@dataclass(frozen=True, slots=True)
class Prepared:
    """`primary_keys`: columns by schema and table. `made_slot`: it was not there."""

    primary_keys: dict[tuple[str, str], tuple[str, ...]]
    made_slot: bool


async def prepare(connection: Connection, source: Postgres, names: Names) -> Prepared:
    """Makes what is missing. Raises SourceError that says what to do."""
    try:
        await connection.execute(sql.SQL("SET statement_timeout = {}").format(sql.Literal(f"{STATEMENT_SECONDS}s")))
        level = await _one(connection, "SELECT current_setting('wal_level')")
        if level != ("logical",):
            raise SourceError(
                f"the server's wal_level is {level and level[0]}: logical decoding needs wal_level = logical in "
                "postgresql.conf and a restart"
            )
        keys = await _check_tables(connection, source, names)
        await _drop(connection, names, slot=not names.ours_slot, publication=False)
        await _publish(connection, source, names)
        made = await _ensure_slot(connection, names)
        await _drop(connection, names, slot=False, publication=not names.ours_publication)
        return Prepared(keys, made)
    except psycopg.Error as error:
        raise SourceError(_problem(error, names)) from error


async def forget(connection: Connection, names: Names) -> None:
    """Drops what is Kappa's own. Raises SourceError."""
    try:
        await _drop(connection, names, slot=True, publication=True)
    except psycopg.Error as error:
        raise SourceError(
            f"the slot {names.own} cannot be dropped; while it is there the server keeps its log: {told(error)}"
        ) from error


async def where(connection: Connection) -> str:
    """Which server and database this is, however it was reached. Raises SourceError."""
    try:
        found = await _one(connection, _WHERE)
    except psycopg.Error as error:
        raise SourceError(f"the server does not say which one it is: {told(error)}") from error
    return "/".join(str(part) for part in found or ())


async def _drop(connection: Connection, names: Names, *, slot: bool, publication: bool) -> None:
    """Drops what Kappa made under its own name and is not used, or not any more."""
    # Names of slots are the server's: one of another database may be what the Trigger reads now
    if slot and await _here(connection, names.own) and await _free(connection, names, names.own):
        await connection.execute("SELECT pg_drop_replication_slot(%s)", (names.own,))
    if publication:
        await connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(names.own)))


async def _check_tables(connection: Connection, source: Postgres, names: Names) -> dict[tuple[str, str], Any]:
    wanted = (([schema for schema, _ in source.tables]), ([name for _, name in source.tables]))
    rows = await (await connection.execute(_TABLES, wanted)).fetchall()
    found = {(row[0], row[1]): row for row in rows}
    if missing := [".".join(table) for table in source.tables if table not in found]:
        raise SourceError(
            f"there is no table {', '.join(missing)} that this user sees (names are case-sensitive, schema.table)"
        )
    if strange := [".".join(key) for key, row in found.items() if row[2] not in ("r", "p")]:
        raise SourceError(
            f"{', '.join(strange)} is not a table: changes of views and foreign tables cannot be followed"
        )
    without = [".".join(key) for key, row in found.items() if not row[3]]
    if without and names.ours_publication and {"update", "delete"} & set(source.operations):
        # Published like this, the server would refuse every UPDATE and DELETE of the application itself.
        raise SourceError(
            f"{', '.join(without)} has no primary key: give it one, or ALTER TABLE ... REPLICA IDENTITY FULL, or let "
            "the Trigger's operations be insert (PostgreSQL refuses updates of published tables without identity)"
        )
    return {key: tuple(row[4]) for key, row in found.items()}


async def _publish(connection: Connection, source: Postgres, names: Names) -> None:
    have = await _one(
        connection,
        "SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = %s",
        names.publication,
    )
    if not names.ours_publication:
        if have is None:
            raise SourceError(f"there is no publication {names.publication}: create it, or leave the field out")
        return
    publish = ", ".join(source.operations)
    tables = sql.SQL(", ").join(sql.Identifier(schema, name) for schema, name in source.tables)
    name = sql.Identifier(names.publication)
    if have is None:
        root = ", publish_via_partition_root = true" if connection.info.server_version >= ROOT_VERSION else ""
        await connection.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH (publish = {}" + root + ")").format(
                name, tables, sql.Literal(publish)
            )
        )
        return
    rows = await (await connection.execute(_PUBLISHED, (names.publication,))).fetchall()
    if {(row[0], row[1]) for row in rows} != set(source.tables):
        await connection.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, tables))
    if have[1:] != tuple(kind in source.operations for kind in ("insert", "update", "delete", "truncate")):
        await connection.execute(sql.SQL("ALTER PUBLICATION {} SET (publish = {})").format(name, sql.Literal(publish)))


async def _ensure_slot(connection: Connection, names: Names) -> bool:
    """Whether it had to be made."""
    slot = await _one(connection, _SLOT, names.slot)
    if slot is None:
        if not names.ours_slot:
            raise SourceError(
                f"there is no replication slot {names.slot}: create it for pgoutput, or leave the field out"
            )
        await connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (names.slot,))
        return True
    plugin, database, _, _, wal = slot
    if plugin != "pgoutput" or database != connection.info.dbname:
        raise SourceError(
            f"the slot {names.slot} is one of {plugin} in the database {database}, not of pgoutput in "
            f"{connection.info.dbname}. What a Trigger used before it was changed is soon dropped by Kappa"
        )
    if wal == "lost":
        raise SourceError(
            f"the server has given up the slot {names.slot} (max_slot_wal_keep_size) and changes are lost: drop it "
            f"with SELECT pg_drop_replication_slot('{names.slot}') and Kappa begins anew with the next change"
        )
    await _free(connection, names, names.slot)
    return False


async def _here(connection: Connection, name: str) -> bool:
    found = await _one(connection, _SLOT, name)
    return found is not None and found[1] == connection.info.dbname


async def _free(connection: Connection, names: Names, name: str) -> bool:
    """Waits until nobody reads the slot, and ends a reader of ours that is still connected: a gateway that has lost the
    lease, or died without the server having noticed. False: there is no such slot. Raises SourceError."""
    deadline = asyncio.get_running_loop().time() + END_SECONDS
    ended = None
    while True:
        slot = await _one(connection, _SLOT, name)
        if slot is None or slot[2] is None:
            return slot is not None
        pid, application = slot[2], slot[3]
        if application == names.own and pid != ended:
            await connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
            ended = pid
        if application != names.own or asyncio.get_running_loop().time() > deadline:
            raise SourceError(
                f"the slot {name} is in use by {application or 'a connection'} (process {pid} of the server)"
            )
        await asyncio.sleep(POLL_SECONDS)


async def _one(connection: Connection, query: Any, *values: Any) -> tuple[Any, ...] | None:
    return await (await connection.execute(query, values or None)).fetchone()


def _problem(error: psycopg.Error, names: Names) -> str:
    match error.sqlstate:
        case "42501":
            return (
                f"the database user lacks a right: {told(error)}. It needs REPLICATION, CREATE on the database and the "
                "ownership of the tables (or a publication that exists): see docs/events-data.md"
            )
        case "53400":
            return f"the server has no slot left: raise max_replication_slots ({told(error)})"
        case "57014":
            return (
                f"the slot {names.slot} could not be made within {STATEMENT_SECONDS} s: it waits for transactions that "
                "were open before (see pg_stat_activity)"
            )
        case _:
            return f"the database refused: {told(error)}"
