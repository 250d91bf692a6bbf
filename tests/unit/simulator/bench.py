"""A simulated device with a fake clock and endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from attrs import define, evolve, field
from twisted.internet.task import Clock

from tests.unit.simulator.fakes import FakeConnection, FakeEndpoint
from tracker.position import Entry
from tracker.simulator.device import (
    LAST_RETRY,
    Answers,
    Behaviour,
    Counters,
    OnCommand,
    SimulatedDevice,
)
from tracker.simulator.track import Track
from tracker.vendors.simulation import Simulation
from tracker.vendors.teltonika.avl import CODEC_8E, Codec
from tracker.vendors.teltonika.simulation import TeltonikaSimulation

IMEI = "356307042441013"
LOGIN = b"\x00\x0f" + IMEI.encode()
HOME = (41.3275, 19.8187)
NOON = 1_710_504_000  # 2024-03-15 12:00:00 UTC
INTERVAL = 1.0
RESPONSE_TIMEOUT = TeltonikaSimulation.response_timeout


@define
class Bench:
    """A device that is switched on, with its fakes and the calls that it made."""

    device: SimulatedDevice
    clock: Clock
    endpoint: FakeEndpoint
    counters: Counters
    acknowledged: list[Sequence[Entry]] = field(factory=list)
    commanded: list[tuple[str, str, str]] = field(factory=list)

    def record(self, count: int = 1) -> None:
        """Advance the clock until ``count`` more records are made."""
        before = self.counters.recorded
        for _ in range(count):
            self.clock.advance(self.device.behaviour.interval)
        assert self.counters.recorded == before + count

    def log_in(self) -> FakeConnection:
        """Accept the pending connection and its login."""
        connection = self.endpoint.accept()
        assert connection.received() == LOGIN
        connection.send(b"\x01")
        return connection

    def wait_for_attempt(self) -> float:
        """Advance the clock until the device connects again; return the seconds that passed."""
        began, attempts = self.clock.seconds(), self.endpoint.attempts
        while self.endpoint.attempts == attempts:
            assert self.clock.seconds() - began < 2 * LAST_RETRY, "no attempt to connect"
            self.clock.advance(0.01)
        return self.clock.seconds() - began


def switch_on(
    records: int = 1,
    codec: Codec = CODEC_8E,
    interval: float = INTERVAL,
    response_timeout: float = RESPONSE_TIMEOUT,
    answers: Answers = Answers.PROMPT,
    on_command: OnCommand | None = None,
    simulation: Simulation | None = None,
) -> Bench:
    """Return a device that has just been switched on, at noon.

    :param on_command: called for each command; the default appends to ``Bench.commanded``.
    :param simulation: simulation of another vendor, with its usual codec and timeouts.
    """
    clock = Clock()
    clock.advance(NOON)
    random = Random(7)
    endpoint, counters = FakeEndpoint(), Counters()
    acknowledged: list[Sequence[Entry]] = []
    commanded: list[tuple[str, str, str]] = []

    def note_command(imei: str, codec: str, text: str) -> None:
        commanded.append((imei, codec, text))

    behaviour = Behaviour(
        TeltonikaSimulation(), codec.name, interval, records, response_timeout, answers=answers
    )
    if simulation is not None:
        behaviour = evolve(
            behaviour,
            simulation=simulation,
            codec=simulation.codecs[0],
            response_timeout=None,
        )
    device = SimulatedDevice(
        clock,
        random,
        IMEI,
        Track(random, HOME),
        endpoint=endpoint,
        behaviour=behaviour,
        counters=counters,
        on_acknowledged=acknowledged.append,
        on_command=on_command or note_command,
    )
    device.startService()
    return Bench(device, clock, endpoint, counters, acknowledged, commanded)


def timestamps(connection: FakeConnection) -> list[int]:
    """Return the timestamps of the records in the packet that the device has sent."""
    return [record.timestamp for record in connection.packet().records]
