"""Keeps the heartbeat of an instance: that it is alive, and which streams it writes.

An instance id belongs to one process at a time. A heartbeat that exists at the start may be
left over from a former process, which was killed, or be that of another process, which is
alive. On the same host the process table shows which; else the next half minute does, in which
a living process would renew it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import asdict
from twisted.internet.defer import Deferred, TimeoutError, succeed  # noqa: A004
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker import __version__
from tracker.errors import Refused, Unavailable
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.identity import Identity, is_hidden
from tracker.keys import heartbeat
from tracker.log.redis.advertised import EXPIRY
from tracker.observe.health import Pulse
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.timer import RedisTimer
from tracker.runtime.lifecycle import Abort

#: Seconds between two heartbeats.
INTERVAL: Final = 30
#: Seconds without an attempt after which the loop is stuck.
PULSE_TIMEOUT: Final = 150.0
#: Seconds by which the expiry of a heartbeat may be later though nobody has renewed it.
_TOLERANCE: Final = 5

#: In place of the value of a key that cannot be a heartbeat.
_NO_HEARTBEAT: Final = b""
#: Reply of PTTL for a key that never expires.
_NO_EXPIRY: Final = -1

#: Seconds that a stop waits for Redis to delete the heartbeat.
WITHDRAWAL_TIMEOUT: Final = 2


class Heartbeat(RedisTimer):
    """Renews ``instance:heartbeat:{instance_id}`` while the instance is alive.

    :param gateways: stream → the gateway that appends to it.
    :param begun: called once, when it is sure that the instance id belongs to this process.
    :param abort: called with the reason if another process that is alive has the instance id.
    :param control: address of this instance's control port, if it has one.
    :param identity: of this process; None: it is looked up.
    :param pulse: beats at each attempt, whether Redis takes the heartbeat or not.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        instance_id: str,
        gateways: Mapping[str, Gateway],
        *,
        begun: Callable[[], None],
        abort: Abort,
        control: str | None = None,
        identity: Identity | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        super().__init__(clock, redis, INTERVAL, self._beat)
        self.last_beat = 0.0
        """Time at which Redis last took a heartbeat; 0 before."""
        self._clock = clock
        self._redis = redis
        self._instance_id = instance_id
        self._key = heartbeat(instance_id)
        self._gateways = gateways
        self._begun = begun
        self._abort = abort
        self._control = control
        self._identity = identity or Identity.of(os.getpid())
        self._pulse = pulse or Pulse(PULSE_TIMEOUT)
        self._ours = False
        self._doubtful: tuple[bytes, int] | None = None  # a heartbeat, and when it expires
        self._started_at = ""

    def startService(self) -> None:
        """Write the heartbeat as soon as Redis is connected, then regularly."""
        self._started_at = iso_milliseconds(int(self._clock.seconds() * 1000))
        super().startService()

    async def _withdraw(self, beating: Deferred[None]) -> None:
        await beating
        if self._ours:
            await self._redis.execute("DEL", self._key)

    def _not_withdrawn(self, failure: Failure) -> None:
        failure.trap(Refused, Unavailable, TimeoutError)
        self._log.info("heartbeat not withdrawn: it expires in {seconds} s", seconds=EXPIRY)

    def stopService(self) -> Deferred[None]:
        """Delete the heartbeat, so that other processes need not wait for it to expire."""
        if not self.running:
            return succeed(None)
        self._pulse.rest()
        withdrawn = Deferred.fromCoroutine(self._withdraw(super().stopService()))
        return withdrawn.addTimeout(WITHDRAWAL_TIMEOUT, self._clock).addErrback(self._not_withdrawn)

    async def _beat(self) -> None:
        self._pulse.beat()
        try:
            begins = not self._ours and await self._may_begin()
            if self._ours:
                await self._check_owner()
            if (self._ours or begins) and self.running:
                await self._redis.execute("SET", self._key, self._text(), "EX", EXPIRY)
                self.last_beat = self._clock.seconds()
                if begins:  # and Redis has confirmed it: otherwise it is checked again
                    self._ours = True
                    self._begun()
        except (Refused, Unavailable) as error:
            # The connection reports an outage; the next beat is due anyway.
            self._log.debug("no heartbeat: {error}", error=error)

    def _text(self) -> str:
        beat: dict[str, Any] = {
            "started_at": self._started_at,
            "version": __version__,
            "connections": sum(gateway.connections for gateway in self._gateways.values()),
            "streams": sorted(self._gateways),
        }
        if self._control is not None:
            beat["control"] = self._control
        if self._identity is not None:
            beat |= asdict(self._identity)
        return json.dumps(beat)

    async def _may_begin(self) -> bool:
        """Return True if no other living process has this instance id, as far as is known."""
        there = await self._there()
        if there == _NO_HEARTBEAT:
            self._log.warn(
                "{key} is not a heartbeat: of another type, or without an expiry. It is replaced.",
                key=self._key,
            )
            return True
        if there is None:
            first = await self._redis.execute("SET", self._key, self._text(), "NX", "EX", EXPIRY)
            return first is not None
        other = Identity.in_heartbeat(there)
        if other == self._identity:
            return True
        if other is not None and self._identity is not None and other.is_beside(self._identity):
            found = Identity.of(other.pid)
            if found == other:
                self._refuse(f"process {other.pid} on this host")
                return False
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
        self._refuse("a process elsewhere" if other is None else str(other))
        return False

    async def _there(self) -> bytes | None:
        """Return the heartbeat in Redis; :data:`_NO_HEARTBEAT` if the key cannot be one.

        Instances set an expiry with every beat, so a malformed key without one is not theirs.
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

    async def _check_owner(self) -> None:
        """Give up the instance id if another process has begun with it while this one hung."""
        there = await self._there()
        other = None if there is None else Identity.in_heartbeat(there)
        if other is not None and self._identity is not None and other != self._identity:
            self._ours = False  # so that its heartbeat is not withdrawn
            self._refuse(str(other))

    def _refuse(self, who: str) -> None:
        self._abort(
            f"another instance has the id {self._instance_id} ({who}): give each one of its own"
        )
