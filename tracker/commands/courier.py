"""Carries the commands of one device to it, one after another.

What becomes of a command, from its place at the head of the queue:

================ =========================== =============================================
it waits for     then                        unless
================ =========================== =============================================
its turn         claimed                     its time is up → ``expired``; the connection
                                             ends → offered to where the device goes
the claim        its turn again              somebody else was first → dropped
its turn again   written → ``delivered``     as before; the claim is given back
the answer       ``responded``, ``rejected`` silence → ``failed``, ``timeout``; the
                                             connection ends → ``failed``, ``disconnected``
================ =========================== =============================================

Its turn is when the session is free and no answer of before is still due. Nothing in an
answer tells which command it is to. So after a timeout the next command of the same codec
is held back until the late answer has come, or it will not come any more as far as can be
told. Answers in another codec are told apart, and belong to no command of before.

Those behind the first one expire where they are when their time is up.

Each step with Redis is repeated until it answers; then what has changed meanwhile counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed  # noqa: A004
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.command import EXPIRED, Answer, Command, CommandFrame, Outcome, Reason, Status
from tracker.commands.ledger import CommandLedger, Step
from tracker.errors import Refused, Unavailable
from tracker.interfaces import ISession, SessionEnded
from tracker.log.entries import Delivered
from tracker.settings import setting

#: Seconds until a step is tried again that Redis has not taken.
RETRY: Final = 0.5
#: Seconds between two looks at which of those that wait have expired, at least.
EXPIRY_LOOK: Final = 0.5

T = TypeVar("T")


@frozen
class Timing:
    """When commands are written. Each is an option of the same name."""

    radio_sleeps: float = setting(
        0.0,
        0,
        604_800,
        "Seconds of silence after which a device may not listen: commands then wait for its "
        "next frame or ping. 0: it always listens.",
    )
    late_answer: float = setting(
        60.0,
        0,
        86_400,
        "Seconds after a command's timeout in which its answer may still come: the next "
        "command of the same codec waits so long.",
    )


@define(eq=False)
class Held:
    """A command, and the entry that makes this instance responsible for it."""

    entry: Delivered
    command: Command
    others: list[Delivered] = field(factory=list)
    """More entries of the same command, to be looked at when this one is let go."""
    expired: bool = False
    """Whether it has, behind others, and is in the queue no more."""


@define(eq=False)
class _Written:
    """A command whose answer is awaited."""

    codec: str
    answer: Deferred[Answer] = field(factory=Deferred)


class Courier:
    """The commands of one device.

    :param waits: whether a command waits for a device that is nowhere; else it fails.
    :param let_go: told of each command that is none of this instance's business any more.
    :param idle: told when there is nothing left to do or to remember.
    :param stuck: told when nothing will become of its commands before the next start.
    :param fetch: has commands brought here that have begun to wait, though the device is here.
    :param took: told how many seconds an answer has taken.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        device_id: str,
        ledger: CommandLedger,
        timing: Timing,
        waits: bool,
        let_go: Callable[[Held], None],
        idle: Callable[[Courier], None],
        fetch: Callable[[str], None],
        stuck: Callable[[str], None],
        took: Callable[[float], None],
    ) -> None:
        self.device_id = device_id
        self._clock = clock
        self._ledger = ledger
        self._timing = timing
        self._waits = waits
        self._let_go = let_go
        self._idle = idle
        self._fetch = fetch
        self._stuck = stuck
        self._took = took
        self._queue: deque[Held] = deque()
        self._session: ISession | None = None
        self._written: _Written | None = None
        self._next_expiry: IDelayedCall | None = None
        self._due: dict[str, float] = {}  # codec → until when a late answer may come
        self._all_answered: Deferred[None] | None = None  # waited for, if anything is due
        self._working = False
        self._round: Deferred[None] = succeed(None)
        self._stopping = False
        self._interruptible: Deferred[Any] | None = None

    @property
    def queued(self) -> int:
        """Commands that are not written yet."""
        return len(self._queue) - (self._written is not None)

    @property
    def outstanding(self) -> bool:
        """Whether a command was written whose answer is awaited."""
        return self._written is not None

    def holds(self, command_id: str) -> bool:
        """Whether this command is among them."""
        return any(held.command.command_id == command_id for held in self._queue)

    def arrived(self, session: ISession) -> None:
        """The device has logged in, on this connection."""
        self._session = session
        self._due.clear()

    def departed(self) -> None:
        """The connection has ended, or is the device's no more."""
        self._session = None
        self._due.clear()
        self._settle()
        if self._written is not None:
            self._written.answer.errback(SessionEnded())
        self._look_idle()

    def add(self, held: Held) -> None:
        """One more command, behind the others."""
        self._queue.append(held)
        if not self._working:
            self._working = True
            self._round = Deferred.fromCoroutine(self._work()).addErrback(self._died)
        else:
            self._expect_expiry(held)

    def answered(self, answer: Answer) -> None:
        """The device has said what may be an answer."""
        written = self._written
        if written is not None and written.codec == answer.codec:
            written.answer.callback(answer)
        elif self._due.pop(answer.codec, None) is not None:
            self._log.info("{device}: a late answer is dropped", device=self.device_id)
            self._settle()
            self._look_idle()

    async def stop(self, grace: float) -> None:
        """Write no more; wait for an answer that is awaited, and offer the others elsewhere."""
        self._stopping = True
        self._expect_none()
        if self._written is not None:
            end = self._clock.callLater(grace, self.departed)
        else:
            end = None
            self._session = None
        if self._interruptible is not None:
            self._interruptible.cancel()
        await self._round
        if end is not None and end.active():
            end.cancel()

    async def _work(self) -> None:
        """Carry commands until there are none."""
        while self._queue:
            session = None if self._stopping else self._session
            if session is None:
                await self._offer_all()
                continue
            held = self._queue[0]
            try:
                await self._carry(held, session)
            except SessionEnded:
                if self._session is session:
                    # It is closing. Whoever looks for the device finds it elsewhere, or waits.
                    self._session = None
                continue
            self._queue.popleft()
            self._let_go(held)
        self._working = False
        self._expect_none()
        self._look_idle()

    def _expect_expiry(self, held: Held) -> None:
        """Look again when this one, which waits behind others, will have expired."""
        left = max(EXPIRY_LOOK, (held.command.expires_at - self._ledger.now) / 1000)
        if self._stopping:
            return
        if self._next_expiry is None:
            self._next_expiry = self._clock.callLater(left, self._look_for_expired)
        elif self._clock.seconds() + left < self._next_expiry.getTime():
            self._next_expiry.reset(left)

    def _expect_none(self) -> None:
        if self._next_expiry is not None:
            self._next_expiry.cancel()
            self._next_expiry = None

    def _look_for_expired(self) -> None:
        self._next_expiry = None
        first, *others = self._queue
        self._queue = deque([first])
        for held in others:
            if self._ledger.now < held.command.expires_at:
                self._queue.append(held)
                self._expect_expiry(held)
            else:
                held.expired = True
                Deferred.fromCoroutine(self._expire(held)).addErrback(self._died)

    async def _expire(self, held: Held) -> None:
        await self._finish(held, EXPIRED)
        self._let_go(held)

    def _died(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # a stop that Redis has not answered in time
        # What it has is offered or in doubt after the next start.
        self._log.failure("commands of {device} are stuck", failure, device=self.device_id)
        self._stuck(self.device_id)

    def _look_idle(self) -> None:
        if not (self._working or self._due):
            self._idle(self)

    async def _carry(self, held: Held, session: ISession) -> None:
        """Bring one command to its end.

        :raises SessionEnded: when it was not written, and will not be on this connection.
        """
        command = held.command
        try:
            frame = session.command_frame(command.text, command.codec)
        except ValueError as error:
            await self._finish(held, Outcome.failed(Reason.MALFORMED, str(error)))
            return
        try:
            await self._turn(held, session, frame.codec)
            step = await self._insistently(lambda: self._ledger.claim(held.entry, command))
            if step is not Step.WON:
                self._tell_lost(held, step)
                return
            try:
                if self._session is not session:
                    raise SessionEnded()
                await self._in_time(held, session.when_free())
                self._check_expiry(held)
            except SessionEnded:
                await self._offer(held, unwritten=True)
                return
        except TimeoutError:
            await self._finish(held, EXPIRED)
            return
        await self._converse(held, session, frame)

    async def _turn(self, held: Held, session: ISession, codec: str) -> None:
        """Wait for this command's turn; TimeoutError when its time is up before."""
        self._check_expiry(held)
        while (until := self._due.get(codec, 0.0)) > self._clock.seconds():
            self._all_answered = Deferred()
            wake = self._clock.callLater(until - self._clock.seconds(), self._settle)
            try:
                await self._in_time(held, self._all_answered)
            finally:
                self._all_answered = None
                if wake.active():
                    wake.cancel()
            if self._session is not session:
                raise SessionEnded()
        self._due.pop(codec, None)
        await self._in_time(held, session.when_free(self._timing.radio_sleeps))
        self._check_expiry(held)

    def _settle(self) -> None:
        if self._all_answered is not None and not self._all_answered.called:
            self._all_answered.callback(None)

    def _check_expiry(self, held: Held) -> None:
        if self._ledger.now >= held.command.expires_at:
            raise TimeoutError()

    async def _in_time(self, held: Held, waited: Deferred[T]) -> T:
        left = (held.command.expires_at - self._ledger.now) / 1000
        waited.addTimeout(max(0.0, left), self._clock)
        self._interruptible = waited
        try:
            return await waited
        except CancelledError:
            raise SessionEnded() from None  # as far as we are concerned: a stop
        finally:
            self._interruptible = None

    async def _converse(self, held: Held, session: ISession, frame: CommandFrame) -> None:
        """Write the command, and wait for its answer."""
        command = held.command
        self._written = _Written(frame.codec)
        answer = self._written.answer.addTimeout(command.timeout, self._clock)
        session.write_command(frame.data)
        written_at = self._clock.seconds()
        delivered = Deferred.fromCoroutine(
            self._insistently(lambda: self._ledger.delivered(held.entry, command))
        )
        try:
            outcome = _outcome(await answer)
            self._took(self._clock.seconds() - written_at)
        except SessionEnded:
            outcome = Outcome.failed(Reason.DISCONNECTED)
        except TimeoutError:
            outcome = Outcome.failed(Reason.TIMEOUT)
            if self._session is session:
                self._due[frame.codec] = self._clock.seconds() + self._timing.late_answer
        self._written = None
        await delivered
        await self._finish(held, outcome, written=True)

    async def _finish(self, held: Held, outcome: Outcome, written: bool = False) -> None:
        command = held.command
        step = await self._insistently(
            lambda: self._ledger.finish(held.entry, command, outcome, written)
        )
        if step is Step.FINISHED:
            self._log.info(
                "command {id} to {device}: {status}{reason}",
                id=command.command_id,
                device=command.device_id,
                status=outcome.status,
                reason=f" ({outcome.reason})" if outcome.reason else "",
            )
        else:
            self._tell_lost(held, step)

    async def _offer_all(self) -> None:
        """Pass on what is queued now; what comes meanwhile is for a new connection."""
        for held in list(self._queue):
            if held.expired:
                continue
            if self._ledger.now >= held.command.expires_at:
                await self._finish(held, EXPIRED)
            else:
                await self._offer(held)
            self._queue.popleft()
            self._let_go(held)

    async def _offer(self, held: Held, unwritten: bool = False) -> None:
        step = await self._insistently(
            lambda: self._ledger.offer(held.entry, held.command, self._waits, unwritten)
        )
        self._log.debug(
            "command {id} to {device}: {step}",
            id=held.command.command_id,
            device=self.device_id,
            step=step.value,
        )
        if step is Step.WAITS and self._session is not None and not self._stopping:
            # The device has come back, and was told to Redis before this began to wait.
            self._fetch(self.device_id)

    def _tell_lost(self, held: Held, step: Step) -> None:
        self._log.info(
            "command {id} to {device} is not ours any more: {step}",
            id=held.command.command_id,
            device=self.device_id,
            step=step.value,
        )

    async def _insistently(self, step: Callable[[], Awaitable[T]]) -> T:
        """What Redis says, asked again until it does."""
        while True:
            try:
                return await step()
            except (Refused, Unavailable) as error:
                self._log.debug("not yet: {error}", error=error)
                await deferLater(self._clock, RETRY)


def _outcome(answer: Answer) -> Outcome:
    status = Status.REJECTED if answer.refused else Status.RESPONDED
    return Outcome(status, response=answer.text)
