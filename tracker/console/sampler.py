"""Read Redis every two seconds, and publish the result to all browsers."""

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
from tracker.console.look import MOST_INSTANCES, Look
from tracker.console.ports import ControlPorts
from tracker.errors import Refused, Unavailable
from tracker.keys import PROCESSOR_GROUP, RESPONSES
from tracker.log.entries import Delivered
from tracker.log.redis.dead import DeadLetter
from tracker.log.redis.heartbeats import InstanceHeartbeat
from tracker.log.redis.lag import GroupLag, StreamLag
from tracker.observe.health import Watchdog
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.position import MAX_SAFE_INTEGER
from tracker.redis.protocol import is_wrong_type
from tracker.settings import setting
from tracker.untrusted import shown

#: Seconds between two looks.
INTERVAL: Final = 2.0
#: Seconds without one after which it is stuck.
WATCHDOG_TIMEOUT: Final = 150.0
#: Looks over which rates are averaged.
_RATE_LOOKS: Final = 6
#: Commands, and dead letters, of the overview.
MOST_COMMANDS: Final = 20
MOST_LETTERS: Final = 20
#: Consumers of a group that are shown, the busiest first.
MOST_CONSUMERS: Final = 30
#: Malformed keys that are listed.
MAX_MALFORMED: Final = 5
#: Characters of a dead letter's reason.
MOST_REASON: Final = 300

UP_TO_DATE: Final = "up to date"
BEHIND: Final = "behind"
FAR_BEHIND: Final = "far behind"
NOT_READ: Final = "not read"

_SEE_LOG: Final = "; see the console's log"


@frozen
class Thresholds:
    """Ages from which on a group is called behind. Each is an option of the same name."""

    behind: float = setting(
        10.0, 0.1, 86_400, "Age in seconds of the oldest unprocessed entry that is called behind."
    )
    far_behind: float = setting(
        60.0, 0.1, 86_400, "The same for what is called far behind; more than --behind."
    )

    def word(self, group: GroupLag) -> str:
        """Return in a word how far a group is behind.

        The number of entries alone does not show it: a thousand are one batch, and a single one is
        too much if no consumer reads.
        """
        if group.oldest_age >= self.far_behind:
            return FAR_BEHIND
        return BEHIND if group.oldest_age >= self.behind else UP_TO_DATE


@frozen
class _Totals:
    at: float
    added: dict[str, int]
    """Stream → entries that were ever appended."""
    done: dict[str, int]
    """Stream → those of them that the processors have finished, where Redis can tell."""


