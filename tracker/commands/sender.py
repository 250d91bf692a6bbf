"""Send commands to a device on one connection, one after another.

:data:`TRANSITIONS` defines the states of a command. A command is written when the connection is
free and no answer to an earlier command is due. Only an answer in the same codec, and with the same
token if it has one, counts as the command's answer. An answer without a token does not identify its
command. Therefore, after a timeout, the next command in the same codec may be held back until the
late answer has arrived or its deadline has passed, see :mod:`tracker.commands.lateanswers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004
from twisted.logger import Logger

from tracker.command import Answer, Reason, Status, StatusUpdate
from tracker.commands.entries import HeldCommand
from tracker.commands.lateanswers import LateAnswers
from tracker.commands.ledger import Effect
from tracker.commands.shared import QueueContext
from tracker.interfaces import ConnectionEnded, IConnection


class State(Enum):
    """State of a command."""

    RECOVERING = "recovering"
    """The ledger checks whether the command was claimed before."""
    HELD_BACK = "held back"
    """The command waits for a late answer to an earlier command in the same codec."""
    WAITING = "waiting"
    """The command waits until the connection is free."""
    CLAIMING = "claiming"
    """The ledger claims the right to write the command."""
    CLAIMED = "claimed"
    """The command waits until the connection is free again."""
    WRITTEN = "written"
    """The command waits for its answer."""
    ENDING = "ending"
    """The ledger gives the final response."""

    KEPT = "kept"
    """The connection has ended before the command was claimed: it stays in the queue."""
    UNWRITTEN = "unwritten"
    """The connection has ended after the command was claimed and before it was written."""
    OVER = "over"
    """The command is done; also the initial state."""


class Event(Enum):
    """The event that ends a state."""

    OPEN = "open"
    """The command was not claimed before."""
    TAKEN = "taken"
    """The command has ended, or another entry or instance is responsible for it."""
    MALFORMED = "malformed"
    """The device's protocol cannot express the command."""
    CLEAR = "clear"
    """No late answer is due."""
    FREE = "free"
    """The connection is free."""
    WON = "won"
    """This instance, and no other, may write the command."""
    ANSWERED = "answered"
    """The device has answered."""
    TIME_UP = "time up"
    """The command has expired, or its answer has not arrived in time."""
    LOST = "lost"
    """The connection has ended, or the service stops."""
    RESPONDED = "responded"
    """The final response is in Redis."""


#: State → event → next state. States without a row are final.
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.RECOVERING: {
        Event.OPEN: State.HELD_BACK,
        Event.TAKEN: State.OVER,
    },
    State.HELD_BACK: {
        Event.CLEAR: State.WAITING,
        Event.MALFORMED: State.ENDING,
        Event.TIME_UP: State.ENDING,
        Event.LOST: State.KEPT,
    },
    State.WAITING: {
        Event.FREE: State.CLAIMING,
        Event.TIME_UP: State.ENDING,
        Event.LOST: State.KEPT,
    },
    State.CLAIMING: {
        Event.WON: State.CLAIMED,
        Event.TAKEN: State.OVER,
    },
    State.CLAIMED: {
        Event.FREE: State.WRITTEN,
        Event.TIME_UP: State.ENDING,
        Event.LOST: State.UNWRITTEN,
    },
    State.WRITTEN: {
        Event.ANSWERED: State.ENDING,
        Event.TIME_UP: State.ENDING,
        Event.LOST: State.ENDING,
    },
    State.ENDING: {
        Event.RESPONDED: State.OVER,
    },
}


