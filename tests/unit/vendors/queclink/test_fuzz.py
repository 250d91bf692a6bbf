"""Fuzzing of the ASCII encoding: damaged frames over TCP and UDP.

``make test`` runs a sample, ``make test-fuzz`` all. The damage is random, but the same in each run.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.task import Clock

from tests.unit.fakes import FakeGateway
from tests.unit.vendors import posts
from tests.unit.vendors.queclink.conversation import information, talk
from tests.unit.vendors.queclink.golden import GOLDEN
from tests.unit.vendors.talk import Talk
from tracker.extra import read_extra
from tracker.limits import Limits
from tracker.position import Entry, Position
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.queclink.ids import DEVICE_ID
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.queclink.vendor import Queclink

#: Number of damaged frames of each test.
INPUTS: Final = int(os.environ.get("FUZZ_INPUTS", "5000"))
LIMITS: Final = Limits(frame_bytes=700, buffer_bytes=1400, records=5, message_bytes=64)
FRAMES: Final = [*(golden.data for golden in GOLDEN), information(7)]
#: Pieces that have a meaning in a frame.
PIECES: Final = (
    *(b",", b"$", b"\0", b"+", b"+RESP:GT", b"+BUFF:GTFRI,", b"+ACK:GTHBD,", b"\r\n", b",,,,,,,"),
    *(b"-180.000001,90.000001,20240230000000,", b"1,2,3,4,121.354335,31.222073,20240101000000,"),
    *(b"0,0.0,0,0.0,0.000000,0.000000,20040101000000,", b"FF", b"99999999999", b"\xff", b"03"),
)
SACK: Final = re.compile(rb"\+SACK:(?:GTHBD,[0-9A-F]*,)?([0-9A-Fa-f]{0,4})\$")
PLACE: Final = re.compile(r"(-?\d+\.\d+),(-?\d+\.\d+),\d{14}", re.ASCII)


class Mutations:
    """Random damage to frames, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            *(self._write, self._cut, self._leave_out, self._repeat, self._splice, self._insert),
            self._swap_fields,
        )

    def input(self) -> bytes:
        """Return a frame, damaged in most cases."""
        choice = self.random.random()
        if choice < 0.2:
            return self.random.choice(FRAMES)
        if choice < 0.25:
            return self.random.randbytes(self.random.randrange(1, 100))
        changed = bytearray(self.random.choice(FRAMES))
        for _ in range(self.random.choice((1, 1, 2, 4))):
            if changed:
                self.random.choice(self._ways)(changed)
        return bytes(changed)

    def chunks(self, data: bytes) -> list[bytes]:
        """Return ``data`` in chunks of random size, like a network."""
        size = self.random.choice((1, 7, 50, 500, 5000))
        return [data[start : start + size] for start in range(0, len(data), size)]

    def _at(self, data: bytearray) -> int:
        return self.random.randrange(len(data))

    def _write(self, data: bytearray) -> None:
        data[self._at(data)] = self.random.choice((*b"0123456789.,-$+ABFG", self._at(data) % 256))

    def _cut(self, data: bytearray) -> None:
        del data[self._at(data) :]

    def _leave_out(self, data: bytearray) -> None:
        start = self._at(data)
        del data[start : start + self.random.randrange(1, 30)]

    def _repeat(self, data: bytearray) -> None:
        start = self._at(data)
        data[start:start] = data[start : start + self.random.randrange(1, 200)]

    def _splice(self, data: bytearray) -> None:
        other = self.random.choice(FRAMES)
        data[self._at(data) :] = other[self.random.randrange(len(other)) :]

    def _insert(self, data: bytearray) -> None:
        start = self._at(data)
        data[start:start] = self.random.choice(PIECES)

    def _swap_fields(self, data: bytearray) -> None:
        fields = bytes(data).split(b",")
        first, second = self.random.randrange(len(fields)), self.random.randrange(len(fields))
        fields[first], fields[second] = fields[second], fields[first]
        data[:] = b",".join(fields)