class Sampler(TimerService):
    """Takes samples, keeps an hour of them, and publishes each.

    :param see: reads Redis.
    :param publish: called with each sample, as an event that is encoded once.
    :param watchdog: is reset at each sample, whether Redis is there or not.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        see: Callable[[], Awaitable[Look]],
        commands: CommandLog,
        ports: ControlPorts,
        thresholds: Thresholds,
        publish: Callable[[bytes], None],
        watchdog: Watchdog | None = None,
    ) -> None:
        super().__init__(INTERVAL, self.sample)
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self.clock = self._clock = clock
        self._see = see
        self._commands = commands
        self._ports = ports
        self._thresholds = thresholds
        self._publish = publish
        self._history = History()
        self._totals: deque[_Totals] = deque(maxlen=_RATE_LOOKS)
        self._latest: dict[str, Any] | None = None
        self._sampling = False
        self._told = ""  # the reason why Redis cannot be asked
        self._malformed_keys = MalformedKeyLog(clock, self._log)

    def redis_is(self, reason: str | None) -> None:
        """Note why the connection to Redis is not usable, or None if it is."""
        if reason is None and self.running:
            Deferred.fromCoroutine(self.sample())  # nobody should wait for the next one

    def stopService(self) -> Deferred[Any]:
        """Take no more samples; fires when the last one is done."""
        self._watchdog.suspend()
        stopped: Deferred[Any] = super().stopService()
        return stopped

    def first_events(self) -> Iterable[bytes]:
        """Return the events for a new browser."""
        yield event("history", self._history.as_json())
        if self._latest is not None:
            yield event("overview", self._latest)

    async def sample(self) -> None:
        """Take a sample, and publish it; not while another one is taken."""
        if self._sampling:
            return
        self._sampling = True
        self._watchdog.reset()
        try:
            overview = await self._overview()
            self._told = ""
        except (Refused, Unavailable) as error:
            self._totals.clear()
            why = "it refuses what the console asks" if isinstance(error, Refused) else "no answer"
            if why != self._told and isinstance(error, Refused):
                # A lost connection is logged as a condition of readiness.
                self._log.warn("Redis refuses a sample: {error}", error=error)
            overview = {"at": self._clock.seconds(), "redis": why + _SEE_LOG}
            self._told = why
        except Exception:  # noqa: BLE001 - else it would never look again
            self._log.failure("no sample was taken")
            overview = {"at": self._clock.seconds(), "redis": f"an internal error{_SEE_LOG}"}
        finally:
            self._sampling = False
        self._latest = overview
        self._publish(event("overview", overview))

    async def _overview(self) -> dict[str, Any]:
        seen = await self._see()
        malformed = dict(seen.malformed)
        try:
            await self._commands.look(seen.entries)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            malformed[RESPONSES] = "wrong type"
        for key, why in malformed.items():
            self._malformed_keys.report(
                key, why, "Rename or delete the key, or stop what writes it."
            )
        self._ports.keep(seen.heartbeats[:MOST_INSTANCES])
        now = self._clock.seconds()
        rates = self._rates(now, seen.lags)
        lags = [row for lag in seen.lags for row in self._groups(lag)]
        if seen.responses is not None and seen.responses.groups:
            lags += self._groups(seen.responses)
        figures: dict[str, float | None] = {**rates, "connected": seen.connected}
        for row in lags:
            figures[f"entries {row['stream']} {row['group']}"] = row["total"]
            figures[f"age {row['stream']} {row['group']}"] = row["age"]
        return {
            "at": now,
            "redis": None,
            "lag": lags,
            "streams_left_out": seen.left_out,
            "malformed": {
                "count": len(malformed),
                "first": [
                    {"key": key, "why": why} for key, why in list(malformed.items())[:MAX_MALFORMED]
                ],
            },
            "rates": rates,
            "connected": seen.connected,
            "instances": [self._instance(beat) for beat in seen.heartbeats[:MOST_INSTANCES]],
            "instance_count": len(seen.heartbeats),
            "commands": {
                "counts": self._commands.counts(),
                "queued": seen.queued,
                "waiting": seen.waiting,
                "latest": self._commands.latest(MOST_COMMANDS),
            },
            "dead": {
                "total": sum(dead.total for dead in seen.dead),
                "latest": _letters(seen),
            },
            "sends": self._ports.permission == "operate",
            "point": self._history.add(now, figures),
        }

    def _groups(self, lag: StreamLag) -> list[dict[str, Any]]:
        about = {"stream": lag.stream, "stream_entries": lag.entries}
        if not lag.groups:
            # What nobody reads is the worst that can be: nobody would notice.
            word = NOT_READ if lag.entries else UP_TO_DATE
            none = {"group": None, "total": None, "undelivered": None, "pending": 0, "age": None}
            return [{**about, **none, "word": word, "consumers": [], "consumer_count": 0}]
        return [{**about, **self._group(group)} for group in lag.groups]

    def _group(self, group: GroupLag) -> dict[str, Any]:
        consumers = sorted(group.consumers, key=lambda one: (-one.pending, one.idle, one.name))
        return {
            "group": group.name,
            "total": group.total,
            "undelivered": group.undelivered,
            "pending": group.pending,
            "age": group.oldest_age,
            "word": self._thresholds.word(group),
            "consumers": [
                {"name": one.name, "pending": one.pending, "idle": one.idle}
                for one in consumers[:MOST_CONSUMERS]
            ],
            "consumer_count": group.consumer_count,
        }

    def _instance(self, beat: InstanceHeartbeat) -> dict[str, Any]:
        return {
            "id": beat.instance_id,
            "age": round(beat.age, 1),
            "connections": _number(beat.facts.get("connections")),
            "version": _text(beat.facts.get("version")),
            "started_at": _text(beat.facts.get("started_at")),
            "host": _text(beat.facts.get("host")),
            "streams": beat.streams[:20],
            "control": self._ports.describe(beat.instance_id),
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


def _rate(before: dict[str, int], after: dict[str, int], seconds: float) -> float | None:
    if seconds <= 0:
        return None
    both = before.keys() & after.keys()
    # A stream that was made anew begins at nothing again.
    return round(sum(max(0, after[one] - before[one]) for one in both) / seconds, 2)


def _letters(seen: Look) -> list[dict[str, Any]]:
    """The latest dead letters of all streams, newest first."""
    rows = [(letter, dead.stream) for dead in seen.dead for letter in dead.latest]
    rows.sort(key=lambda row: _order(row[0]), reverse=True)
    return [
        {
            "stream": stream,
            "id": letter.id,
            "at": Delivered(stream, letter.id, None).appended_at,
            "original_id": shown(letter.original_id),
            "reason": shown(letter.reason, MOST_REASON),
            "attempts": letter.attempts,
            "device_id": letter.device_id,
        }
        for letter, stream in rows[:MOST_LETTERS]
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
