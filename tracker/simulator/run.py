"""Run a fleet, and drain it at the end."""

from __future__ import annotations

from typing import Final

from twisted.internet.task import deferLater

from tracker.reactor import Reactor
from tracker.runtime.run import Progress, until_interrupted
from tracker.simulator.fleet import Fleet
from tracker.wording import counted

#: Seconds that unacknowledged records may take at the end.
DRAIN_TIMEOUT: Final = 30.0


async def run_fleet(reactor: Reactor, fleet: Fleet, seconds: float | None) -> int:
    """Let the fleet drive, then wait until its records are acknowledged.

    :param seconds: duration; None to drive until Ctrl-C or SIGTERM.
    :return: exit code: 0 if all records were acknowledged, else 1.
    """
    waits = until_interrupted(reactor)
    progress = Progress(reactor)
    end = None if seconds is None else reactor.seconds() + seconds
    fleet.startService()
    while not waits.stopped and (end is None or reactor.seconds() < end):
        await waits.sleep(0.5 if end is None else min(0.5, max(0, end - reactor.seconds())))
        progress.show(_summary(fleet))
    await drain(reactor, fleet)
    progress.end()
    commands = f", {counted(fleet.counters.commands, 'command')}" if fleet.counters.commands else ""
    print(
        f"simulate: {_summary(fleet)}, {fleet.unacknowledged:,} unacknowledged{commands}",
        flush=True,
    )
    await fleet.stopService()
    return 1 if fleet.unacknowledged else 0


async def drain(reactor: Reactor, fleet: Fleet) -> None:
    """Stop recording, and wait for the ACKs of all records, at most :data:`DRAIN_TIMEOUT`."""
    fleet.stop_recording()
    deadline = reactor.seconds() + DRAIN_TIMEOUT
    while fleet.unacknowledged and reactor.seconds() < deadline:
        await deferLater(reactor, 0.05)


def _summary(fleet: Fleet) -> str:
    counters = fleet.counters
    return (
        f"{counters.connected} of {counted(len(fleet.devices), 'device')} connected, "
        f"{counted(counters.sent, 'record')} sent, {counters.acknowledged:,} acknowledged, "
        f"{counters.retransmitted:,} retransmitted"
        + (
            f", {counted(counters.refused_logins, 'login')} refused"
            if counters.refused_logins
            else ""
        )
    )