def check_entries(entries: Sequence[Entry], data: bytes) -> None:
    """Assert that entries are valid, and that their coordinates stand in the data."""
    text = data.decode("utf-8", errors="replace")
    # Overlapping matches count, too.
    places = {
        (float(found[1]), float(found[2]))
        for start in range(len(text))
        if text[start - 1 : start] in ("", ",") and (found := PLACE.match(text, start))
    }
    for entry in entries:
        assert DEVICE_ID.fullmatch(entry.device_id)
        position = Position.from_payload(entry.payload)
        extra = read_extra(entry.extra)
        assert position.timestamp == entry.ts
        if position.longitude is None or position.latitude is None:
            assert extra.fix is not True
        else:
            assert (position.longitude, position.latitude) in places
            assert abs(position.longitude) <= 180
            assert abs(position.latitude) <= 90
            assert extra.fix is not None


def published(gateway: FakeGateway) -> list[Entry]:
    return [entry for entries, _ in gateway.published for entry in entries]


def without_time(entry: Entry) -> dict[str, Any]:
    """Return a payload without its time, which may be that of the arrival."""
    payload: dict[str, Any] = json.loads(entry.payload)
    return payload | {"timestamp": None}


def acknowledged(data: bytes) -> Counter[str]:
    """Return the count numbers in acknowledgements, all of which have to be whole."""
    assert SACK.sub(b"", data) == b""
    return Counter(number.decode() for number in SACK.findall(data))


def test_damaged_streams_give_valid_entries_in_any_segmentation() -> None:
    mutations = Mutations(20)
    tally: Counter[str] = Counter()
    for _ in range(INPUTS // 5):
        data = b"".join(mutations.input() for _ in range(5))
        devices: list[Talk] = []
        for chunks in ([data], mutations.chunks(data)):
            device = talk(limits=LIMITS)
            device.gateway.confirms_immediately = True
            for chunk in chunks:
                device.send(chunk)
                if device.closed:
                    break
                device.clock.advance(100)  # the rate of messages is not under test
            devices.append(device)
        whole, parted = (published(device.gateway) for device in devices)
        check_entries(whole, data)
        if not any(device.closed for device in devices):
            assert list(map(without_time, whole)) == list(map(without_time, parted))
        for device in devices:
            expected = Counter(
                json.loads(entries[0].payload)["attributes"].get("count", "")
                for entries, _ in device.gateway.published
            )
            heard = acknowledged(device.received())
            assert not [number for number in expected if number and not heard[number]]
            assert device.unread <= LIMITS.buffer_bytes + 5000
        tally["entries"] += len(whole)
        tally["rejected"] += len(devices[0].gateway.kinds)
    assert min(tally["entries"], tally["rejected"]) > INPUTS / 10


def test_damaged_datagrams_give_valid_entries_or_none() -> None:
    mutations = Mutations(21)

    def build(gateway: FakeGateway, limits: Limits, clock: Clock) -> DatagramPort:
        return Queclink().buildDatagramProtocol(gateway, limits, clock, QueclinkSettings())

    port = posts.Port(LIMITS, build)
    port.gateway.confirms_immediately = True
    tally: Counter[str] = Counter()
    for number in range(INPUTS):
        data = b"".join(mutations.input() for _ in range(mutations.random.choice((1, 1, 1, 3))))
        port.receive(data, ("192.0.2.1", number % 60_000))
        port.clock.advance(100)
        entries = published(port.gateway)
        check_entries(entries, data)
        assert len({entry.device_id for entry in entries}) <= 1
        for ack, _ in port.acks():
            acknowledged(ack)
        port.transport.written.clear()
        tally["entries"] += len(entries)
        tally["rejected"] += len(port.gateway.kinds)
        port.gateway.published.clear()
        port.gateway.kinds.clear()
        port.gateway.events.clear()
    assert min(tally["entries"], tally["rejected"]) > INPUTS / 10