class CommandSender:
    """Sends commands to a device on one connection, one after another.

    :ivar state: state of the latest command.
    :ivar ended: True if commands can no longer be written on the connection.
    """

    _log = Logger()

    def __init__(self, connection: IConnection, shared: QueueContext) -> None:
        self.connection = connection
        self.state = State.OVER
        self.ended = False
        self._shared = shared
        self._held: HeldCommand
        self._late = LateAnswers(shared.clock, shared.timing.late_answer)
        self._awaited: Deferred[Any] | None = None  # ends the current wait

    async def send(self, held: HeldCommand) -> State:
        """Send a command and wait for its answer; return KEPT, UNWRITTEN or OVER."""
        self._held = held
        self.state = State.RECOVERING if held.doubtful else State.HELD_BACK
        while self.state in TRANSITIONS:
            event = await self._WORK[self.state](self)
            self.state = TRANSITIONS[self.state][event]
        return self.state

    def answered(self, answer: Answer) -> None:
        """Process text that the device has sent, which may be an answer."""
        written = self._held.frame if self.state is State.WRITTEN else None
        if self._late.take(answer, written):
            self._log.info("late answer from {device} discarded", device=self.connection.device_id)
            if self.state is State.HELD_BACK:
                self._resume()
        elif (
            written is not None
            and written.codec == answer.codec
            and answer.token in ("", written.token)
        ):
            status = Status.REJECTED if answer.refused else Status.RESPONDED
            reason = Reason.UNKNOWN_COMMAND.value if answer.unknown else ""
            self._held.update = StatusUpdate(status, reason, answer.text)
            self._resume()

    def end(self) -> None:
        """Stop writing and waiting, because the connection has ended or will be closed."""
        self.ended = True
        if self._awaited is not None:
            self._awaited.cancel()

    # The work of each state; each method returns the event that ends the state.

    async def _recover(self) -> Event:
        if await self._shared.ledger.recover(self._held) is not Effect.OPEN:
            return Event.TAKEN
        self._held.doubtful = False
        return Event.OPEN

    async def _wait_for_late_answer(self) -> Event:
        held = self._held
        if self.ended:  # the connection may have ended while the command was recovered
            return Event.LOST
        try:
            command = held.command
            held.frame = self.connection.command_frame(
                command.device_id, command.content, command.codec
            )
        except ValueError as error:
            held.update = StatusUpdate.failed(Reason.MALFORMED, str(error))
            return Event.MALFORMED
        while (left := self._shared.seconds_left(held)) > 0:
            delay = self._late.delay(held.frame)
            if delay <= 0:
                return Event.CLEAR
            if await self._wait(Deferred(), min(delay, left), Event.CLEAR) is Event.LOST:
                return Event.LOST
        return Event.TIME_UP

    async def _wait_before_claim(self) -> Event:
        return await self._wait_until_free(self._shared.timing.radio_sleeps)

    async def _claim(self) -> Event:
        effect = await self._shared.ledger.claim(self._held)
        return Event.WON if effect is Effect.WON else Event.TAKEN

    async def _wait_before_write(self) -> Event:
        return await self._wait_until_free(0)

    async def _write(self) -> Event:
        held, clock = self._held, self._shared.clock
        awaited = Deferred.fromCoroutine(
            self._wait(Deferred(), held.command.timeout, Event.ANSWERED)
        )
        self.connection.write_command(held.frame.data, held.frame.shown)
        written_at = clock.seconds()
        held.delivered = Deferred.fromCoroutine(self._shared.ledger.delivered(held))
        event = await awaited
        if event is Event.ANSWERED:
            self._shared.answers.observe(clock.seconds() - written_at)
        elif event is Event.LOST:
            held.update = StatusUpdate.failed(Reason.DISCONNECTED)
        else:
            held.update = StatusUpdate.failed(Reason.TIMEOUT)
            self._late.timed_out(held.frame)
        return event

    async def _give_response(self) -> Event:
        if self._held.delivered is not None:
            await self._held.delivered
        await self._shared.ledger.finish(self._held)
        return Event.RESPONDED

    _WORK: ClassVar[Mapping[State, Callable[[CommandSender], Awaitable[Event]]]] = {
        State.RECOVERING: _recover,
        State.HELD_BACK: _wait_for_late_answer,
        State.WAITING: _wait_before_claim,
        State.CLAIMING: _claim,
        State.CLAIMED: _wait_before_write,
        State.WRITTEN: _write,
        State.ENDING: _give_response,
    }

    async def _wait_until_free(self, radio_sleeps: float) -> Event:
        if self.ended:
            return Event.LOST
        free = self.connection.when_free(radio_sleeps)
        event = await self._wait(free, self._shared.seconds_left(self._held), Event.FREE)
        if event is Event.FREE and self._shared.seconds_left(self._held) <= 0:
            return Event.TIME_UP
        return event

    async def _wait(self, awaited: Deferred[Any], seconds: float, then: Event) -> Event:
        """Return ``then`` when ``awaited`` fires, else TIME_UP or LOST."""
        self._awaited = awaited.addTimeout(max(0.0, seconds), self._shared.clock)
        try:
            await awaited
        except TimeoutError:
            return Event.TIME_UP
        except (CancelledError, ConnectionEnded):
            self.ended = True
            return Event.LOST
        finally:
            self._awaited = None
        return then

    def _resume(self) -> None:
        if self._awaited is not None:
            self._awaited.callback(None)
