"""Checks of PostgreSQL sinks: connection, schema, version and durability."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import psycopg

from tracker.interfaces import SinkUnusable
from tracker.observe.examination import Examination, in_thread
from tracker.observe.findings import Finding, Status, failure, ok, skipped, warning
from tracker.reactor import Reactor
from tracker.storage.migrations import judge_schema, migrations
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import Connection, connect, error_text
from tracker.storage.postgresql.repair import count_wrong
from tracker.storage.postgresql.schema import applied, is_current
from tracker.storage.rowchecks import (
    CLOCKS,
    LATE,
    MAX_WRONG,
    OLD_SCHEMA,
    ROWS_TIMEOUT,
    judge_clocks,
    judge_wrong,
)

#: Minimum major version of PostgreSQL.
MIN_VERSION: Final = 13
#: Minimum number of free connections. A processor needs one, and a second one at a restart.
MIN_FREE_CONNECTIONS: Final = 10

_CHECKS: Final = (
    *("sink-schema", "sink-version", "sink-durability", "sink-connections", "sink-clocks"),
    "sink-rows",
)

# Backends are counted per database, since some users may not see the sessions of others.
_FACTS: Final = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
    current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('max_connections')::int,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int
        - (SELECT sum(numbackends) FROM pg_stat_database)::int
"""
_NAMES: Final = (
    *("server_version", "server_version_num", "fsync", "full_page_writes"),
    *("synchronous_commit", "max_connections", "free"),
)


async def examine(reactor: Reactor, examination: Examination, url: str) -> None:
    """Run all checks of the database of a valid URL."""
    address = PostgreSQLAddress.from_url(url)
    connections: list[Connection] = []
    await examination.make(
        "sink-reachable",
        in_thread,
        reactor,
        reachable,
        address,
        connections,
        late=partial(judge_unreachable, address),
    )
    for name in _CHECKS:
        if not connections:
            await examination.make(name, skipped, "not connected")
    if not connections:
        return
    (connection,) = connections
    await examination.make("sink-schema", in_thread, reactor, schema, connection, address)
    known: dict[str, Any] = {}

    def facts() -> Mapping[str, Any]:
        if not known:
            row = connection.execute(_FACTS).fetchone()
            known.update(zip(_NAMES, row or (), strict=True))
        return known

    for name, judge in (
        ("sink-version", judge_version),
        ("sink-durability", judge_durability),
        ("sink-connections", judge_connections),
    ):
        await examination.make(name, in_thread, reactor, _judged, judge, facts, psql(address))
    for name, query, judge_rows in (
        ("sink-clocks", CLOCKS.format(since="now() - interval '1 day'"), judge_clocks),
        ("sink-rows", count_wrong(MAX_WRONG), partial(judge_wrong, url=address.url)),
    ):
        await examination.make(name, in_thread, reactor, rows, connection, query, judge_rows)
    if examination.has_time:  # otherwise a thread may still use the connection
        connection.close()


def _judged(judge: Any, facts: Any, cli: str) -> list[Finding]:
    return list(judge(facts(), cli))


def reachable(address: PostgreSQLAddress, connections: list[Connection]) -> Finding:
    """Check that this user can connect, and that the server is a primary.

    :param connections: receives the connection, which is read-only.
    """
    try:
        connection = connect(address)
    except psycopg.Error as error:
        return judge_unreachable(address, error_text(error))
    connection.execute(
        f"SET default_transaction_read_only = on; SET statement_timeout = {ROWS_TIMEOUT * 1000:.0f}"
    )
    connections.append(connection)
    return ok(f"{address.url} is reachable")


