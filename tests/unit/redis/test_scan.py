"""Iteration with SCAN and its relatives."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.unit.fakes import FakeRedis
from tracker.redis.scan import scan


def test_scan_ends_when_the_cursor_returns_to_zero() -> None:
    pages = {b"0": [b"17", [b"a", b"b"]], b"17": [b"4", []], b"4": [b"0", [b"c"]]}
    fake = FakeRedis(replies={"SSCAN": lambda key, cursor, *options: pages[cursor]})
    redis: Any = fake

    async def read() -> list[list[bytes]]:
        return [page async for page in scan(redis, ["SSCAN", "a set"], "COUNT", 10)]

    found: list[list[list[bytes]]] = []
    Deferred.fromCoroutine(read()).addCallback(found.append)
    assert found == [[[b"a", b"b"], [], [b"c"]]]
    assert fake.sent[1] == ("SSCAN", "a set", b"17", "COUNT", 10)
