"""What the queues of one instance have in common."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime

from tracker.commands.entries import Entries, HeldCommand
from tracker.commands.retrying import RetryingLedger
from tracker.observe.figures import Distribution
from tracker.settings import setting


@frozen
class Timing:
    """The timing of commands. Each attribute is an option of the same name."""

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
class QueueContext:
    """What the queues of one instance have in common."""

    clock: IReactorTime
    ledger: RetryingLedger
    entries: Entries
    stream: str
    """The stream of the instance's commands."""
    timing: Timing
    answers: Distribution
    """Seconds from a command to its answer."""
    fetch: Callable[[str], None]
    """Requests the commands that wait for a device, since it is connected here."""
    release: Callable[[HeldCommand], None]
    """Called with each command that a queue has finished."""
    unused: Callable[[str], None]
    """Called with the device of a queue that has neither a connection nor a command."""
    stuck: Callable[[str], None]
    """Called with the device of a queue that has failed: its commands stay in Redis."""
    stopping: bool = False
    """True: commands are not written any longer, but passed on."""

    def left(self, held: HeldCommand) -> float:
        """Return the seconds until a command expires."""
        return (held.command.expires_at - self.ledger.now) / 1000
