"""Fuzzing of the protocols with 100,000 damaged inputs each.

Real logins, frames and datagrams are damaged in many ways. Half of them get a correct checksum,
which lets them reach the decoders of the data. The damage is random, but the same in each run.
"""

from __future__ import annotations

import gc
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport, StringTransport
from twisted.python.failure import Failure

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.teltonika import golden_7
from tests.unit.vendors.teltonika.conversation import is_message
from tests.unit.vendors.teltonika.golden import GOLDEN, IMEI, LOGIN
from tests.unit.vendors.teltonika.golden_messages import LONG_TIME_13, TWO_PARTS_12
from tracker.interfaces import ConnectionEnded, NotAppended
from tracker.limits import Limits
from tracker.position import Entry, iso_milliseconds
from tracker.vendors.connection import ConnectionFactory
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.dialect import ProtocolError, Step
from tracker.vendors.state import Stage
from tracker.vendors.teltonika.avl import CODEC_16, Record, encode_packet
from tracker.vendors.teltonika.commands import command_frame
from tracker.vendors.teltonika.datagram import Datagram, encode_ack, encode_datagram
from tracker.vendors.teltonika.datagram_dialect import TeltonikaDatagramDialect
from tracker.vendors.teltonika.dialect import Frame, TeltonikaDialect
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message

INPUTS = 100_000
#: Small limits, which short inputs can exceed.
LIMITS = Limits(frame_bytes=400, command_frame_bytes=600, records=20, buffer_bytes=600)
MAX_CHUNK_BYTES = 300
#: Few slots are all in use soon; then memory does not grow.
FEW_LAYOUTS = 20
#: Bytes that a connection may buffer: the limit, and one chunk that exceeds it.
MAX_BUFFERED_BYTES = LIMITS.command_frame_bytes + 12 + MAX_CHUNK_BYTES

GENERATED = [
    Record(1_710_504_600_000, 0, 1, 2, 3, 4, 5, 6, 7, ((300, 1, 9), (9, 8, 1)), (), generation)
    for generation in (0, 5)
]
MESSAGES = [
    *(
        encode_message(
            Message(
                codec,
                0x06,
                b"a message of some length \xff\x00",
                1_710_504_600 if codec.timed else None,
                IMEI if codec.addressed else None,
            )
        )
        for codec in MESSAGE_CODECS.values()
    ),
    TWO_PARTS_12.data,
    LONG_TIME_13.data,
]
RECORDS = [*(golden.data for golden in GOLDEN), encode_packet(CODEC_16, GENERATED), golden_7.DATA]
DATA = [*RECORDS, *MESSAGES]
FRAMES = [encode_frame(data) for data in DATA]
COMMAND = command_frame(IMEI, b"getinfo", "12").data


