"""A real Directus: empty ones to be set up, and one that is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_twisted
from attrs import frozen

from tests.directus.server import LOCAL_ALLOWED, DirectusServer
from tests.directus.site import Site
from tests.servers import PostgresServer, RedisServer, free_port
from tests.system.processes import run
from tests.unit.bridge.double import BRIDGE_TOKEN, NOBODY_TOKEN, OPERATOR_TOKEN
from tracker.bridge.rest import DirectusClient
from tracker.bridge.schema import OPERATOR_POLICY

pytest.register_assert_rewrite("tests.unit.bridge.behaviour")

#: Seconds for an answer of Directus, and for a command that asks it many times, on a busy machine.
PATIENCE = 60
LONG = 300


@pytest.fixture(scope="session")
def directus_postgres() -> Iterator[PostgresServer]:
    """The server of all databases."""
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
    """The name of a database with Directus' own tables, and nothing else."""
    server = DirectusServer(tmp_path_factory.mktemp("template"), directus_postgres)
    server.make_database()
    return server.database


@pytest.fixture
def start_directus(
    tmp_path: Path, directus_postgres: PostgresServer, empty_directus: str
) -> Iterator[Callable[..., DirectusServer]]:
    """Starts an empty Directus with the variables that it is called with."""
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


@frozen
class Prepared:
    """A Directus that was set up by ``tracker-admin``, with a user of each kind."""

    server: DirectusServer
    token_file: Path
    secret_file: Path
    bridge_token_file: Path
    first: str
    """What the setup has printed."""

    def options(self) -> list[str]:
        """Those that it was set up with."""
        return [
            *("--url", self.server.url, "--token-file", str(self.token_file)),
            *("--secret-file", str(self.secret_file)),
            *("--bridge-token-file", str(self.bridge_token_file)),
        ]

    def wipe(self) -> None:
        """Leave no command and no device."""
        with psycopg.connect(self.server.database_url, autocommit=True) as connection:
            connection.execute("DELETE FROM commands")
            connection.execute("DELETE FROM devices")


@pytest.fixture(scope="session")
def directus(
    directus_postgres: PostgresServer,
    empty_directus: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prepared]:
    """One for all tests that only change rows; its Flows may ask this machine."""
    folder = tmp_path_factory.mktemp("directus")
    server = DirectusServer(
        folder, directus_postgres, empty_directus, IMPORT_IP_DENY_LIST=LOCAL_ALLOWED
    )
    try:
        server.start()
        prepared = prepare(server, folder)
        add_user(server, OPERATOR_TOKEN, OPERATOR_POLICY)
        add_user(server, NOBODY_TOKEN)
        yield prepared
    finally:
        server.remove()


def prepare(server: DirectusServer, folder: Path, *options: str) -> Prepared:
    """Set it up, as an operator does."""
    token_file = folder / "admin"
    token_file.write_text(f"{server.TOKEN}\n")
    bridge_token_file = folder / "bridge"
    bridge_token_file.write_text(f"{BRIDGE_TOKEN}\n")
    prepared = Prepared(server, token_file, folder / "secret", bridge_token_file, "")
    ended = run(
        *("tracker-admin", "directus", "setup", *prepared.options(), *options), timeout=LONG
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Prepared(server, token_file, folder / "secret", bridge_token_file, ended.stdout)


def add_user(server: DirectusServer, token: str, *policies: str) -> str:
    """A user with a static token and some policies; returns its id."""
    made = server.data("POST", "/users", {"first_name": token[:40], "token": token})
    for policy in policies:
        server.data("POST", "/access", {"user": made["id"], "policy": policy})
    user: str = made["id"]
    return user


@frozen
class Real:
    """Clients of the one that was set up."""

    admin: DirectusClient
    bridge: DirectusClient
    operator: DirectusClient
    nobody: DirectusClient
    stranger: DirectusClient


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer, directus: Prepared) -> Iterator[Site]:
    """A bridge that no Flow tells of anything."""
    directus.wipe()
    made = Site(tmp_path, redis, directus.server, directus.bridge_token_file.parent)
    try:
        yield made.start()
    finally:
        made.end()


@pytest.fixture
def hooked(tmp_path: Path, redis: RedisServer, directus: Prepared) -> Iterator[Site]:
    """The same, and the Flows of Directus tell the bridge."""
    directus.wipe()
    port = free_port()
    tell(directus, port)
    made = Site(tmp_path, redis, directus.server, directus.bridge_token_file.parent, port)
    try:
        yield made.start()
    finally:
        made.end()


def tell(directus: Prepared, port: int) -> None:
    """Have its Flows post to a bridge on this machine."""
    ended = run(
        *("tracker-admin", "directus", "setup", *directus.options()),
        *("--bridge-url", f"http://127.0.0.1:{port}/commands"),
        timeout=LONG,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


#: Notes a line for the end of the run.
Measured = Callable[[str], None]

_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Shows what a test has measured, which would be captured otherwise."""
    lines = request.config.stash.setdefault(_MEASURED, [])
    name = request.node.name
    return lambda text: lines.append(f"{name}: {text}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell what was measured."""
    lines = config.stash.get(_MEASURED, [])
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest_twisted.async_yield_fixture
async def subject(directus: Prepared) -> AsyncIterator[Real]:
    """It, without rows."""
    from twisted.internet import reactor

    directus.wipe()
    tokens = (DirectusServer.TOKEN, BRIDGE_TOKEN, OPERATOR_TOKEN, NOBODY_TOKEN, "of-nobody")
    url = directus.server.url
    clients = [DirectusClient(reactor, url, token, timeout=PATIENCE) for token in tokens]
    yield Real(*clients)
    for client in clients:
        await client.close()
