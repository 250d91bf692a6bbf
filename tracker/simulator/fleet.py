"""A fleet of simulated devices, and journals of their acknowledged records and commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import IO, Final

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from tracker.imei import check_digit
from tracker.position import Entry, digest
from tracker.simulator.device import (
    Behaviour,
    Counters,
    OnAcknowledged,
    OnCommand,
    SimulatedDevice,
)
from tracker.simulator.track import Track

#: Centre of the drives, in degrees: Tirana.
HOME = (41.3275, 19.8187)

#: Type allocation code of the simulated devices, which no network device has. TACs that begin
#: with 00 are for test equipment; those from 00100100 to 00101799 are allotted by the CTIA.
#: Source: GSMA TS.06, "IMEI Allocation and Approval Process", version 17.0, annex A and the list
#: of allocating bodies for test IMEIs.
TEST_TAC: Final = "00101700"

#: Number of simulated IMEIs: a serial number has six digits (3GPP TS 23.003, 6.2.1).
IMEI_COUNT: Final = 1_000_000


class Fleet(MultiService):
    """``count`` devices that drive around and report to one endpoint.

    :param seed: seed of the vehicles; the same seed gives the same drives.
    :param first: number of the first device, see :func:`simulated_imei`; the others follow it.
    :raises ValueError: if a number is :data:`IMEI_COUNT` or more.
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
        """Park all vehicles; the records in their flash are still sent."""
        for device in self.devices:
            device.stop_recording()

    @property
    def unacknowledged(self) -> int:
        """Number of records that the devices keep, or have sent without an answer yet."""
        return sum(device.unacknowledged for device in self.devices)


def simulated_imei(number: int) -> str:
    """Return the IMEI of a simulated device: :data:`TEST_TAC`, serial number, check digit.

    :param number: the serial number, 0 … 999,999.
    :raises ValueError: for other numbers.
    """
    if not 0 <= number < IMEI_COUNT:
        raise ValueError(f"no simulated IMEI {number}: they are numbered 0 to {IMEI_COUNT - 1}")
    digits = f"{TEST_TAC}{number:06}"
    return digits + check_digit(digits)


class Journal:
    """A file with one line for each acknowledged record.

    A line is ``{"device_id": …, "ts": …, "digest": …}``: the record's key in
    the positions table, with the digest in hexadecimal.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, entries: Sequence[Entry]) -> None:
        """Write acknowledged records, and flush."""
        for entry in entries:
            line = {
                "device_id": entry.device_id,
                "ts": entry.ts,
                "digest": digest(entry.payload).hex(),
            }
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class CommandJournal:
    """A file with one line for each executed command, in the order of execution.

    A line is ``{"device_id": …, "codec": …, "text": …}``. The text of a command that is
    not UTF-8 is ``0x`` and its bytes in hex.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __call__(self, device_id: str, codec: str, text: str) -> None:
        """Write an executed command, and flush."""
        line = {"device_id": device_id, "codec": codec, "text": text}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
