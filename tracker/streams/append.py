"""Appending entries to a stream: all of them or none, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from itertools import chain
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tracker.position import Entry
from tracker.streams.connection import RedisConnection, Refused

# A script and not a pipeline: it is atomic, and a call costs the client some 24 µs
# however many entries are in it. Redis checks memory and role before the script's
# first write, so that it is refused whole. XADD carries no MAXLEN: nothing unread is
# ever trimmed.
_SCRIPT: Final = """\
for i = 1, #ARGV, 4 do
  redis.call('XADD', KEYS[1], '*', 'ts', ARGV[i], 'device_id', ARGV[i + 1],
    'codec', ARGV[i + 2], 'payload', ARGV[i + 3])
end
return #ARGV / 4
"""
_DIGEST: Final = sha1(_SCRIPT.encode("ascii"), usedforsecurity=False).hexdigest()


def append(redis: RedisConnection, stream: str, entries: Iterable[Entry]) -> Deferred[int]:
    """Append entries in one atomic call; fires with their number once Redis has done so.

    Fails with ``Refused`` when none was appended, and with ``Unavailable`` when nobody
    knows.
    """
    arguments: tuple[str | int, ...] = (1, stream, *chain.from_iterable(entries))

    def send_whole_script(failure: Failure) -> Deferred[int]:
        # Redis forgets scripts when it restarts; EVAL teaches it this one again.
        failure.trap(Refused)
        if not failure.getErrorMessage().startswith("NOSCRIPT"):
            failure.raiseException()
        return redis.execute("EVAL", _SCRIPT, *arguments)

    return redis.execute("EVALSHA", _DIGEST, *arguments).addErrback(send_whole_script)
