"""Run a fleet, and drain it at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tracker.net.reasons import connect_error
from tracker.reactor import Reactor
from tracker.runtime.run import Progress, until_interrupted
from tracker.runtime.waits import Waits
from tracker.simulator.device import Counters
from tracker.simulator.fleet import Fleet
from tracker.wording import counted

#: Seconds within which the port must accept the first connection, if it refuses others.
CONNECT_TIMEOUT: Final = 2.0
#: Seconds that unacknowledged records may take at the end.
DRAIN_TIMEOUT: Final = 30.0


class NoConnection(Exception):
    """A port that refuses connections, and has never accepted one; the text is the reason."""


async def run_fleet(reactor: Reactor, fleet: Fleet, seconds: float | None) -> int:
    """Let the fleet drive, then wait until its records are acknowledged.

    :param seconds: duration; None to drive until Ctrl-C or SIGTERM.
    :return: exit code: 0 if all records were acknowledged, else 1.
    :raises NoConnection: if no device could connect.
    """
    waits = until_interrupted(reactor)
    progress = Progress(reactor)
    started = reactor.seconds()
    end = None if seconds is None else started + seconds
    fleet.startService()
    while not waits.stopped and (end is None or reactor.seconds() < end):
        await waits.sleep(0.5 if end is None else min(0.5, max(0, end - reactor.seconds())))
        if reactor.seconds() >= started + CONNECT_TIMEOUT:
            await _check_port(fleet, progress)
        progress.show(_state(fleet))
    await _check_port(fleet, progress)
    waits = until_interrupted(reactor)
    await drain(
        reactor, waits, [fleet], lambda: progress.show(f"{_state(fleet)}, waiting for ACKs")
    )
    progress.end()
    commands = f", {counted(fleet.counters.commands, 'command')}" if fleet.counters.commands else ""
    unacknowledged = fleet.unacknowledged + fleet.counters.unconfirmed
    print(f"simulate: {_summary(fleet)}, {unacknowledged:,} unacknowledged{commands}", flush=True)
    await fleet.stopService()
    return 1 if unacknowledged else 0


async def drain(
    reactor: Reactor, waits: Waits, fleets: Sequence[Fleet], show: Callable[[], None]
) -> None:
    """Stop recording, and wait for the ACKs of all records.

    The wait ends after :data:`DRAIN_TIMEOUT`, or when ``waits`` are stopped.

    :param show: called repeatedly meanwhile.
    """
    for fleet in fleets:
        fleet.stop_recording()
    deadline = reactor.seconds() + DRAIN_TIMEOUT
    while (
        any(fleet.unacknowledged for fleet in fleets)
        and reactor.seconds() < deadline
        and not waits.stopped
    ):
        show()
        await waits.sleep(0.05)


async def _check_port(fleet: Fleet, progress: Progress) -> None:
    """Raise NoConnection if attempts to connect have failed, and none has ever succeeded."""
    counters = fleet.counters
    if counters.failure is None or counters.accepted_connections:
        return
    progress.end()
    await fleet.stopService()
    raise NoConnection(connect_error(counters.failure).rstrip("."))


def _state(fleet: Fleet) -> str:
    """Return the live line: short enough for a terminal, with what keeps devices off."""
    counters = fleet.counters
    text = (
        f"{counters.connected:,} of {counted(len(fleet.devices), 'device')} connected, "
        f"{counted(counters.acknowledged, 'record')} acknowledged"
    )
    if not counters.connected and counters.failure is not None:
        text += f" ({connect_error(counters.failure)})"
    return text + _refused(counters)


def _summary(fleet: Fleet) -> str:
    counters = fleet.counters
    return (
        f"{counters.connected:,} of {counted(len(fleet.devices), 'device')} connected, "
        f"{counted(counters.sent, 'record')} sent, {counters.acknowledged:,} acknowledged, "
        f"{counters.retransmitted:,} retransmitted{_refused(counters)}"
    )


def _refused(counters: Counters) -> str:
    refused = counters.refused_logins
    return f", {counted(refused, 'login')} refused" if refused else ""
