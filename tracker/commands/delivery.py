"""Takes the commands for an instance's devices from Redis, and has them carried.

An entry is read once, by the one consumer of the group ``ingest`` on the instance's stream,
and stays there until its command has come to an end or was passed on. So what this process
leaves behind is found again by the next one of its name, or by a janitor: then it is known
from Redis alone whether it was about to be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,  # noqa: A004
    gatherResults,
    succeed,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.command import (
    EXPIRED,
    Answer,
    BadCommand,
    Command,
    Outcome,
    Reason,
    claimed_identity,
)
from tracker.commands.courier import Courier, Held, Timing
from tracker.commands.ledger import CommandLedger, Step, entry_at
from tracker.errors import Refused, Unavailable
from tracker.interfaces import ISession
from tracker.keys import INGEST_GROUP, outbound
from tracker.log.allowance import Allowance
from tracker.log.entries import Delivered
from tracker.log.redis.groups import create_group, read_new, read_pending
from tracker.observe.figures import Distribution
from tracker.observe.health import Condition, Pulse
from tracker.observe.ratelimit import LimitedLog
from tracker.redis.connection import RedisConnection

#: Milliseconds that a read waits for something to come.
BLOCK_MS: Final = 5000
#: Entries of one read.
BATCH: Final = 100
#: Entries that are held at once; the others stay in Redis until some have ended.
MOST_HELD: Final = 20_000
#: Commands for one device that are held at once, while others are behind them: of those only
#: the ids of their entries are known here, so that they leave room for other devices' ones.
MOST_OF_ONE: Final = 200
#: Ids of such entries.
MOST_BEHIND: Final = 200_000
#: Seconds until the stream is tried again that could not be read.
RETRY: Final = 1.0
#: Seconds without a turn after which the loop is stuck.
STUCK: Final = 120.0
#: Seconds that a stop waits for answers, and for all of it.
STOP_GRACE: Final = 2.0
STOP_TIMEOUT: Final = 5.0
#: Bounds of the seconds that devices take to answer.
ANSWER_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class CommandDelivery(Service):
    """The commands of one instance.

    :param reading: a connection that only this service uses, since its reads block.
    :param commands: a connection for everything else.
    :param waits: whether a command waits for a device that is nowhere; else it fails.
    :param fetch: has commands brought here that wait for a device which is here.
    :param condition: met while commands are read.
    :param pulse: beats while they are.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        reading: RedisConnection,
        commands: RedisConnection,
        instance_id: str,
        timing: Timing,
        waits: bool,
        fetch: Callable[[str], None],
        condition: Condition,
        pulse: Pulse | None = None,
    ) -> None:
        self.answers = Distribution(ANSWER_SECONDS)
        """Seconds from a command to its answer."""
        self._clock = clock
        self._reading = reading
        self._redis = commands
        self._stream = outbound(instance_id)
        self._consumer = instance_id
        self._ledger = CommandLedger(clock, commands, instance_id)
        self._timing = timing
        self._waits = waits
        self._fetch = fetch
        self._condition = condition
        self._pulse = pulse or Pulse(STUCK)
        self._sessions: dict[str, ISession] = {}
        self._couriers: dict[str, Courier] = {}
        self._held: dict[str, Held] = {}  # by command id
        self._entries = 0  # that these have
        self._behind: dict[str, dict[str, None]] = {}  # device → ids of entries, in their order
        self._ids_behind = 0
        self._catching_up: set[str] = set()  # devices of which such entries are being read
        self._put_off: set[str] = set()  # entries that Redis has refused to see to
        self._room: Deferred[None] | None = None  # waited for, when too many are held
        self._rejections = LimitedLog(clock, self._log)
        self._loop: Deferred[None] = succeed(None)
        self._begun = False
        self._interruptible: Deferred[Any] | None = None

    def startService(self) -> None:
        """Wait to be told that the stream is ours."""
        super().startService()
        self._condition.met()

    def begin(self) -> None:
        """Read the stream: no other process has this instance's id."""
        if self.running and not self._begun:
            self._begun = True
            self._loop = Deferred.fromCoroutine(self._run())
            self._loop.addErrback(self._died)

    def arrived(self, session: ISession, device_id: str) -> None:
        """A device has logged in, on this connection and no older one."""
        older = self._sessions.get(device_id)
        if older is not None:
            self.departed(older, device_id)
        self._sessions[device_id] = session
        if device_id in self._couriers:
            self._couriers[device_id].arrived(session)

    def departed(self, session: ISession, device_id: str) -> None:
        """A connection has ended. It may have been the device's no more."""
        if self._sessions.get(device_id) is session:
            del self._sessions[device_id]
            if device_id in self._couriers:
                self._couriers[device_id].departed()

    def answered(self, session: ISession, answer: Answer) -> None:
        """A device has sent what may be an answer."""
        courier = self._couriers.get(session.device_id or "")
        if courier is not None and self._sessions.get(courier.device_id) is session:
            courier.answered(answer)

    def load(self, device_id: str) -> tuple[int, bool]:
        """Commands that are queued for a device here, and whether one is outstanding."""
        behind = len(self._behind.get(device_id, ()))
        courier = self._couriers.get(device_id)
        if courier is None:
            return behind, False
        return courier.queued + behind, courier.outstanding

    @property
    def responses(self) -> Counter[tuple[str, str]]:
        """Status and reason → responses that this instance has given."""
        return self._ledger.responses

    @property
    def held(self) -> int:
        """Entries of commands that this instance sees to."""
        return self._entries + self._ids_behind

    def holds(self, command_id: str) -> bool:
        """Whether this command is."""
        return command_id in self._held

    def stopService(self) -> Deferred[None]:
        """Write nothing more; fires when all is answered, given up or passed on."""
        super().stopService()
        self._pulse.rest()
        if self._interruptible is not None:
            self._interruptible.cancel()
        # What is under way when time is up is left alone, and not cancelled within a step.
        stopped: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._stop()).chainDeferred(stopped)
        return stopped.addTimeout(STOP_TIMEOUT, self._clock).addErrback(self._stop_overdue)

    async def _stop(self) -> None:
        await self._loop
        couriers = list(self._couriers.values())
        stops = [Deferred.fromCoroutine(one.stop(STOP_GRACE)) for one in couriers]
        await gatherResults(stops, consumeErrors=True)

    def _stop_overdue(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self._log.info(
            "{count} commands are left to the next start, or to the janitor", count=self.held
        )

    def _stuck(self, device_id: str) -> None:
        self._condition.fails(
            f"commands of {device_id} are stuck, see the log: restart this instance"
        )

    def _died(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # a stop that Redis has not answered in time
        self._log.failure("commands are not read any more", failure)
        self._condition.fails(f"commands are not read any more: {failure.getErrorMessage()}")

    async def _run(self) -> None:
        while self.running:
            try:
                await self._consume()
            except CancelledError:
                return  # a stop
            except (Refused, Unavailable) as error:
                self._condition.fails(f"commands cannot be read: {error}")
                self._pulse.beat()
                try:
                    await self._or_stopped(deferLater(self._clock, RETRY))
                except CancelledError:
                    return

    async def _consume(self) -> None:
        self._pulse.rest()
        await self._or_stopped(self._reading.when_connected())
        await self._or_stopped(self._redis.when_connected())
        self._pulse.beat()
        # Entries that are there may have been read through a group that was lost.
        doubtful = await create_group(self._redis, self._stream, INGEST_GROUP)
        self._condition.met()
        await self._take_up_pending()
        while self.running:
            room = min(MOST_HELD - self._entries, MOST_BEHIND - self._ids_behind)
            if room <= 0:
                self._pulse.rest()
                self._room = Deferred()
                await self._or_stopped(self._room)
                continue
            self._pulse.beat()
            where = (INGEST_GROUP, self._consumer, Allowance([self._stream], min(room, BATCH)))
            reading = Deferred.fromCoroutine(read_new(self._reading, *where, BLOCK_MS))
            entries = await self._or_stopped(reading)
            for entry in entries:
                await self._take_or_put_off(entry, recovered=doubtful)
            doubtful = doubtful and bool(entries)

    async def _take_up_pending(self) -> None:
        """Process pending entries: read by a process that died, or put off after an error."""
        where = (self._redis, INGEST_GROUP, self._consumer)
        after = {self._stream: "0"}
        while self.running and (
            entries := await read_pending(*where, after, Allowance(after, BATCH))
        ):
            for entry in entries:
                await self._take_or_put_off(entry, recovered=True)
            after = {self._stream: entries[-1].id}

    async def _or_stopped(self, deferred: Deferred[Any]) -> Any:
        """The result of what a stop need not wait for; CancelledError then."""
        self._interruptible = deferred
        try:
            return await deferred
        finally:
            self._interruptible = None

    async def _take_or_put_off(self, entry: Delivered, recovered: bool) -> None:
        """Take one entry of many: whatever ails it is nothing to the others."""
        self._pulse.beat()
        if entry.id in self._put_off:
            return
        try:
            await self._take(entry, recovered)
        except Refused as error:
            self._put_off.add(entry.id)
            self._entries += 1
            self._condition.fails(
                f"commands cannot be delivered: {self._stream} {entry.id}: {error}"
            )
            Deferred.fromCoroutine(self._take_later(entry)).addErrback(self._died)

    async def _take_later(self, entry: Delivered) -> None:
        await deferLater(self._clock, RETRY)
        await self._take_again(entry)
        self._put_off.remove(entry.id)
        self._entries -= 1
        self._make_room()
        if self.running and not self._put_off:
            self._condition.met()

    async def _take(self, entry: Delivered, recovered: bool) -> None:
        """Have one entry carried or passed on."""
        if not self.running:
            return  # it stays pending
        if entry.content is None:
            await self._ledger.drop(entry)  # somebody has deleted it
            return
        try:
            command = Command.from_entry(entry.content)
        except BadCommand as error:
            await self._refuse(entry, str(error))
            return
        if self._joins(entry, command) or entry.id in self._behind.get(command.device_id, ()):
            return
        if recovered:
            step = await self._ledger.recover(entry, command)
            if step is not Step.OPEN or self._joins(entry, command):
                return
        if not self._stays_behind(entry, command):
            await self._dispatch(entry, command)

    async def _dispatch(self, entry: Delivered, command: Command) -> None:
        if self._ledger.now >= command.expires_at:
            await self._ledger.finish(entry, command, EXPIRED)
        elif command.device_id in self._sessions:
            self._carry(Held(entry, command))
        else:
            await self._offer(entry, command)

    def _stays_behind(self, entry: Delivered, command: Command) -> bool:
        """Whether it has to wait until there are fewer before it for its device."""
        device_id = command.device_id
        if device_id not in self._behind:
            courier = self._couriers.get(device_id)
            if courier is None or courier.queued < MOST_OF_ONE:
                return False
            self._behind[device_id] = {}
        self._behind[device_id][entry.id] = None
        self._ids_behind += 1
        return True

    async def _catch_up(self, device_id: str) -> None:
        """Go on with what is behind, until enough of it is held or all is seen to."""
        behind = self._behind[device_id]
        while self.running and behind:
            courier = self._couriers.get(device_id)
            if courier is not None and (
                courier.queued >= MOST_OF_ONE or device_id not in self._sessions
            ):
                return  # until some of these have ended, or all have been passed on
            entry_id = next(iter(behind))
            try:
                await self._take_from_behind(entry_id)
            except (Refused, Unavailable):
                await deferLater(self._clock, RETRY)
                continue
            del behind[entry_id]
            self._ids_behind -= 1
            self._make_room()
        if not behind:
            del self._behind[device_id]

    async def _take_from_behind(self, entry_id: str) -> None:
        entry = await entry_at(self._redis, self._stream, entry_id)
        if entry.content is None:
            await self._ledger.drop(entry)  # a janitor has taken it over, or somebody deleted it
            return
        command = Command.from_entry(entry.content)
        if not self._joins(entry, command):
            await self._dispatch(entry, command)

    def _joins(self, entry: Delivered, command: Command) -> bool:
        """Whether the command is held already; the entry is kept for when it is let go."""
        held = self._held.get(command.command_id)
        if held is None:
            return False
        # Not dropped yet: a janitor that took this instance for dead has moved the first
        # one, and this may be what became of it.
        if all(entry.id != known.id for known in (held.entry, *held.others)):
            held.others.append(entry)
            self._entries += 1
        return True

    async def _take_again(self, entry: Delivered) -> None:
        while self.running:
            try:
                await self._take(entry, recovered=True)
                return
            except (Refused, Unavailable):
                await deferLater(self._clock, RETRY)

    async def _offer(self, entry: Delivered, command: Command) -> None:
        step = await self._ledger.offer(entry, command, self._waits)
        self._log.debug(
            "command {id} to {device}: {step}",
            id=command.command_id,
            device=command.device_id,
            step=step.value,
        )
        if step is Step.WAITS and command.device_id in self._sessions:
            # It has come meanwhile, and was told to Redis before this began to wait.
            self._fetch(command.device_id)

    def _carry(self, held: Held) -> None:
        device_id = held.command.device_id
        self._held[held.command.command_id] = held
        self._entries += 1
        courier = self._couriers.get(device_id)
        if courier is None:
            courier = self._couriers[device_id] = Courier(
                *(self._clock, device_id, self._ledger, self._timing, self._waits),
                *(self._let_go, self._idle, self._fetch, self._stuck, self.answers.observe),
            )
            courier.arrived(self._sessions[device_id])
        courier.add(held)

    def _let_go(self, held: Held) -> None:
        del self._held[held.command.command_id]
        self._entries -= 1 + len(held.others)
        for entry in held.others:
            Deferred.fromCoroutine(self._take_again(entry)).addErrback(self._died)
        self._make_room()
        self._look_behind(held.command.device_id)

    def _look_behind(self, device_id: str) -> None:
        if device_id in self._behind and device_id not in self._catching_up:
            self._catching_up.add(device_id)
            caught_up = Deferred.fromCoroutine(self._catch_up(device_id)).addErrback(self._died)
            caught_up.addCallback(lambda _: self._catching_up.remove(device_id))

    def _make_room(self) -> None:
        if self._room is not None:
            room, self._room = self._room, None
            room.callback(None)

    def _idle(self, courier: Courier) -> None:
        if self._couriers.get(courier.device_id) is courier:
            del self._couriers[courier.device_id]
            self._look_behind(courier.device_id)

    async def _refuse(self, entry: Delivered, why: str) -> None:
        command_id, device_id = claimed_identity(entry.fields)
        outcome = Outcome.failed(Reason.MALFORMED, why)
        await self._ledger.refuse(entry, command_id, device_id, outcome)
        self._rejections.warn(
            "{stream}: entry {id} is not a command: {why}",
            stream=entry.stream,
            id=entry.id,
            why=why,
        )
