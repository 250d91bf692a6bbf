"""Packets, pings, answers and commands in any order, in any pieces: no command disturbs any."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame, message
from tracker.interfaces import ConnectionEnded
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.commands import command_frame
from tracker.vendors.teltonika.dialect import LOGIN_SETTLES
from tracker.vendors.teltonika.frame import decode_frame

#: So long that no connection ends here by itself.
LIMITS = Limits(login_timeout=3600, idle_timeout=604_800)
ACCEPT = b"\x01"
ANSWER = message()
#: What a device sends → what it is told.
UNITS = {
    b"\xff": b"",
    LOGIN: ACCEPT,
    frame(1): b"\x00\x00\x00\x01",
    frame(2, 3, 4): b"\x00\x00\x00\x03",
    ANSWER: b"",
    message(b"serial", 0x0F, 1_699_440_036, IMEI): b"",
}


class Run:
    """A conversation, and what must hold whenever a byte is written in it."""

    def __init__(self, units: Sequence[bytes]) -> None:
        self.units = [LOGIN, *units]
        self.sent = b"".join(self.units)
        self.ends = list(accumulate(len(unit) for unit in self.units))
        self.delivered = 0
        self.last_heard = 0.0
        self.accepted_at = 0.0
        self.reads = True
        self.told = b""
        self.asked = 0
        self.waiting: bytes | None = None
        self.radio_sleeps = 0.0
        self.written: list[bytes] = []
        self.failures: list[Failure] = []
        self.broken: list[object] = []
        self.talk = Conversation(LIMITS)
        self._write = self.talk.transport.write
        self.talk.transport.write = self.note

    @property
    def whole(self) -> list[bytes]:
        """What has arrived whole."""
        ends = zip(self.units, self.ends, strict=True)
        return [unit for unit, end in ends if end <= self.delivered]

    @property
    def due(self) -> bytes:
        """All that the device has to be told of that."""
        return b"".join(UNITS[unit] for unit in self.whole)

    def deliver(self, size: int) -> None:
        """The next bytes arrive, if they are read."""
        piece = self.sent[self.delivered : self.delivered + size]
        if piece and self.talk.transport.producerState == "producing":
            self.delivered += len(piece)
            self.last_heard = self.talk.clock.seconds()
            self.talk.protocol.dataReceived(piece)

    def deliver_whole(self, count: int) -> None:
        """What is left of the next one arrives, or of the next so many, in one segment."""
        for end in [end for end in self.ends if end > self.delivered][count - 1 : count]:
            self.deliver(end - self.delivered)

    def read(self, reads: bool) -> None:
        """The peer begins or ceases to read."""
        if reads is not self.reads:
            self.reads = reads
            producer = self.talk.transport.producer
            (producer.resumeProducing if reads else producer.pauseProducing)()

    def confirm(self, count: int) -> None:
        """Redis confirms so many of what was published."""
        under_way = [kept for _, kept in self.talk.gateway.published if not kept.called]
        for confirmation in under_way[:count]:
            confirmation.callback(None)
            confirmation.addErrback(self.broken.append)

    def ask(self, radio_sleeps: float) -> None:
        """Somebody wants to write a command; one at a time."""
        if self.waiting is None:
            self.asked += 1
            codec = "14" if self.asked % 2 else "12"
            self.waiting = command_frame(IMEI, f"command {self.asked}", codec).data
            self.radio_sleeps = radio_sleeps
            self.wanted = self.talk.protocol.when_free(radio_sleeps)
            self.wanted.addCallback(self._turn).addErrback(self._no_turn)

    def give_up(self) -> None:
        """Nobody wants to write it any more."""
        if self.waiting is not None:
            self.wanted.cancel()
            assert self.waiting is None

    def wait(self, seconds: float) -> None:
        """Time passes; 0: the reactor turns."""
        self.talk.clock.advance(seconds)

    def _turn(self, _: None) -> None:
        data, self.waiting = self.waiting, None
        assert data is not None
        self.talk.protocol.write_command(data)

    def _no_turn(self, failure: Failure) -> None:
        self.waiting = None
        self.failures.append(failure)

    def note(self, data: bytes) -> None:
        """The transport is given something to write."""
        self._write(data)
        now = self.talk.clock.seconds()
        if data in UNITS.values():
            self.told += data
            self._expect(self.due.startswith(self.told), "an answer to what was not sent")
            if data == ACCEPT:
                self.accepted_at = now
        elif data:
            self.written.append(data)
            self._expect(self.delivered in self.ends, "inside of what the device sends")
            self._expect(self.told == self.due, "before an acknowledgement")
            self._expect(self.reads, "to a peer that does not read")
            silent = now - self.last_heard
            self._expect(not self.radio_sleeps or silent < self.radio_sleeps, "to a sleeper")
            settled = now >= self.accepted_at + LOGIN_SETTLES
            self._expect(settled or not self._login_was_last(), "right behind a login's answer")

    def _expect(self, holds: bool, what: str) -> None:
        # Not asserted: whoever writes may be called by a Deferred.
        if not holds:
            self.broken.append(what)

    def _login_was_last(self) -> bool:
        return [unit for unit in self.whole if UNITS[unit]][-1] == LOGIN

    def finish(self) -> None:
        """All arrives and is confirmed, and whoever waits gets a turn."""
        self.read(True)
        while self.told != self.due or self.delivered < len(self.sent):
            self.deliver(len(self.sent))
            self.confirm(1000)
            self.wait(0)
        self.wait(LOGIN_SETTLES)
        if self.waiting is not None and self.radio_sleeps:  # it was silent for too long
            self.last_heard = self.talk.clock.seconds()
            self.talk.send(b"\xff")
        assert self.waiting is None


@frozen
class Step:
    """A method of :class:`Run`, to be called later."""

    name: str
    arguments: tuple[object, ...] = ()

    def do(self, run: Run) -> None:
        getattr(run, self.name)(*self.arguments)


def steps(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(name), st.tuples(*arguments))


STEPS = st.one_of(
    steps("deliver", st.integers(1, 70)),
    steps("deliver_whole", st.sampled_from([1, 1, 2, 3])),
    steps("confirm", st.integers(1, 4)),
    steps("ask", st.sampled_from([0, 0, 0.5, 20])),
    steps("give_up"),
    steps("wait", st.sampled_from([0, 0, 0.4, LOGIN_SETTLES, 30])),
    steps("read", st.booleans()),
)


def parsed(told: bytes) -> tuple[bytes, list[bytes]]:
    """What a device makes of what it was sent: answers to what it has sent, and commands."""
    answers, commands = b"", []
    while told:
        command = decode_frame(told, 8192)
        if isinstance(command, Decoded):
            commands.append(told[: command.used])
            told = told[command.used :]
        else:
            size = 1 if told[:1] == ACCEPT else 4
            assert told[:size] in UNITS.values()
            answers += told[:size]
            told = told[size:]
    return answers, commands


@settings(max_examples=600)
@given(st.lists(st.sampled_from([*UNITS]), max_size=8), st.lists(STEPS, min_size=10, max_size=50))
def test_a_command_never_comes_between(units: list[bytes], done: list[Step]) -> None:
    run = Run(units)
    for step in done:
        step.do(run)
    assert parsed(run.talk.transport.value()) == (run.told, run.written)
    run.finish()
    assert run.broken == []
    assert parsed(run.talk.transport.value()) == (run.due, run.written)
    assert len(run.written) + len(run.failures) == run.asked
    assert all(failure.check(CancelledError) for failure in run.failures)
    assert len(run.talk.told("answered")) == units.count(ANSWER)
    assert not run.talk.told("rejected")
    assert run.talk.timers == 1


@given(st.lists(st.sampled_from([*UNITS]), max_size=8), st.lists(STEPS, max_size=20))
def test_wherever_a_connection_ends_no_command_is_left(
    units: list[bytes], done: list[Step]
) -> None:
    run = Run(units)
    for step in done:
        step.do(run)
    run.give_up()
    run.ask(0)
    written = len(run.written)
    asked_in_vain = run.waiting is not None
    run.talk.lose()
    assert run.waiting is None
    assert not asked_in_vain or run.failures[-1].check(ConnectionEnded)
    run.confirm(1000)
    run.wait(60)
    assert run.broken == []
    assert len(run.written) == written
    assert run.talk.timers == 0