class Mutations:
    """Random damage to bytes, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._ways: list[Callable[[bytearray], None]] = [
            self._flip_a_bit,
            self._write_a_byte,
            self._write_a_word,
            self._cut,
            self._leave_out,
            self._repeat,
            self._splice,
            self._insert,
        ]

    def damaged(self, data: bytes) -> bytes:
        """Return ``data`` with one to three kinds of damage."""
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            if changed:
                self.random.choice(self._ways)(changed)
        return bytes(changed)

    def _flip_a_bit(self, data: bytearray) -> None:
        data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)

    def _write_a_byte(self, data: bytearray) -> None:
        # Half of the time among lengths, codec ids and counts.
        near = self.random.random() < 0.5
        position = self.random.randrange(min(len(data), 12) if near else len(data))
        data[position] = self.random.choice((0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF))

    def _write_a_word(self, data: bytearray) -> None:
        position = self.random.randrange(len(data))
        value = self.random.choice((0, 1, 2, 3, 400, 401, 600, 601, 0x7FFFFFFF, 0xFFFFFFFF))
        data[position : position + 4] = value.to_bytes(4, "big")

    def _cut(self, data: bytearray) -> None:
        del data[self.random.randrange(len(data)) :]

    def _leave_out(self, data: bytearray) -> None:
        start = self.random.randrange(len(data))
        del data[start : start + self.random.randrange(1, 9)]

    def _repeat(self, data: bytearray) -> None:
        start = self.random.randrange(len(data))
        data[start:start] = data[start : start + self.random.randrange(1, 40)]

    def _splice(self, data: bytearray) -> None:
        other = self.random.choice(FRAMES)
        data[self.random.randrange(len(data)) :] = other[self.random.randrange(len(other)) :]

    def _insert(self, data: bytearray) -> None:
        position = self.random.randrange(len(data))
        data[position:position] = self.random.randbytes(self.random.randrange(1, 9))

    def of_a_stream(self) -> bytes:
        """Return one input of a connection."""
        choice = self.random.random()
        if choice < 0.3:
            return self.random.choice(FRAMES)
        if choice < 0.6:  # a correct envelope around damaged data
            return encode_frame(self.damaged(self.random.choice(DATA)))
        if choice < 0.85:
            return self.damaged(self.random.choice(FRAMES))
        if choice < 0.9:
            return self.random.choice((LOGIN, self.damaged(LOGIN)))
        if choice < 0.95:
            return b"\xff" * self.random.randrange(1, 20)
        return self.random.randbytes(self.random.randrange(1, 100))

    def of_a_datagram(self) -> bytes:
        """Return one datagram."""
        choice = self.random.random()
        if choice < 0.05:
            return self.random.randbytes(self.random.randrange(100))
        data = self.random.choice(DATA)
        if choice < 0.6:
            data = self.damaged(data)
        ids = self.random.randrange(0x10000), self.random.randrange(0x100)
        datagram = encode_datagram(Datagram(*ids, IMEI, data))
        return self.damaged(datagram) if choice > 0.8 else datagram

    def chunks(self, data: bytes) -> list[bytes]:
        """Return ``data`` in chunks of random size, like a network."""
        largest = self.random.choice((1, 7, 50, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES))
        if largest == 1:  # byte by byte, but only a part, because it is slow
            whole = [data[index : index + 1] for index in range(min(len(data), 40))]
            return [*whole, *self.chunks(data[40:])] if len(data) > 40 else whole
        return [data[start : start + largest] for start in range(0, len(data), largest)]


class Tally:
    """Counts of events over all inputs."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self.reasons: set[str] = set()
        self.failures: list[Failure] = []

    def note_rejections(self, gateway: FakeGateway) -> int:
        """Add the reasons of rejections, without numbers, and return how many there are."""
        reasons = [event[1] for event in gateway.events if event[0] == "rejected"]
        self.reasons.update(
            re.sub(r"0x[0-9a-f]+|\d+|'[0-9a-f]*'", "#", reason) for reason in reasons
        )
        self.of["rejected"] += len(reasons)
        return len(reasons)

    def note_failure(self, failure: Failure) -> None:
        """Add a failure that a Deferred of the gateway would only log."""
        self.failures.append(failure)


def parse_replies(answer: bytes) -> tuple[int, list[int], int]:
    """Return the number of accepted logins, the counts in ACKs, and the number of commands."""
    logins = commands = 0
    counts = []
    while answer:
        if answer.startswith(COMMAND):
            commands += 1
            answer = answer[len(COMMAND) :]
        elif answer[:1] == b"\x01":
            logins += 1
            answer = answer[1:]
        else:
            assert answer[:3] == bytes(3), answer
            assert len(answer) >= 4, "incomplete ACK"
            counts.append(answer[3])
            answer = answer[4:]
    return logins, counts, commands


class WatchedDialect(TeltonikaDialect):
    """Dialect that counts the errors in its steps by whether they close the connection."""

    def __init__(self, layouts: Layouts, gateway: FakeGateway, errors: Counter[bool]) -> None:
        super().__init__(LIMITS, layouts, gateway.tally.count_truncated)
        self.errors = errors

    def handle(self, frame: Frame, now: float) -> Sequence[Step]:
        steps = super().handle(frame, now)
        self.errors.update(step.closes for step in steps if isinstance(step, ProtocolError))
        return steps


