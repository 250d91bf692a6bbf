"""The writer of Redis Streams provides the interface of the log."""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeRedis
from tracker.log.interfaces import IRecordWriter
from tracker.log.redis.writer import RedisWriter


def test_redis_writer_provides_its_interface() -> None:
    redis: Any = FakeRedis()
    verifyObject(IRecordWriter, RedisWriter(redis, "telemetry:teltonika"))
