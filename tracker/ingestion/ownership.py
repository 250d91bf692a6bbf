"""The ownership of an instance ID, which one process has at a time.

A heartbeat that exists at the start was written either by an earlier process that was killed, or
by another process that is alive. On the same host the process table decides. On different hosts,
a living process renews its heartbeat within the next half minute.
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

#: Seconds by which the measured expiry of a heartbeat may change without a renewal.
_TOLERANCE: Final = 5
#: In place of the value of a key that cannot be a heartbeat.
_NO_HEARTBEAT: Final = b""
#: Reply of PTTL for a key that never expires.
_NO_EXPIRY: Final = -1


class OwnedElsewhere(Exception):
    """Another living process has the instance ID; the message tells the user what to do."""


class Ownership:
    """Determines whether this process owns an instance ID.

    :param identity: identity of this process; None if it is unknown.
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
        self._suspect: tuple[bytes, int] | None = None  # a heartbeat, and the time of its expiry

    async def may_claim(self, value: str) -> bool:
        """Return True if no other process has the ID, False if that is not known yet.

        :param value: the heartbeat of this process, which is written if the key does not exist.
        :raises OwnedElsewhere: if another process has the ID.
        """
        found_value = await self._read()
        if found_value == _NO_HEARTBEAT:
            self._log.warn(
                "{key} replaced: it is not a heartbeat (it has another type, or never expires)",
                key=self._key,
            )
            return True
        if found_value is None:
            written = await self._redis.execute("SET", self._key, value, "NX", "EX", EXPIRY)
            return written is not None
        other = Identity.in_heartbeat(found_value)
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
        suspect, self._suspect = self._suspect, (found_value, expires)
        if suspect is None:
            self._log.warn(
                "heartbeat of {id} was written by another process: waiting to see if it is renewed",
                id=self._instance_id,
            )
            return False
        if suspect[0] == found_value and expires < suspect[1] + _TOLERANCE * 1000:
            return True
        raise self._owned_by("an unknown process" if other is None else str(other))

    async def check(self) -> None:
        """Check that no other process has claimed the ID while this one was stopped.

        :raises OwnedElsewhere: if another process has the ID.
        """
        found_value = await self._read()
        other = None if found_value is None else Identity.in_heartbeat(found_value)
        if other is not None and self._identity is not None and other != self._identity:
            raise self._owned_by(str(other))

    async def _read(self) -> bytes | None:
        """Return the heartbeat in Redis; :data:`_NO_HEARTBEAT` if the key cannot be one.

        Instances set an expiry with every heartbeat, so they have not written a malformed value
        without one.
        """
        try:
            value: bytes | None = await self._redis.execute("GET", self._key)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            return _NO_HEARTBEAT
        if value is None or Identity.in_heartbeat(value) is not None:
            return value
        left = await self._redis.execute("PTTL", self._key)
        return _NO_HEARTBEAT if left == _NO_EXPIRY else value

    def _owned_by(self, owner: str) -> OwnedElsewhere:
        return OwnedElsewhere(
            f"another instance has the ID {self._instance_id} ({owner}); "
            "give each instance its own --instance-id"
        )
