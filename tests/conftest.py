"""Fixtures that more than one kind of test uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from tests.servers import PostgresServer, RedisServer, SharedRedis


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRedis]:
    """The Redis servers of the tests of this process, one at a time."""
    shared = SharedRedis(tmp_path_factory.mktemp("redis"))
    yield shared
    shared.end()


@pytest.fixture
def redis(shared_redis: SharedRedis) -> Iterator[RedisServer]:
    """A running server with the settings of a new one, empty, durable at each append.

    A test may kill, suspend and configure it as it likes: the next test gets another one then.
    """
    yield shared_redis.lend()
    shared_redis.take_back()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server: the one in TRACKER_TEST_POSTGRES, or one of the tests' own."""
    if url := os.environ.get("TRACKER_TEST_POSTGRES"):
        yield url
        return
    server = PostgresServer()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


_databases = count(1)


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database, for this test alone."""
    name = f"tracker_test_{os.getpid()}_{next(_databases)}"
    base, question, options = postgres_url.partition("?")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{base.rpartition('/')[0]}/{name}{question}{options}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A running server for this test alone, to be killed as it likes."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
