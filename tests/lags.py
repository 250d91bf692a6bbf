"""A lag that cannot be determined."""

from __future__ import annotations

from tests.servers import RedisServer
from tracker.log.redis.lag import MAX_COUNTED


def make_lag_unknown(redis: RedisServer, stream: str) -> None:
    """Append more entries than are counted, and delete one, so that Redis reports no lag."""
    pipeline = redis.client.pipeline()
    for _ in range(MAX_COUNTED + 2):
        pipeline.xadd(stream, {"payload": "x"})
    pipeline.execute()
    redis.client.xdel(stream, redis.client.xrevrange(stream, count=2)[1][0])
    assert None in [group["lag"] for group in redis.client.xinfo_groups(stream)]
