"""Processors on a real Redis, and helpers that inspect its streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tracker.interfaces import INaming, IPositionSink
from tracker.keys import PROCESSOR_GROUP
from tracker.observe.health import Health
from tracker.position import Position
from tracker.processing.consumer import BatchOptions
from tracker.processing.service import process_role

STREAM = "telemetry:teltonika"

IMEI = "356307042441013"


def append(redis: RedisServer, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        position = Position(
            IMEI, f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z",
            41.3, 19.8, 110, 214, 43, 14, 0, 0, {"239": 1},
        )  # fmt: skip
        redis.client.xadd(STREAM, position.to_entry("8E")._asdict())


class Processing:
    """A running process role on a real server."""

    def __init__(
        self,
        redis: RedisServer,
        sink: IPositionSink,
        name: str = "one",
        options: BatchOptions | None = None,
        namings: Mapping[str, INaming] | None = None,
        streams: Sequence[str] = (STREAM,),
    ) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed

        self.health = Health()
        self.metrics_registry = CollectorRegistry()
        self.aborted: list[str] = []
        self.role = process_role(
            reactor=reactor,
            address=redis.address,
            vendors=dict.fromkeys(streams, "teltonika"),
            consumer=name,
            sink=sink,
            health=self.health,
            abort=self.aborted.append,
            options=options or BatchOptions(),
            namings=namings,
            metrics_registry=self.metrics_registry,
        )
        self.role.startService()

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a metric."""
        return self.metrics_registry.get_sample_value(f"tracker_{name}", labels)

    def of_stream(self, name: str) -> float | None:
        """Return the value of a metric of the stream."""
        return self.value(name, stream=STREAM)

    async def stop(self) -> None:
        await self.role.stopService()


def pending(redis: RedisServer) -> int:
    if not redis.client.exists(STREAM) or not redis.client.xinfo_groups(STREAM):
        return -1
    return int(redis.client.xpending(STREAM, PROCESSOR_GROUP)["pending"])


def lag(redis: RedisServer) -> int:
    groups: Any = redis.client.xinfo_groups(STREAM)
    # Redis does not report the lag of a group that starts between two entries and has read none.
    if not groups or groups[0]["lag"] is None:
        return -1
    return int(groups[0]["lag"]) + int(groups[0]["pending"])


def set_idle(redis: RedisServer, seconds: float = 30.0) -> None:
    """Set the idle time of all pending entries."""
    for entry in redis.client.xpending_range(STREAM, PROCESSOR_GROUP, "-", "+", 1000):
        redis.client.xclaim(
            STREAM,
            PROCESSOR_GROUP,
            entry["consumer"],
            0,
            [entry["message_id"]],
            idle=int(seconds * 1000),
            justid=True,
        )


def stored_times(*sinks: FakeSink) -> list[str]:
    """Return the times of all stored positions, in ascending order."""
    batches = (batch for sink in sinks for batch in sink.batches)
    return sorted(row.position.timestamp for batch in batches for row in batch.positions)


#: Options of a processor that claims entries after a second.
QUICK_CLAIMS = BatchOptions(claim_after=1.0)
