"""How far a consumer group is behind its stream."""

from __future__ import annotations

from attrs import frozen

from tracker.streams.connection import RedisConnection, Refused


@frozen
class Lag:
    """What a group has not finished."""

    undelivered: int | None
    """Entries that no consumer was given yet; None where Redis cannot tell."""
    pending: int
    """Entries that were given to a consumer and are not acknowledged."""

    @property
    def total(self) -> int | None:
        """Entries not yet stored; None where Redis cannot tell."""
        return None if self.undelivered is None else self.undelivered + self.pending


async def group_lag(redis: RedisConnection, stream: str, group: str) -> Lag | None:
    """The lag of ``group`` on ``stream``; None while there is no such stream or group."""
    try:
        groups = await redis.execute("XINFO", "GROUPS", stream)
    except Refused as error:
        if "no such key" in str(error):
            return None
        raise
    for fields in groups:
        facts = dict(zip(fields[::2], fields[1::2], strict=True))
        if facts[b"name"] == group.encode():
            return Lag(facts.get(b"lag"), facts[b"pending"])
    return None
