"""Appending entries to a stream: all of them or none, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

from twisted.internet.defer import Deferred

from tracker.position import Entry
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script

# A script and not a pipeline: it is atomic, and a call costs the client some 24 µs
# however many entries are in it. Redis checks memory and role before the script's
# first write, so that it is refused whole. XADD carries no MAXLEN: nothing unread is
# ever trimmed.
_APPEND: Final = Script("""\
for i = 1, #ARGV, 4 do
  redis.call('XADD', KEYS[1], '*', 'ts', ARGV[i], 'device_id', ARGV[i + 1],
    'codec', ARGV[i + 2], 'payload', ARGV[i + 3])
end
return #ARGV / 4
""")


def append(redis: RedisConnection, stream: str, entries: Iterable[Entry]) -> Deferred[int]:
    """Append entries in one atomic call; fires with their number once Redis has done so.

    Fails with ``Refused`` when none was appended, and with ``Unavailable`` when nobody
    knows.
    """
    return Deferred.fromCoroutine(_APPEND.run(redis, [stream], *chain.from_iterable(entries)))
