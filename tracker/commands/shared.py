"""The settings and services that the command queues of one instance share."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime

from tracker.commands.entries import Entries, HeldCommand
from tracker.commands.retrying import RetryingLedger
from tracker.observe.figures import Distribution
from tracker.settings import duration


@frozen
class Timing:
    """Timing of commands. Each attribute is an option of the same name."""

    radio_sleeps: float = duration(
        0.0,
        0,
        604_800,
        "Silence after which a device may have switched off its radio: commands then "
        "wait for its next frame or ping. 0s: devices always listen.",
    )
    late_answer: float = duration(
        60.0,
        0,
        86_400,
        "Time after a command's timeout in which its answer may still arrive. The next "
        "command in the same codec waits until then.",
    )


@define(eq=False)
class QueueContext:
    """The settings and services that the command queues of one instance share."""

    clock: IReactorTime
    ledger: RetryingLedger
    entries: Entries
    stream: str
    """Name of the stream of the instance's commands."""
    timing: Timing
    answers: Distribution
    """Distribution of the seconds from a command to its answer."""
    fetch: Callable[[str], None]
    """Requests the commands that wait for a device that is connected here."""
    release: Callable[[HeldCommand], None]
    """Called with each command that a queue has finished."""
    unused: Callable[[str], None]
    """Called with the device ID of a queue that has neither a connection nor a command."""
    stuck: Callable[[str], None]
    """Called with the device ID of a queue that has failed: its commands stay in Redis."""
    stopping: bool = False
    """True during a stop: commands are passed on instead of written."""

    def seconds_left(self, held: HeldCommand) -> float:
        """Return the seconds until a command expires."""
        return (held.command.expires_at - self.ledger.now) / 1000
