"""The ownership of an instance ID, which one process has at a time.

A heartbeat that exists at the start may be left over from a former process, which was killed, or
be that of another process, which is alive. On the same host the process table shows which; else
the next half minute does, in which a living process would renew it.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused
from tracker.ingestion.identity import Identity, is_hidden
from tracker.keys import heartbeat
from tracker.log.redis.heartbeats import EXPIRY
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type

#: Seconds by which the expiry of a heartbeat may be later though nobody has renewed it.
_TOLERANCE: Final = 5
#: In place of the value of a key that cannot be a heartbeat.
_NO_HEARTBEAT: Final = b""
#: Reply of PTTL for a key that never expires.
_NO_EXPIRY: Final = -1


class Owned(Exception):
    """Another process that is alive has the instance ID; the text tells the user what to do."""


class Ownership:
    """Finds out whether an instance ID belongs to this process.

    :param identity: of this process; None if it is not known.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        instance_id: str,
        identity: Identity | None,
    ) -> None:
        self._clock = clock
        self._redis = redis
        self._instance_id = instance_id
        self._key = heartbeat(instance_id)
        self._identity = identity
        self._doubtful: tuple[bytes, int] | None = None  # a heartbeat, and when it expires

    async def may_begin(self, value: str) -> bool:
        """Return True if no other process has the ID, False if that is not known yet.

        :param value: the heartbeat of this process, which is written if there is none.
        :raises Owned: if another process has it.
        """
        there = await self._there()
        if there == _NO_HEARTBEAT:
            self._log.warn(
                "{key} is not a heartbeat: of another type, or without an expiry. It is replaced.",
                key=self._key,
            )
            return True
        if there is None:
            first = await self._redis.execute("SET", self._key, value, "NX", "EX", EXPIRY)
            return first is not None
        other = Identity.in_heartbeat(there)
        if other == self._identity:
            return True
        if other is not None and self._identity is not None and other.is_beside(self._identity):
            found = Identity.of(other.pid)
            if found == other:
                raise self._owned_by(f"process {other.pid} on this host")
            if found is not None or not is_hidden(other.pid):
                return True  # it was killed
        left = await self._redis.execute("PTTL", self._key)
        expires = int(self._clock.seconds() * 1000) + left
        doubtful, self._doubtful = self._doubtful, (there, expires)
        if doubtful is None:
            self._log.warn(
                "there is a heartbeat of {id} from elsewhere: ours begins if it is not renewed",
                id=self._instance_id,
            )
            return False
        if doubtful[0] == there and expires < doubtful[1] + _TOLERANCE * 1000:
            return True
        raise self._owned_by("a process elsewhere" if other is None else str(other))

    async def check(self) -> None:
        """Check that no other process has begun with the ID while this one hung.

        :raises Owned: if one has.
        """
        there = await self._there()
        other = None if there is None else Identity.in_heartbeat(there)
        if other is not None and self._identity is not None and other != self._identity:
            raise self._owned_by(str(other))

    async def _there(self) -> bytes | None:
        """Return the heartbeat in Redis; :data:`_NO_HEARTBEAT` if the key cannot be one.

        Instances set an expiry with every heartbeat, so a malformed key without one is not theirs.
        """
        try:
            there: bytes | None = await self._redis.execute("GET", self._key)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            return _NO_HEARTBEAT
        if there is None or Identity.in_heartbeat(there) is not None:
            return there
        left = await self._redis.execute("PTTL", self._key)
        return _NO_HEARTBEAT if left == _NO_EXPIRY else there

    def _owned_by(self, who: str) -> Owned:
        return Owned(
            f"another instance has the id {self._instance_id} ({who}): give each one of its own"
        )
