"""Fixtures of several kinds of tests: servers and databases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from tests.servers import (
    REDIS_70,
    VALKEY,
    PostgresServer,
    RedisServer,
    SharedRedis,
    clear_database,
    redis_70,
)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[dict[str, SharedRedis]]:
    """Yield program → the server of this program that all tests of this process share."""
    # On a file system in memory an fsync costs nothing, and tests take a twentieth of the time. The
    # data of a killed server is still kept.
    memory = Path("/dev/shm")
    has_space = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    with TemporaryDirectory(prefix="tracker-redis-", dir=memory if has_space else None) as folder:
        programs = {VALKEY: None, REDIS_70: redis_70()}
        shared = {one: SharedRedis(Path(folder) / one, path) for one, path in programs.items()}
        yield shared
        for server in shared.values():
            server.end()


@pytest.fixture
def redis_program() -> str:
    """Return the program of the server; a test that is parametrised with it uses several ones."""
    return VALKEY


@pytest.fixture
def redis(shared_redis: dict[str, SharedRedis], redis_program: str) -> Iterator[RedisServer]:
    """Yield a running, empty server with the initial settings and an fsync at each write.

    A test may kill, suspend and configure it; the next test then gets another server.
    """
    if redis_program == REDIS_70 and redis_70() is None:
        why = "no Redis 7.0 on PATH: install Debian 12's package redis-tools"
        (pytest.fail if "CI" in os.environ else pytest.skip)(why)
    yield shared_redis[redis_program].lend()
    shared_redis[redis_program].give_back()


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """Yield the PostgreSQL server that all tests of this process share."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(shared_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Yield a running PostgreSQL server without tables.

    A test may kill and suspend it, and restart it with other options.
    """
    yield shared_postgres
    shared_postgres.clear()


@pytest.fixture(scope="session")
def shared_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a database, on the server in TRACKER_TEST_POSTGRES or on our own one."""
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
    """Yield the URL of an empty database, which no other test uses meanwhile."""
    yield shared_database
    clear_database(shared_database)
