"""The data of a simulated device: a vehicle on a track, and its records."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Final

from tracker.simulator.commands import Moment
from tracker.simulator.track import Fix, Track
from tracker.vendors.teltonika.avl import Codec, Record

#: Number of satellites before the first record.
_SATELLITES: Final = 12
#: Generation type of a record that is made at a fixed interval.
_PERIODICAL: Final = 7


class Vehicle:
    """A vehicle that makes records of its journey.

    :param interval: seconds between two records.
    """

    def __init__(self, random: Random, track: Track, codec: Codec, interval: float) -> None:
        self._random = random
        self._track = track
        self._codec = codec
        self._interval = interval
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
        return Moment(now, self._track.advance(0), self._satellites)

    def record(self, now: float) -> Record:
        """Drive until ``now``, and return a record of the new fix.

        :param now: UNIX time in seconds.
        """
        fix = self._track.advance(now - self._recorded_at)
        self._recorded_at = now
        # The machine's clock may be set back; the timestamps of a device still increase.
        self._timestamp = max(int(now * 1000), self._timestamp + 1)
        self._odometer += round(fix.speed / 3.6 * self._interval)
        self._satellites = self._random.randint(7, 19)
        return self._make_record(fix)

    def _make_record(self, fix: Fix) -> Record:
        return Record(
            timestamp=self._timestamp,
            priority=0,
            longitude=round(fix.longitude * 1e7),
            latitude=round(fix.latitude * 1e7),
            altitude=fix.altitude,
            angle=fix.angle,
            satellites=self._satellites,
            speed=fix.speed,
            event=0,
            elements=(
                (239, 1, 1),  # ignition
                (240, 1, int(fix.speed > 0)),  # movement
                (21, 1, self._random.randint(2, 5)),  # GSM signal
                (200, 1, 0),  # sleep mode
                (69, 1, 1),  # GNSS on, with a fix
                (181, 2, self._random.randint(8, 25)),  # PDOP, tenths
                (182, 2, self._random.randint(5, 15)),  # HDOP, tenths
                (66, 2, self._random.randint(13_600, 14_400)),  # external voltage, mV
                (24, 2, fix.speed),
                (67, 2, self._random.randint(3_900, 4_150)),  # battery, mV
                (241, 4, 27_601),  # operator
                (16, 4, self._odometer % 2**32),  # total odometer, m
            ),
            generation=_PERIODICAL if self._codec.generation else None,
        )


class Flash:
    """Unacknowledged records, oldest first.

    :param packet_size: records per packet; a packet is not sent until it is full.
    """

    def __init__(self, packet_size: int) -> None:
        self.flushing = False
        """True to send packets that are not full, too."""
        self._packet_size = packet_size
        self._records: deque[Record] = deque()
        self._sent_before = 0  # number of these that have been transmitted

    def __len__(self) -> int:
        return len(self._records)

    def append(self, record: Record) -> None:
        """Keep a record."""
        self._records.append(record)

    def next_packet(self) -> tuple[list[Record], int]:
        """Return the records of the next packet, and how many of them were sent before.

        The packet is empty if it would not be full.
        """
        count = min(len(self._records), self._packet_size)
        if count < self._packet_size and not self.flushing and not self._sent_before:
            return [], 0
        repeated = min(self._sent_before, count)
        self._sent_before = max(self._sent_before, count)
        return list(islice(self._records, count)), repeated

    def acknowledged(self, packet: Sequence[Record]) -> None:
        """Remove the records of a packet."""
        for _ in packet:
            self._records.popleft()
        self._sent_before = max(0, self._sent_before - len(packet))
