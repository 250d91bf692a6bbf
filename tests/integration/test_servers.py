"""The Redis server that tests share, which is clean for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer, SharedRedis


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedRedis]:
    shared = SharedRedis(tmp_path)
    yield shared
    shared.end()


def use(server: RedisServer) -> None:
    server.client.set("key", "value")
    server.client.script_load("return 1")


def test_shared_server_is_cleared_after_a_test(shared: SharedRedis) -> None:
    first = shared.lend()
    use(first)
    shared.give_back()
    second = shared.lend()
    assert second is first
    assert second.client.dbsize() == 0
    assert second.client.info()["number_of_cached_scripts"] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda server: server.kill(),
        lambda server: (server.kill(), server.start()),
        lambda server: server.suspend(),
        lambda server: server.client.config_set("maxmemory", 1),
        lambda server: server.client.config_set("requirepass", "secret"),
        lambda server: server.client.acl_setuser("bob", enabled=True),
        lambda server: server.client.replicaof("127.0.0.1", server.port),
        lambda server: setattr(server, "url", "redis://elsewhere"),
    ],
    ids=["killed", "restarted", "hangs", "setting", "password", "user", "replica", "address"],
)
def test_shared_server_that_a_test_has_changed_is_replaced(
    shared: SharedRedis, change: Callable[[RedisServer], object]
) -> None:
    first = shared.lend()
    use(first)
    change(first)
    shared.give_back()
    second = shared.lend()
    assert second is not first
    assert second.client.dbsize() == 0
