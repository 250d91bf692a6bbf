"""The data of a simulated device: a vehicle on a track, and the device's memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Any, Final

from tracker.simulator.track import Track
from tracker.vendors.simulation import Moment

#: Number of satellites before the first record.
_SATELLITES: Final = 12


class Vehicle:
    """A vehicle on its journey.

    :param interval: seconds between two records.
    :param resolution: smallest difference between the times of two records, in seconds.
    """

    def __init__(self, random: Random, track: Track, interval: float, resolution: float) -> None:
        self._random = random
        self._track = track
        self._interval = interval
        self._step = round(resolution * 1000)
        self._satellites = _SATELLITES
        self._odometer = random.randrange(10_000, 300_000_000)
        self._recorded_at = 0.0
        self._timestamp = 0

    def begin(self, now: float) -> None:
        """Start to drive.

        :param now: UNIX time in seconds.
        """
        self._recorded_at = now

    def moment(self, now: float) -> Moment:
        """Return the time, and the fix of the last record."""
        return Moment(int(now * 1000), self._track.advance(0), self._satellites, self._odometer)

    def advance(self, now: float) -> Moment:
        """Drive until ``now``, and return the new fix.

        :param now: UNIX time in seconds.
        """
        fix = self._track.advance(now - self._recorded_at)
        self._recorded_at = now
        # The machine's clock may be set back; the timestamps of a device still increase.
        self._timestamp = max(int(now * 1000), self._timestamp + self._step)
        self._odometer += round(fix.speed / 3.6 * self._interval)
        self._satellites = self._random.randint(7, 19)
        return Moment(self._timestamp, fix, self._satellites, self._odometer)


class Flash:
    """Records that are kept, oldest first.

    :param packet_size: records per packet; a packet is not sent until it is full.
    """

    def __init__(self, packet_size: int) -> None:
        self.flushing = False
        """True to send packets that are not full, too."""
        self._packet_size = packet_size
        self._records: deque[Any] = deque()
        self._sent_before = 0  # number of these that have been transmitted
        self._stored = 0  # number of these that were made before the connection

    def __len__(self) -> int:
        return len(self._records)

    def append(self, record: Any) -> None:
        """Keep a record."""
        self._records.append(record)

    def connected(self) -> None:
        """Note that records can be sent from now on."""
        self._stored = len(self._records)

    def next_packet(self) -> tuple[list[Any], int, bool]:
        """Return the records of the next packet.

        :return: the records, none if they would not fill the packet; how many of them were sent
            before; and True if they were made before the connection.
        """
        count = min(len(self._records), self._packet_size)
        if count < self._packet_size and not self.flushing and not self._sent_before:
            return [], 0, False
        repeated = min(self._sent_before, count)
        self._sent_before = max(self._sent_before, count)
        return list(islice(self._records, count)), repeated, self._stored > 0

    def discard(self, packet: Sequence[Any]) -> None:
        """Remove the records of a packet, which were acknowledged or need not be kept."""
        for _ in packet:
            self._records.popleft()
        self._sent_before = max(0, self._sent_before - len(packet))
        self._stored = max(0, self._stored - len(packet))