class Connection:
    """One connection with assertions after each input."""

    def __init__(self, mutations: Mutations, tally: Tally, layouts: Layouts) -> None:
        self.random = mutations.random
        self.tally = tally
        self.gateway = FakeGateway()
        self.clock = Clock()
        self.transport = StringTransport()
        self.errors: Counter[bool] = Counter()
        protocol = ConnectionFactory(
            self.gateway,
            LIMITS,
            self.clock,
            lambda: WatchedDialect(layouts, self.gateway, self.errors),
        ).buildProtocol(None)
        assert protocol is not None
        self.protocol = protocol
        self.protocol.makeConnection(self.transport)
        self.settled = 0
        self.confirmed: list[Sequence[Entry]] = []
        self.is_reading = True
        self.commands = 0
        self.is_waiting = False

    def request_command(self) -> None:
        """Wait for permission to write a command."""
        if not self.is_waiting:
            self.is_waiting = True
            free = self.protocol.when_free()
            free.addCallbacks(self.write_command, self.fail_command).addErrback(
                self.tally.note_failure
            )

    def write_command(self, _: None) -> None:
        self.is_waiting = False
        assert self.is_reading
        assert not self.transport.disconnecting
        assert not self.protocol._exchange._buffer, "inside a frame"
        acknowledged = parse_replies(self.transport.value())[1]
        records = [one for one, _ in self.gateway.published if not is_message(one)]
        assert len(acknowledged) == len(records), "before an ACK"
        self.protocol.write_command(COMMAND)
        self.commands += 1

    def fail_command(self, failure: Failure) -> None:
        self.is_waiting = False
        failure.trap(ConnectionEnded)
        assert self.protocol._exchange.state.stage is Stage.CLOSED

    def check(self) -> None:
        answer = self.transport.value()
        if answer == b"\x00":
            assert self.protocol.device_id is None
            assert self.transport.disconnecting
        else:
            logins, counts, commands = parse_replies(answer)
            assert counts == self.due()
            assert commands == self.commands
            assert bool(logins) is (self.protocol.device_id is not None)
        assert len(self.protocol._exchange._buffer) <= MAX_BUFFERED_BYTES
        if len(self.gateway.kinds) > self.errors[False]:
            assert self.transport.disconnecting

    def due(self) -> list[int]:
        """Return the counts that the device must have received in ACKs."""
        return [len(entries) for entries in self.confirmed if not is_message(entries)]

    def feed(self, chunk: bytes) -> None:
        if self.transport.producerState == "paused" and not self.transport.disconnecting:
            # A paused transport delivers nothing until the peer reads and Redis confirms.
            self.set_reading(True)
            self.settle()
            assert self.transport.producerState == "producing" or self.transport.disconnecting
        elif self.random.random() < 0.02:
            self.set_reading(not self.is_reading)
        self.protocol.dataReceived(chunk)
        self.clock.advance(0)

    def set_reading(self, reads: bool) -> None:
        """Let the peer start or stop reading."""
        producer = self.transport.producer
        if producer is None or reads is self.is_reading:
            return
        self.is_reading = reads
        if reads:
            producer.resumeProducing()
        else:
            producer.pauseProducing()

    def settle(self) -> None:
        """Confirm all pending appends."""
        while len(self.gateway.published) > self.settled:
            entries, confirmation = self.gateway.published[self.settled]
            self.settled += 1
            if confirmation.called:
                continue  # cancelled: the connection is closed
            self.confirmed.append(entries)
            confirmation.callback(None)
            confirmation.addErrback(self.tally.note_failure)
            self.check()

    def end(self) -> None:
        """End the connection, with pending appends confirmed or refused."""
        under_way = [
            confirmation
            for entries, confirmation in self.gateway.published[self.settled :]
            if not (is_message(entries) or confirmation.called)
        ]
        assert len(under_way) <= 1
        if under_way and self.random.random() < 0.5:
            under_way[0].errback(NotAppended("stopping"))
            assert self.transport.disconnecting
        self.check()
        self.protocol.connectionLost(Failure(ConnectionDone()))
        for entries, confirmation in self.gateway.published:
            assert confirmation.called or is_message(entries)
            confirmation.addErrback(self.tally.note_failure)
        confirmed = len(self.confirmed)
        self.settle()
        for _ in range(9):  # the remaining messages are read in several reactor turns
            self.clock.advance(0)
            self.settle()
        self.tally.of["outlived"] += len(self.confirmed) - confirmed
        if self.random.random() < 0.1:
            self.clock.advance(LIMITS.idle_timeout + 1)
        self.check()
        assert not self.protocol._exchange._buffer
        assert not self.is_waiting
        assert not self.clock.getDelayedCalls()
        self.tally.of["commands"] += self.commands
        self.tally.of["acknowledged"] += len(self.due())
        self.tally.of["confirmed"] += len(self.confirmed)
        self.tally.of["given up"] += len(self.gateway.published) - len(self.confirmed)
        self.tally.note_rejections(self.gateway)


def live(mutations: Mutations, tally: Tally, layouts: Layouts) -> int:
    """Run one connection and return the number of its inputs."""
    connection = Connection(mutations, tally, layouts)
    choose = mutations.random.random
    if choose() < 0.85:
        connection.feed(LOGIN)
    settle_chance = mutations.random.choice((0.0, 0.3, 1.0, 1.0, 1.0))
    inputs = 0
    for _ in range(mutations.random.randrange(1, 9)):
        closed = connection.transport.disconnecting
        inputs += 1
        connection.request_command()
        for chunk in mutations.chunks(mutations.of_a_stream()):
            connection.feed(chunk)
        connection.check()
        if closed:
            break
        if choose() < settle_chance:
            connection.settle()
    connection.end()
    return inputs


def blocks() -> int:
    """Return the number of memory blocks in use."""
    gc.collect()
    return sys.getallocatedblocks()


