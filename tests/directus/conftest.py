"""Fixtures with a real Directus, empty or prepared."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from attrs import frozen

from tests.directus.prepared import RESPONSE_TIMEOUT, Prepared, add_user, point_flows_at, prepare
from tests.directus.server import LOCAL_ALLOWED, DirectusServer
from tests.directus.site import Site
from tests.servers import PostgresServer, RedisServer, free_port
from tests.unit.bridge.double import BRIDGE_TOKEN, OPERATOR_TOKEN, UNPRIVILEGED_TOKEN
from tracker.bridge.rest import DirectusClient
from tracker.bridge.schema import OPERATOR_POLICY

pytest.register_assert_rewrite("tests.unit.bridge.behaviour")


@pytest.fixture(scope="session")
def directus_postgres() -> Iterator[PostgresServer]:
    """Provide the PostgreSQL server of all Directus servers."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def empty_directus(
    directus_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return the name of a database with only the system tables of Directus."""
    server = DirectusServer(tmp_path_factory.mktemp("template"), directus_postgres)
    server.make_database()
    return server.database


@pytest.fixture
def start_directus(
    tmp_path: Path, directus_postgres: PostgresServer, empty_directus: str
) -> Iterator[Callable[..., DirectusServer]]:
    """Return a function that starts an empty Directus with environment variables."""
    started: list[DirectusServer] = []

    def start(**variables: str) -> DirectusServer:
        folder = tmp_path / f"directus-{len(started)}"
        server = DirectusServer(folder, directus_postgres, empty_directus, **variables)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.remove()


@pytest.fixture(scope="session")
def directus(
    directus_postgres: PostgresServer,
    empty_directus: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prepared]:
    """Provide a prepared Directus for all tests that change only rows.

    Its Flows may connect to this machine.
    """
    folder = tmp_path_factory.mktemp("directus")
    server = DirectusServer(
        folder, directus_postgres, empty_directus, IMPORT_IP_DENY_LIST=LOCAL_ALLOWED
    )
    try:
        server.start()
        prepared = prepare(server, folder)
        add_user(server, OPERATOR_TOKEN, OPERATOR_POLICY)
        add_user(server, UNPRIVILEGED_TOKEN)
        yield prepared
    finally:
        server.remove()


@frozen
class Real:
    """Clients of the prepared Directus, each with the token of another user."""

    admin: DirectusClient
    bridge: DirectusClient
    operator: DirectusClient
    unprivileged: DirectusClient
    unknown: DirectusClient


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer, directus: Prepared) -> Iterator[Site]:
    """Start a bridge that finds rows by polling, without Flows."""
    directus.wipe()
    made = Site(tmp_path, redis, directus.server, directus.bridge_token_file.parent)
    try:
        yield made.start()
    finally:
        made.end()


@pytest.fixture
def webhook_site(tmp_path: Path, redis: RedisServer, directus: Prepared) -> Iterator[Site]:
    """Start a bridge that the Flows of Directus notify."""
    directus.wipe()
    port = free_port()
    point_flows_at(directus, port)
    made = Site(tmp_path, redis, directus.server, directus.bridge_token_file.parent, port)
    try:
        yield made.start()
    finally:
        made.end()


#: Adds a line to the summary of the run.
Measured = Callable[[str], None]

_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Return a function that shows a measurement in the summary, since output is captured."""
    lines = request.config.stash.setdefault(_MEASURED, [])
    name = request.node.name
    return lambda text: lines.append(f"{name}: {text}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the measurements."""
    lines = config.stash.get(_MEASURED, [])
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest_twisted.async_yield_fixture
async def subject(directus: Prepared) -> AsyncIterator[Real]:
    """Provide clients of the prepared Directus, without rows."""
    from twisted.internet import reactor

    directus.wipe()
    tokens = (
        DirectusServer.TOKEN,
        BRIDGE_TOKEN,
        OPERATOR_TOKEN,
        UNPRIVILEGED_TOKEN,
        "an-invalid-token",
    )
    url = directus.server.url
    clients = [DirectusClient(reactor, url, token, timeout=RESPONSE_TIMEOUT) for token in tokens]
    yield Real(*clients)
    for client in clients:
        await client.close()
