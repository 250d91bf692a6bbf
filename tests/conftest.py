"""Fixtures that more than one kind of test uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.servers import PostgresServer, RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A running server, durable at each append, for this test alone."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


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