def growth(once: Callable[[], int], settle: Callable[[], None]) -> int:
    """Return the growth in memory blocks between a fifth of the inputs and all of them."""
    for minute in range(10_000):
        iso_milliseconds(minute * 60_000)  # fills its cache
    used = []
    for goal in (INPUTS // 5, INPUTS - INPUTS // 5):
        done = 0
        while done < goal:
            done += once()
        settle()
        used.append(blocks())
    return used[1] - used[0]


def test_damaged_input_does_not_break_a_connection() -> None:
    mutations, tally, layouts = Mutations(seed=3), Tally(), Layouts(FEW_LAYOUTS)
    assert growth(lambda: live(mutations, tally, layouts), lambda: None) < 1000
    assert len(layouts) == FEW_LAYOUTS
    assert not tally.failures, tally.failures[0]
    # All kinds of events have occurred often.
    assert tally.of["acknowledged"] > 10_000
    assert tally.of["confirmed"] > tally.of["acknowledged"] + 3000  # the rest are messages
    assert tally.of["outlived"] > 500
    assert tally.of["commands"] > 5000
    assert tally.of["given up"] > 1000
    assert tally.of["rejected"] > 10_000
    assert len(tally.reasons) >= 18, tally.reasons


LATEST = encode_datagram(Datagram(1, 1, IMEI, GOLDEN[0].data))


class Port:
    """The protocol of a UDP port with assertions after each datagram."""

    ADDRESS = ("192.0.2.1", 40_000)

    def __init__(self, mutations: Mutations, tally: Tally) -> None:
        self.mutations = mutations
        self.tally = tally
        self.gateway = FakeGateway()
        self.clock = Clock()
        self.clock.advance(1000)
        self.transport = FakeDatagramTransport()
        truncated = self.gateway.tally.count_truncated
        dialect = TeltonikaDatagramDialect(LIMITS, Layouts(FEW_LAYOUTS), truncated)
        self.protocol = DatagramPort(self.gateway, LIMITS, self.clock, dialect)
        self.protocol.makeConnection(self.transport)
        self.last = b""
        self.answers: dict[bytes, bytes] = {}
        """Datagram without its unused byte → its ACK."""
        self.under_way: list[tuple[bytes, Any]] = []

    def answered(self) -> list[bytes]:
        written, self.transport.written = self.transport.written, []
        assert all(address == self.ADDRESS for _, address in written)
        return [answer for answer, _ in written]

    def feed(self) -> int:
        """Receive one datagram, and confirm pending appends at random."""
        choose = self.mutations.random.random
        datagram = self.last if choose() < 0.1 else self.mutations.of_a_datagram()
        self.last = datagram
        self.protocol.datagramReceived(datagram, self.ADDRESS)
        key = datagram[:4] + datagram[5:]
        known = self.answers.get(key)
        assert self.answered() == ([] if known is None else [known]), (
            "before the append is confirmed"
        )
        if self.gateway.published:
            ((entries, confirmation),) = self.gateway.published
            assert known is None, "appended again"
            self.under_way.append((key, (entries, confirmation)))
        assert len(self.under_way) <= 5
        self.tally.note_rejections(self.gateway)
        self.gateway.published.clear()
        self.gateway.events.clear()
        if len(self.under_way) == 5 or choose() < 0.7:
            self.settle()
        if choose() < 0.001:
            self.forget()
        return 1

    def forget(self) -> None:
        """Confirm all appends and let remembered datagrams expire, except a last one."""
        self.settle()
        self.clock.advance(61)
        self.answers.clear()
        self.protocol.datagramReceived(LATEST, self.ADDRESS)
        self.under_way.append((LATEST[:4] + LATEST[5:], self.gateway.published.pop()))
        self.settle()

    def settle(self) -> None:
        """Confirm or refuse all pending appends."""
        for key, (entries, confirmation) in self.under_way:
            if self.mutations.random.random() < 0.1:
                confirmation.errback(NotAppended("stopping"))
                assert not self.answered()
                self.tally.of["given up"] += 1
            else:
                confirmation.callback(None)
                ack = encode_ack(int.from_bytes(key[2:4], "big"), key[4], len(entries))
                assert self.answered() == [ack]
                self.answers[key] = ack
                self.tally.of["acknowledged"] += 1
            confirmation.addErrback(self.tally.note_failure)
        self.under_way.clear()


def test_damaged_datagram_does_not_break_the_port() -> None:
    mutations, tally = Mutations(seed=4), Tally()
    port = Port(mutations, tally)
    assert growth(port.feed, port.forget) < 1000
    assert not tally.failures, tally.failures[0]
    assert tally.of["acknowledged"] > 10_000
    assert tally.of["rejected"] > 10_000
    assert len(tally.reasons) >= 14, tally.reasons
