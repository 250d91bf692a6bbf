"""Many simulated devices, and journals of what they were told and what they did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import IO, Final

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from tracker.imei import check_digit
from tracker.position import digest
from tracker.simulator.device import (
    Behaviour,
    Counters,
    OnAcknowledged,
    OnCommand,
    SimulatedDevice,
)
from tracker.simulator.track import Track
from tracker.vendors.teltonika.avl import Codec, Record
from tracker.vendors.teltonika.positions import position

#: Tirana: the fleet has to drive somewhere.
HOME = (41.3275, 19.8187)

#: How many simulated IMEIs there are.
IMEIS: Final = 1_000_000


class Fleet(MultiService):
    """``count`` devices that drive around and report to one endpoint.

    :param seed: the same seed gives the same vehicles.
    :param first: number of the first one's IMEI; the others follow it.
    :raises ValueError: when there are not so many IMEIs.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        count: int,
        behaviour: Behaviour,
        *,
        on_acknowledged: OnAcknowledged | None = None,
        seed: int = 0,
        first: int = 0,
        on_command: OnCommand | None = None,
    ) -> None:
        super().__init__()
        self.counters = Counters()
        self.devices = []
        for number in range(first, first + count):
            random = Random(f"{seed}/{number}")  # noqa: S311 - vehicles, not secrets
            device = SimulatedDevice(
                clock,
                random,
                simulated_imei(number),
                Track(random, HOME),
                endpoint=endpoint,
                behaviour=behaviour,
                counters=self.counters,
                on_acknowledged=on_acknowledged,
                on_command=on_command,
            )
            self.devices.append(device)
            device.setServiceParent(self)

    def stop_recording(self) -> None:
        """Park all vehicles; what is left in their flash is still sent."""
        for device in self.devices:
            device.stop_recording()

    @property
    def unacknowledged(self) -> int:
        """Records that wait in the devices' flash."""
        return sum(device.unacknowledged for device in self.devices)


def simulated_imei(number: int) -> str:
    """An IMEI with a right check digit, of a range that no real device is in.

    :param number: 0 … 999,999.
    :raises ValueError: for others.
    """
    if not 0 <= number < IMEIS:
        raise ValueError(f"there are a million simulated IMEIs: {number}")
    digits = f"00000000{number:06}"
    return digits + check_digit(digits)


class Journal:
    """A file with a line for each acknowledged record: what the platform answers for.

    A line is ``{"device_id": …, "ts": …, "digest": …}``, the key of the record in
    the positions table, the digest in hexadecimal.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, imei: str, codec: Codec, records: Sequence[Record]) -> None:
        """Write down what was acknowledged, at once."""
        for record in records:
            acknowledged = position(imei, record)
            line = {
                "device_id": imei,
                "ts": acknowledged.timestamp,
                "digest": digest(acknowledged.to_payload()).hex(),
            }
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class CommandJournal:
    """A file with a line for each executed command, in the order of the executions.

    A line is ``{"device_id": …, "codec": "12" or "14", "text": …}``.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, imei: str, codec: str, text: str) -> None:
        """Write down that a device has executed a command, at once."""
        line = {"device_id": imei, "codec": codec, "text": text}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
