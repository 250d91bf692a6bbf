"""Commands among packets, pings and answers in any order and any segments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from tests.unit.vendors.teltonika.conversation import (
    IMEI,
    LOGIN,
    Conversation,
    frame,
    message,
)
from tracker.interfaces import ConnectionEnded
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.commands import command_frame
from tracker.vendors.teltonika.dialect import LOGIN_SETTLE_TIME
from tracker.vendors.teltonika.envelope import decode_frame

#: Timeouts that no connection reaches.
LIMITS = Limits(login_timeout=3600, idle_timeout=604_800)
ACCEPT = b"\x01"
ANSWER = message()
#: Frame of a device → reply of the server.
REPLIES = {
    b"\xff": b"",
    LOGIN: ACCEPT,
    frame(1): b"\x00\x00\x00\x01",
    frame(2, 3, 4): b"\x00\x00\x00\x03",
    ANSWER: b"",
    message(b"serial", 0x0F, 1_699_440_036, IMEI): b"",
}


class Run:
    """A connection with assertions whenever something is written."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.frames = [LOGIN, *frames]
        self.sent = b"".join(self.frames)
        self.ends = list(accumulate(len(each) for each in self.frames))
        self.delivered = 0
        self.delivered_at = 0.0
        self.accepted_at = 0.0
        self.reads = True
        self.replied = b""
        self.requested = 0
        self.waiting: bytes | None = None
        self.radio_sleeps = 0.0
        self.written: list[bytes] = []
        self.failures: list[Failure] = []
        self.violations: list[object] = []
        self.talk = Conversation(LIMITS)
        self._write = self.talk.transport.write
        self.talk.transport.write = self.note

    @property
    def complete_frames(self) -> list[bytes]:
        """Frames that have arrived completely."""
        ends = zip(self.frames, self.ends, strict=True)
        return [each for each, end in ends if end <= self.delivered]

    @property
    def expected_replies(self) -> bytes:
        """Replies to the complete frames."""
        return b"".join(REPLIES[each] for each in self.complete_frames)

    def deliver(self, size: int) -> None:
        """Deliver the next bytes, unless the connection is paused."""
        piece = self.sent[self.delivered : self.delivered + size]
        if piece and self.talk.transport.producerState == "producing":
            self.delivered += len(piece)
            self.delivered_at = self.talk.clock.seconds()
            self.talk.protocol.dataReceived(piece)

    def deliver_frames(self, count: int) -> None:
        """Deliver the rest of the next ``count`` frames in one segment."""
        for end in [end for end in self.ends if end > self.delivered][count - 1 : count]:
            self.deliver(end - self.delivered)

    def set_reading(self, reads: bool) -> None:
        """Let the peer start or stop reading."""
        if reads is not self.reads:
            self.reads = reads
            producer = self.talk.transport.producer
            (producer.resumeProducing if reads else producer.pauseProducing)()

    def confirm(self, count: int) -> None:
        """Confirm the first ``count`` pending appends."""
        under_way = [kept for _, kept in self.talk.gateway.published if not kept.called]
        for confirmation in under_way[:count]:
            confirmation.callback(None)
            confirmation.addErrback(self.violations.append)

    def request(self, radio_sleeps: float) -> None:
        """Request to write a command, unless another one is waiting."""
        if self.waiting is None:
            self.requested += 1
            codec = "14" if self.requested % 2 else "12"
            self.waiting = command_frame(IMEI, b"command %d" % self.requested, codec).data
            self.radio_sleeps = radio_sleeps
            self.when_free = self.talk.protocol.when_free(radio_sleeps)
            self.when_free.addCallback(self._write_command).addErrback(self._fail)

    def cancel(self) -> None:
        """Cancel the waiting command."""
        if self.waiting is not None:
            self.when_free.cancel()
            assert self.waiting is None

    def wait(self, seconds: float) -> None:
        """Advance the clock; 0 is one reactor turn."""
        self.talk.clock.advance(seconds)

    def _write_command(self, _: None) -> None:
        data, self.waiting = self.waiting, None
        assert data is not None
        self.talk.protocol.write_command(data)

    def _fail(self, failure: Failure) -> None:
        self.waiting = None
        self.failures.append(failure)

    def note(self, data: bytes) -> None:
        """Check what is written to the transport, and write it."""
        self._write(data)
        now = self.talk.clock.seconds()
        if data in REPLIES.values():
            self.replied += data
            self._expect(self.expected_replies.startswith(self.replied), "a reply without a frame")
            if data == ACCEPT:
                self.accepted_at = now
        elif data:
            self.written.append(data)
            self._expect(self.delivered in self.ends, "within a frame of the device")
            self._expect(self.replied == self.expected_replies, "before an ACK")
            self._expect(self.reads, "to a peer that does not read")
            silent = now - self.delivered_at
            self._expect(
                not self.radio_sleeps or silent < self.radio_sleeps, "to a sleeping device"
            )
            settled = now >= self.accepted_at + LOGIN_SETTLE_TIME
            self._expect(settled or not self._login_was_last(), "within the settle time of a login")

    def _expect(self, holds: bool, violation: str) -> None:
        # Not an assertion, because a Deferred may call this, and would keep the exception.
        if not holds:
            self.violations.append(violation)

    def _login_was_last(self) -> bool:
        return [each for each in self.complete_frames if REPLIES[each]][-1] == LOGIN

    def finish(self) -> None:
        """Deliver and confirm everything, and let the waiting command be written."""
        self.set_reading(True)
        while self.replied != self.expected_replies or self.delivered < len(self.sent):
            self.deliver(len(self.sent))
            self.confirm(1000)
            self.wait(0)
        self.wait(LOGIN_SETTLE_TIME)
        if self.waiting is not None and self.radio_sleeps:  # the device may sleep
            self.delivered_at = self.talk.clock.seconds()
            self.talk.send(b"\xff")
        assert self.waiting is None


