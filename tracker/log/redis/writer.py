"""Atomic appends to Redis Streams."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from tracker.log.interfaces import IRecordWriter
from tracker.position import Entry
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script

# A script is used instead of a pipeline because it is atomic, and because a call costs the client
# some 24 µs for any number of entries. Redis checks memory and role before the script's first
# write, and then refuses all of it. XADD has no MAXLEN, which could trim unread entries.
_APPEND: Final = Script("""\
for i = 1, #ARGV, 5 do
  if ARGV[i + 4] == '' then
    redis.call('XADD', KEYS[1], '*', 'ts', ARGV[i], 'device_id', ARGV[i + 1],
      'codec', ARGV[i + 2], 'payload', ARGV[i + 3])
  else
    redis.call('XADD', KEYS[1], '*', 'ts', ARGV[i], 'device_id', ARGV[i + 1],
      'codec', ARGV[i + 2], 'payload', ARGV[i + 3], 'extra', ARGV[i + 4])
  end
end
return #ARGV / 5
""")


@implementer(IRecordWriter)
class RedisWriter:
    """Writer of one Redis stream.

    After a restart, Redis does not know the script: the first call is sent again, with the
    script, and calls that were made before its reply may overtake it.
    """

    def __init__(self, redis: RedisConnection, stream: str) -> None:
        self.stream = stream
        self._redis = redis

    @property
    def connected(self) -> bool:
        """See IRecordWriter."""
        return self._redis.connected

    @property
    def connections(self) -> int:
        """See IRecordWriter."""
        return self._redis.connections

    def when_connected(self) -> Deferred[None]:
        """See IRecordWriter."""
        return self._redis.when_connected()

    def append(self, entries: Iterable[Entry]) -> Deferred[int]:
        """See IRecordWriter."""
        arguments = chain.from_iterable(entries)
        return Deferred.fromCoroutine(_APPEND.run(self._redis, [self.stream], *arguments))
