"""Take a sample of Redis every two seconds, and publish it to all browsers."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from attrs import frozen
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.console.commands import CommandLog
from tracker.console.events import event
from tracker.console.history import History
from tracker.console.ports import ControlPorts
from tracker.console.snapshot import MAX_INSTANCES, Part, Snapshot, unknown_reason
from tracker.errors import Refused, Unavailable
from tracker.keys import PROCESSOR_GROUP, RESPONSES
from tracker.log.entries import StreamEntry
from tracker.log.redis.dead import DeadLetter
from tracker.log.redis.heartbeats import InstanceHeartbeat
from tracker.log.redis.lag import GroupLag, StreamLag
from tracker.log.redis.stranded import StrandedStream
from tracker.observe.health import Watchdog
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.position import MAX_SAFE_INTEGER
from tracker.redis.protocol import is_wrong_type
from tracker.settings import duration
from tracker.untrusted import shown

#: Seconds between two samples.
INTERVAL: Final = 2.0
#: Seconds without a sample after which the watchdog expires.
WATCHDOG_TIMEOUT: Final = 150.0
#: Number of samples over which rates are averaged.
_RATE_SAMPLES: Final = 6
#: Maximum number of commands, and of dead letters, in the overview.
MAX_COMMANDS: Final = 20
MAX_LETTERS: Final = 20
#: Maximum number of consumers per group; those with the most pending entries come first.
MAX_CONSUMERS: Final = 30
#: Malformed keys that are listed.
MAX_MALFORMED: Final = 5
#: Maximum length of a dead letter's reason, in characters.
MAX_REASON_LENGTH: Final = 300

UP_TO_DATE: Final = "up to date"
BEHIND: Final = "behind"
FAR_BEHIND: Final = "far behind"
NOT_READ: Final = "not read"
SKIPPED: Final = "skipped"

#: Fields of a stream that no group reads.
_NO_GROUP: Final = {
    "group": None,
    "undelivered": None,
    "pending": 0,
    "consumers": (),
    "consumer_count": 0,
}

_SEE_LOG: Final = "; see the console's log"


@frozen
class Thresholds:
    """Ages that make a group behind or far behind. Each is an option of the same name."""

    behind: float = duration(
        10.0,
        0.1,
        86_400,
        "Show a group as behind if its oldest unprocessed entry is this old.",
    )
    far_behind: float = duration(
        60.0,
        0.1,
        86_400,
        "Show a group as far behind from this age, which must exceed --behind.",
    )

    def lag_state(self, group: GroupLag) -> str:
        """Return the state of a group: up to date, behind or far behind.

        Only the age counts: a thousand entries are one batch for a processor, and a single entry is
        too much if no consumer reads it.
        """
        if group.oldest_age >= self.far_behind:
            return FAR_BEHIND
        return BEHIND if group.oldest_age >= self.behind else UP_TO_DATE


@frozen
class _Totals:
    at: float
    added: dict[str, int]
    """Stream → number of entries ever appended."""
    done: dict[str, int]
    """Stream → number of entries that the processors have finished, if Redis reports the lag."""


class Sampler(TimerService):
    """Service that takes samples, publishes them, and keeps the figures of an hour.

    :param take_snapshot: reads Redis.
    :param publish: called with each sample, as an encoded event.
    :param watchdog: reset at each sample, even if Redis is not available.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        take_snapshot: Callable[[], Awaitable[Snapshot]],
        commands: CommandLog,
        ports: ControlPorts,
        thresholds: Thresholds,
        publish: Callable[[bytes], None],
        watchdog: Watchdog | None = None,
    ) -> None:
        super().__init__(INTERVAL, self.sample)
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self.clock = self._clock = clock
        self._take_snapshot = take_snapshot
        self._commands = commands
        self._ports = ports
        self._thresholds = thresholds
        self._publish = publish
        self._history = History()
        self._totals: deque[_Totals] = deque(maxlen=_RATE_SAMPLES)
        self._latest: dict[str, Any] | None = None
        self._sampling = False
        self._redis_reason = ""  # of the last sample; empty if it succeeded
        self._refused = ""  # error of a part of the last sample; empty if all were read
        self._malformed_keys = MalformedKeyLog(clock, self._log)

    def redis_is(self, reason: str | None) -> None:
        """Note why the connection to Redis is not usable, or None if it is."""
        if reason is None and self.running:
            Deferred.fromCoroutine(self.sample())  # without waiting for the interval

    def stopService(self) -> Deferred[Any]:
        """Stop taking samples; the Deferred fires when the last one is done."""
        self._watchdog.suspend()
        stopped: Deferred[Any] = super().stopService()
        return stopped

    @property
    def commands_error(self) -> str | None:
        """The reason why the latest commands are unknown or old; None if they are known."""
        if self._latest is None:
            return "no data yet"
        reason: str | None = self._latest["redis"] or self._latest["unknown"].get(Part.COMMANDS)
        return reason

    def first_events(self) -> Iterable[bytes]:
        """Return the events for a new browser."""
        yield event("history", self._history.as_json())
        if self._latest is not None:
            yield event("overview", self._latest)

    async def sample(self) -> None:
        """Take a sample and publish it; do nothing while another one is taken."""
        if self._sampling:
            return
        self._sampling = True
        self._watchdog.reset()
        try:
            overview = await self._overview()
            self._redis_reason = ""
        except (Refused, Unavailable) as error:
            self._totals.clear()
            reason = (
                "Redis refused a command"
                if isinstance(error, Refused)
                else "Redis is not available"
            )
            if reason != self._redis_reason and isinstance(error, Refused):
                # A lost connection is logged as a condition of readiness.
                self._log.warn("sample failed: Redis refused a command: {error}", error=error)
            overview = {"at": self._clock.seconds(), "redis": reason + _SEE_LOG}
            self._redis_reason = reason
        except Exception:  # noqa: BLE001 - an exception would end the timer
            self._log.failure("sample failed: unexpected error")
            overview = {"at": self._clock.seconds(), "redis": f"internal error{_SEE_LOG}"}
        finally:
            self._sampling = False
        self._latest = overview
        self._publish(event("overview", overview))

    async def _overview(self) -> dict[str, Any]:
        snapshot = await self._take_snapshot()
        malformed, unknown = await self._faults(snapshot)
        self._ports.keep(snapshot.heartbeats[:MAX_INSTANCES])
        now = self._clock.seconds()
        rates = self._rates(now, snapshot.lags)
        lags = self._lags(snapshot)
        figures: dict[str, float | None] = {**rates, "connected": snapshot.connected}
        for row in lags:
            figures[f"entries {row['stream']} {row['group']}"] = row["total"]
            figures[f"age {row['stream']} {row['group']}"] = row["age"]
        return {
            "at": now,
            "redis": None,
            "unknown": unknown,
            "lag": lags,
            "streams_left_out": snapshot.left_out,
            "malformed": {
                "count": len(malformed),
                "first": [
                    {"key": key, "reason": why}
                    for key, why in list(malformed.items())[:MAX_MALFORMED]
                ],
            },
            "rates": rates,
            "connected": snapshot.connected,
            "instances": [
                self._instance(heartbeat) for heartbeat in snapshot.heartbeats[:MAX_INSTANCES]
            ],
            "instance_count": None if Part.INSTANCES in unknown else len(snapshot.heartbeats),
            "commands": {
                "counts": self._commands.counts(),
                "queued": snapshot.queued,
                "waiting": snapshot.waiting,
                "latest": self._commands.latest(MAX_COMMANDS),
            },
            "dead": {
                "total": None
                if Part.DEAD in unknown
                else sum(dead.total for dead in snapshot.dead),
                "latest": _letters(snapshot),
            },
            "can_send": self._ports.permission == "operate",
            "point": self._history.add(now, figures),
        }

    async def _faults(self, snapshot: Snapshot) -> tuple[dict[str, str], dict[Part, str]]:
        """Read the latest commands, and log the faults of a sample.

        :return: malformed key → what is wrong with it, and unknown part → the reason.
        """
        malformed, unknown = dict(snapshot.malformed), dict(snapshot.unknown)
        refused = snapshot.refused
        try:
            await self._commands.update(snapshot.entries)
        except Refused as error:
            if is_wrong_type(error):
                malformed[RESPONSES] = "not a stream"
            else:
                refused = refused or str(error)
            unknown[Part.COMMANDS] = unknown_reason(error, RESPONSES, "a stream")
        if refused != self._refused:
            self._refused = refused
            if refused:
                self._log.warn("sample is incomplete: Redis refused: {error}", error=refused)
        for key, why in malformed.items():
            self._malformed_keys.report(
                key, why, "Rename or delete the key, or stop what writes it."
            )
        return malformed, unknown

    def _lags(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        lags = [row for lag in snapshot.lags for row in self._groups(lag)]
        if snapshot.responses is not None and snapshot.responses.groups:
            lags += self._groups(snapshot.responses)
        for row in lags:
            if row["group"] == PROCESSOR_GROUP:
                row["skipped"] = snapshot.skipped.get(row["stream"], 0)
                if row["skipped"]:
                    row["state"] = SKIPPED
        return [*lags, *map(_stranded, snapshot.stranded)]

    def _groups(self, lag: StreamLag) -> list[dict[str, Any]]:
        about = {"stream": lag.stream, "stream_entries": lag.entries}
        if not lag.groups:
            # Without a group no lag grows, and the backlog would go unnoticed.
            state = NOT_READ if lag.entries else UP_TO_DATE
            return [{**about, **_NO_GROUP, "total": None, "age": None, "state": state}]
        return [{**about, **self._group(group)} for group in lag.groups]

    def _group(self, group: GroupLag) -> dict[str, Any]:
        consumers = sorted(group.consumers, key=lambda one: (-one.pending, one.idle, one.name))
        return {
            "group": group.name,
            "total": group.total,
            "undelivered": group.undelivered,
            "pending": group.pending,
            "age": group.oldest_age,
            "state": self._thresholds.lag_state(group),
            "consumers": [
                {"name": one.name, "pending": one.pending, "idle": one.idle}
                for one in consumers[:MAX_CONSUMERS]
            ],
            "consumer_count": group.consumer_count,
        }

    def _instance(self, heartbeat: InstanceHeartbeat) -> dict[str, Any]:
        return {
            "id": heartbeat.instance_id,
            "age": round(heartbeat.age, 1),
            "connections": _number(heartbeat.facts.get("connections")),
            "version": _text(heartbeat.facts.get("version")),
            "started_at": _text(heartbeat.facts.get("started_at")),
            "host": _text(heartbeat.facts.get("host")),
            "streams": heartbeat.streams[:20],
            "control": self._ports.describe(heartbeat.instance_id),
        }

    def _rates(self, now: float, lags: Sequence[StreamLag]) -> dict[str, float | None]:
        """Return records per second in, and out (stored by the processors); None while unknown."""
        added = {lag.stream: lag.added for lag in lags}
        done = {}
        for lag in lags:
            group = lag.group(PROCESSOR_GROUP)
            if group is not None and group.total is not None:
                done[lag.stream] = lag.added - group.total
        self._totals.append(_Totals(now, added, done))
        first, last = self._totals[0], self._totals[-1]
        seconds = last.at - first.at
        return {
            "in": _rate(first.added, last.added, seconds),
            "out": _rate(first.done, last.done, seconds) if done else None,
        }


def _stranded(stream: StrandedStream) -> dict[str, Any]:
    about = {
        "stream": shown(stream.name),
        "stream_entries": stream.entries,
        "total": stream.entries,
    }
    return {**about, **_NO_GROUP, "age": stream.oldest_age, "state": NOT_READ, "stranded": True}


def _rate(before: dict[str, int], after: dict[str, int], seconds: float) -> float | None:
    if seconds <= 0:
        return None
    both = before.keys() & after.keys()
    # The counter of a stream that was deleted and created again restarts at 0.
    return round(sum(max(0, after[one] - before[one]) for one in both) / seconds, 2)


def _letters(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the latest dead letters of all streams, newest first."""
    rows = [(letter, dead.stream) for dead in snapshot.dead for letter in dead.latest]
    rows.sort(key=lambda row: _order(row[0]), reverse=True)
    return [
        {
            "stream": stream,
            "id": letter.id,
            "at": StreamEntry(stream, letter.id, None).appended_at,
            "original_id": shown(letter.original_id),
            "reason": shown(letter.reason, MAX_REASON_LENGTH),
            "attempts": letter.attempts,
            "device_id": letter.device_id,
        }
        for letter, stream in rows[:MAX_LETTERS]
    ]


def _order(letter: DeadLetter) -> tuple[int, int]:
    milliseconds, _, number = letter.id.partition("-")
    return int(milliseconds), int(number)


def _number(value: Any) -> int | None:
    """Return a count; None if it is not one, or too large for a browser to show exactly."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SAFE_INTEGER:
        return None
    return value


def _text(value: Any) -> str:
    return shown(value, 100) if isinstance(value, str) else ""
