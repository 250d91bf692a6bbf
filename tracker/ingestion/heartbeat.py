"""Tells the other processes that this instance lives, and which streams it writes.

An instance id belongs to one process at a time. A heartbeat that is there at the start may
be what is left of the process before this one, which was killed, or that of another one
that lives. On the same host the process table tells which; else the next half minute does,
in which a living one would renew it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import asdict, frozen
from twisted.internet.defer import Deferred, TimeoutError, succeed  # noqa: A004
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker import __version__
from tracker.errors import Refused, Unavailable
from tracker.ingestion.gateway import Gateway
from tracker.keys import heartbeat
from tracker.log.redis.advertised import EXPIRY
from tracker.observe.health import Pulse
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.timer import RedisTimer
from tracker.runtime.lifecycle import Abort
from tracker.untrusted import parse_json, shown

#: Seconds between two beats.
INTERVAL: Final = 30
#: Seconds without one, or a vain attempt, after which it is stuck.
STUCK: Final = 150.0
#: Seconds by which a beat may be late, and is one all the same.
_TOLERANCE: Final = 5
#: Characters of the name of a host.
_MAX_NAME: Final = 255

#: Stands for the value of a key that cannot be a heartbeat.
_NO_HEARTBEAT: Final = b""
#: Reply of PTTL for a key that never expires.
_NO_EXPIRY: Final = -1

#: Seconds that a stop waits for Redis to forget it.
WITHDRAWAL_TIMEOUT: Final = 2


@frozen
class Identity:
    """A process, as no other one ever is."""

    host: str
    boot: str
    """Id of the machine's boot."""
    pid: int
    began: int
    """When the process began, in ticks since the boot."""

    def __str__(self) -> str:
        return f"{shown(self.host)}, {self.pid}"

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Of a process on this host; None where there is none."""
        with suppress(OSError, IndexError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            # The name, in brackets, may hold anything; the 20th field behind it is the time.
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            return cls(socket.gethostname(), boot, pid, int(status.rpartition(")")[2].split()[19]))
        return None

    @classmethod
    def in_beat(cls, beat: bytes) -> Identity | None:
        """Of the process that a heartbeat is from, where it tells."""
        try:
            facts = parse_json(beat)
            texts = [facts["host"], facts["boot"]]
            numbers = [facts["pid"], facts["began"]]
        except (ValueError, KeyError, TypeError):
            return None
        if not all(isinstance(text, str) and len(text) <= _MAX_NAME for text in texts):
            return None
        if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
            return None
        return cls(*texts, *numbers)

    def is_beside(self, other: Identity) -> bool:
        """Whether both are processes of one machine since it was booted."""
        return (self.host, self.boot) == (other.host, other.boot)


def _is_hidden(pid: int) -> bool:
    """Whether there is a process of which the process table does not tell (proc(5), hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


class Heartbeat(RedisTimer):
    """Keeps ``instance:heartbeat:{instance_id}`` alive while the instance is.

    :param gateways: stream → the gateway that fills it.
    :param begun: called once, when it is sure that the instance id is this process's.
    :param abort: told when another process lives by the same instance id.
    :param control: where clients find this instance's control port, if it has one.
    :param pulse: beats, too, whether Redis takes the heartbeat or not.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        redis: RedisConnection,
        instance_id: str,
        gateways: Mapping[str, Gateway],
        begun: Callable[[], None],
        abort: Abort,
        control: str | None = None,
        identity: Identity | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        super().__init__(clock, redis, INTERVAL, self._beat)
        self.last_beat = 0.0
        """When Redis last took one; 0 before it has."""
        self._clock = clock
        self._redis = redis
        self._instance_id = instance_id
        self._key = heartbeat(instance_id)
        self._gateways = gateways
        self._begun = begun
        self._abort = abort
        self._control = control
        self._identity = identity or Identity.of(os.getpid())
        self._pulse = pulse or Pulse(STUCK)
        self._ours = False
        self._doubtful: tuple[bytes, int] | None = None  # a beat, and when it would expire
        self._started_at = ""

    def startService(self) -> None:
        """Beat as soon as Redis is there, then regularly."""
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
        """Withdraw the heartbeat, so that nobody waits for it to expire."""
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
                await self._see_that_it_is_ours()
            if (self._ours or begins) and self.running:
                await self._redis.execute("SET", self._key, self._text(), "EX", EXPIRY)
                self.last_beat = self._clock.seconds()
                if begins:  # and Redis has said so: else it is looked at once more
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
        """Whether nobody else lives by this instance id, as far as can be told now."""
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
        other = Identity.in_beat(there)
        if other == self._identity:
            return True
        if other is not None and self._identity is not None and other.is_beside(self._identity):
            found = Identity.of(other.pid)
            if found == other:
                self._refuse(f"process {other.pid} on this host")
                return False
            if found is not None or not _is_hidden(other.pid):
                return True  # it has gone without a word
        left = await self._redis.execute("PTTL", self._key)
        expires = int(self._clock.seconds() * 1000) + left
        doubtful, self._doubtful = self._doubtful, (there, expires)
        if doubtful is None:
            self._log.warn(
                "there is a heartbeat of {id} from elsewhere: ours begins if nobody renews it",
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
        if there is None or Identity.in_beat(there) is not None:
            return there
        left = await self._redis.execute("PTTL", self._key)
        return _NO_HEARTBEAT if left == _NO_EXPIRY else there

    async def _see_that_it_is_ours(self) -> None:
        """Give the id up if another process has begun by it while this one hung."""
        there = await self._there()
        other = None if there is None else Identity.in_beat(there)
        if other is not None and self._identity is not None and other != self._identity:
            self._ours = False  # so that its heartbeat is not withdrawn
            self._refuse(str(other))

    def _refuse(self, who: str) -> None:
        self._abort(
            f"another instance has the id {self._instance_id} ({who}): give each one of its own"
        )
