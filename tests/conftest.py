"""Fixtures that more than one kind of test uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from tests.servers import PostgresServer, RedisServer, SharedRedis, clear_database


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[SharedRedis]:
    """The Redis servers of the tests of this process, one at a time."""
    # In memory, a write costs no fsync: a twentieth of the time. What a killed server has
    # written is there as well.
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    with TemporaryDirectory(prefix="tracker-redis-", dir=memory if roomy else None) as folder:
        shared = SharedRedis(Path(folder))
        yield shared
        shared.end()


@pytest.fixture
def redis(shared_redis: SharedRedis) -> Iterator[RedisServer]:
    """A running server with the settings of a new one, empty, durable at each append.

    A test may kill, suspend and configure it as it likes: the next test gets another one then.
    """
    yield shared_redis.lend()
    shared_redis.give_back()


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server of the tests of this process."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(shared_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A running PostgreSQL server without tables.

    A test may kill and suspend it, and restart it with other options.
    """
    yield shared_postgres
    shared_postgres.clear()


@pytest.fixture(scope="session")
def shared_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database on the server in TRACKER_TEST_POSTGRES, or on one of the tests' own."""
    url = os.environ.get("TRACKER_TEST_POSTGRES")
    if url is None:
        url = str(request.getfixturevalue("shared_postgres").url)
    name = f"tracker_test_{os.getpid()}"
    base, question, options = url.partition("?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{base.rpartition('/')[0]}/{name}{question}{options}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(shared_database: str) -> Iterator[str]:
    """The URL of an empty database, which no other test uses meanwhile."""
    yield shared_database
    clear_database(shared_database)