def judge_unreachable(address: PostgreSQLAddress, reason: str) -> Finding:
    """Return the finding on a failed connection."""
    given = address.parameters
    host, number = shlex.quote(given.get("host", "localhost")), given.get("port", "5432")
    name, user = (shlex.quote(str(given.get(key, "tracker"))) for key in ("dbname", "user"))
    options = f"-h {host} -p {number}"
    server = f"psql {options} -U postgres -c"
    for pattern, fix in (
        (
            r"authentication failed|no password supplied",
            f"echo {host}:{number}:{name}:{user}:PASSWORD >> ~/.pgpass && chmod 600 ~/.pgpass",
        ),
        (r"database .* does not exist", f"createdb {options} -O {user} {name}"),
        (r"role .* does not exist", f"createuser {options} --pwprompt {user}"),
        (
            r"no pg_hba\.conf entry",
            f"host {name} {user} samenet scram-sha-256  # in pg_hba.conf, then pg_ctl reload",
        ),
        (
            r"too many (clients|connections)|remaining connection slots",
            f"{server} 'ALTER SYSTEM SET max_connections = 200'  # then restart PostgreSQL",
        ),
        (r"read-only", "TRACKER_SINK=postgresql://USER@PRIMARY/DATABASE  # this is a standby"),
        (r"SSL|certificate", "TRACKER_SINK='postgresql://…?sslmode=…&sslrootcert=…'"),
        (r"refused|No such file", "systemctl start postgresql  # or give its address: --sink"),
    ):
        if re.search(pattern, reason):
            return failure(f"{address.url}: {reason}", fix)
    return failure(
        f"{address.url}: {reason}",
        f"pg_isready {options}  # check the name, the network and the firewall",
    )


def schema(connection: Connection, address: PostgreSQLAddress) -> Finding:
    """Check that this program can use the tables."""
    finding = judge_schema(applied(connection), migrations("postgresql"), address.url, address.url)
    if finding.status is Status.OK:
        try:
            is_current(connection, address, migrate=False)  # with timescale=1, a hypertable
        except SinkUnusable as error:
            problem, _, fix = str(error).partition(": run ")
            return failure(problem, fix)
    return finding


def judge_version(facts: Mapping[str, Any], cli: str) -> Iterator[Finding]:
    """Check that the server is not too old."""
    found = facts["server_version"]
    if facts["server_version_num"] >= MIN_VERSION * 10_000:
        yield ok(f"PostgreSQL {found}")
    else:
        yield failure(
            f"PostgreSQL {found}: {MIN_VERSION} or later is required",
            f"apt-get install postgresql  # {MIN_VERSION} or later, then pg_upgradecluster",
        )


def judge_durability(facts: Mapping[str, Any], cli: str) -> Iterator[Finding]:
    """Check that commits of the server are durable."""
    durable = True
    for name, judge, consequence in (
        ("fsync", failure, "a power failure may corrupt the database"),
        ("full_page_writes", failure, "a power failure may corrupt the database"),
        ("synchronous_commit", warning, "a power failure may lose commits of other clients"),
    ):
        if facts[name] == "off":
            durable = False
            yield judge(
                f"{name} is off: {consequence}",
                f"{cli} -c 'ALTER SYSTEM SET {name} = on' -c 'SELECT pg_reload_conf()'",
            )
    if durable:
        yield ok(f"fsync on, synchronous_commit {facts['synchronous_commit']}")


def judge_connections(facts: Mapping[str, Any], cli: str) -> Iterator[Finding]:
    """Check that more connections are possible."""
    free, limit = facts["free"], facts["max_connections"]
    text = f"free connections: {max(0, free)} of {limit}"
    if free >= MIN_FREE_CONNECTIONS:
        yield ok(text)
        return
    fix = f"{cli} -c 'ALTER SYSTEM SET max_connections = {2 * limit}'  # then restart PostgreSQL"
    yield (warning if free > 0 else failure)(text, fix)


def rows(connection: Connection, query: str, judge: Callable[[Any], Finding]) -> Finding:
    """Return the finding on the rows of a query."""
    try:
        found = connection.execute(query).fetchall()
    except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable):
        return OLD_SCHEMA
    except psycopg.errors.QueryCanceled:
        return LATE
    return judge(found)


def psql(address: PostgreSQLAddress) -> str:
    """Return the psql command that connects to a database."""
    return f"psql {shlex.quote(address.url)}"