@frozen
class Step:
    """A call of a method of :class:`Run`."""

    name: str
    arguments: tuple[object, ...] = ()

    def do(self, run: Run) -> None:
        getattr(run, self.name)(*self.arguments)


def steps(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(name), st.tuples(*arguments))


STEPS = st.one_of(
    steps("deliver", st.integers(1, 70)),
    steps("deliver_frames", st.sampled_from([1, 1, 2, 3])),
    steps("confirm", st.integers(1, 4)),
    steps("request", st.sampled_from([0, 0, 0.5, 20])),
    steps("cancel"),
    steps("wait", st.sampled_from([0, 0, 0.4, LOGIN_SETTLE_TIME, 30])),
    steps("set_reading", st.booleans()),
)


def parsed(received: bytes) -> tuple[bytes, list[bytes]]:
    """Split bytes that a device has received into replies and commands."""
    replies, commands = b"", []
    while received:
        command = decode_frame(received, 8192)
        if isinstance(command, Decoded):
            commands.append(received[: command.used])
            received = received[command.used :]
        else:
            size = 1 if received[:1] == ACCEPT else 4
            assert received[:size] in REPLIES.values()
            replies += received[:size]
            received = received[size:]
    return replies, commands


@settings(max_examples=600)
@given(st.lists(st.sampled_from([*REPLIES]), max_size=8), st.lists(STEPS, min_size=10, max_size=50))
def test_command_is_never_written_within_other_traffic(
    frames: list[bytes], done: list[Step]
) -> None:
    run = Run(frames)
    for step in done:
        step.do(run)
    assert parsed(run.talk.transport.value()) == (run.replied, run.written)
    run.finish()
    assert run.violations == []
    assert parsed(run.talk.transport.value()) == (run.expected_replies, run.written)
    assert len(run.written) + len(run.failures) == run.requested
    assert all(failure.check(CancelledError) for failure in run.failures)
    assert len(run.talk.events_of("answered")) == frames.count(ANSWER)
    assert not run.talk.events_of("rejected")
    assert run.talk.timers == 1


@given(st.lists(st.sampled_from([*REPLIES]), max_size=8), st.lists(STEPS, max_size=20))
def test_command_waiting_at_the_end_of_the_connection_fails(
    frames: list[bytes], done: list[Step]
) -> None:
    run = Run(frames)
    for step in done:
        step.do(run)
    run.cancel()
    run.request(0)
    written = len(run.written)
    is_unwritten = run.waiting is not None
    run.talk.lose()
    assert run.waiting is None
    assert not is_unwritten or run.failures[-1].check(ConnectionEnded)
    run.confirm(1000)
    run.wait(60)
    assert run.violations == []
    assert len(run.written) == written
    assert run.talk.timers == 0
