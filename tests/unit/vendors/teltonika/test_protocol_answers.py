"""Messages that may be the answer to a command are reported once, and published."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, fail

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame, message
from tests.unit.vendors.teltonika.golden_messages import TWO_PARTS_12
from tests.unit.vendors.teltonika.pending import (
    ACK,
    COMMAND,
    ENDS,
    LIMITS,
    PendingCommand,
    resume,
)
from tracker.command import Answer
from tracker.interfaces import IConnection, NotAppended
from tracker.position import Entry
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, NACK, Message, encode_message

REFUSAL = encode_frame(encode_message(Message(MESSAGE_CODECS[0x0E], NACK, b"", imei=IMEI)))


class OrderlyGateway(FakeGateway):
    """Gateway that also lists the published and kept entries in ``events``."""

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        self.events.append(("published", [entry.codec for entry in entries]))
        return super().publish(entries)

    def publish_detached(self, entries: Sequence[Entry]) -> Deferred[None] | None:
        kept = super().publish_detached(entries)
        if kept is not None:
            self.events.append(("kept", [entry.codec for entry in entries]))
        return kept


@pytest.fixture
def talk() -> Conversation:
    return Conversation(LIMITS, OrderlyGateway())


def answers(talk: Conversation) -> list[Answer]:
    return [event[1] for event in talk.events_of("answered")]


@pytest.mark.parametrize(
    ("sent", "codec", "expected"),
    [
        (message(b"a\r\n"), "12", Answer("12", "a\r\n")),
        (TWO_PARTS_12.frame, "12", Answer("12", "part1\npart2")),
        (message(b"\xff"), "12", Answer("12", "\\xff")),
        (message(b"a", 0x0E, imei=IMEI), "14", Answer("14", "a")),
        (message(b"a", 0x0E, imei="352093081452251"), "14", None),
        (message(b"a", 0x0D, 1_680_554_705), "13", None),
        (message(b"a", 0x0F, 1_680_554_705, IMEI), "15", None),
        (REFUSAL, "14", Answer("14", "", refused=True)),
        (COMMAND, "12", None),
    ],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_possible_answer_is_reported_once_and_published(
    settled: Conversation, sent: bytes, codec: str, expected: Answer | None, keeps: bool
) -> None:
    settled.gateway.accepts_detached = keeps
    settled.gateway.events.clear()
    settled.send(sent)
    reported = [] if expected is None else [("answered", expected)]
    codecs = [codec] * (2 if sent == TWO_PARTS_12.frame else 1)
    assert settled.gateway.events == [("kept" if keeps else "published", codecs), *reported]
    settled.confirm()
    settled.send(b"\xff")
    assert len(settled.gateway.events) == 1 + len(reported)
    assert settled.received() == b""


def test_answers_among_records_are_reported_in_order(settled: Conversation) -> None:
    settled.gateway.events.clear()
    settled.send(frame(2) + message(b"a") + message(b"b") + b"\xff" + frame(3) + message(b"c"))
    assert answers(settled) == []  # a packet is confirmed before what follows is read
    settled.confirm()
    assert [answer.text for answer in answers(settled)] == ["a", "b"]
    settled.confirm()
    assert [answer.text for answer in answers(settled)] == ["a", "b", "c"]
    order = [event[0] for event in settled.gateway.events]
    assert order == [
        *("published", "kept", "answered", "kept", "answered", "published", "kept", "answered")
    ]
    payloads = [json.loads(entries[0].payload) for entries, _ in settled.gateway.published]
    texts = [payload["attributes"].get("message") for payload in payloads]
    assert texts == [None, None, "a", "b", None, "c"]


@pytest.mark.parametrize("split", range(1, len(message())))
def test_answer_in_pieces_is_reported_once(settled: Conversation, split: int) -> None:
    settled.send(message()[:split])
    assert answers(settled) == []
    settled.send(message()[split:])
    assert answers(settled) == [Answer("12", "DI1:1")]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("keeps", [True, False])
def test_answer_is_reported_before_the_next_command_is_written(
    settled: Conversation, at_once: bool, keeps: bool
) -> None:
    # Otherwise a late answer to the previous command would be taken for the answer to this one.
    settled.clock.advance(100)
    command = PendingCommand(settled, radio_sleeps=30)
    command.when_free.addCallback(lambda _: settled.gateway.events.append(("written",)))
    settled.gateway.confirms_immediately = at_once
    settled.gateway.accepts_detached = keeps
    settled.gateway.events.clear()
    settled.send(message())
    if not (at_once or keeps):
        assert command.is_waiting
        settled.confirm()
    assert [event[0] for event in settled.gateway.events] == [
        "kept" if keeps else "published",
        "answered",
        "written",
    ]


@pytest.mark.parametrize("at_once", [True, False])
def test_receiver_of_an_answer_may_send_the_next_command(at_once: bool) -> None:
    commands: list[PendingCommand] = []

    class Answering(FakeGateway):
        def command_answered(self, connection: IConnection, answer: Answer) -> None:
            commands.append(PendingCommand(asking))

    asking = Conversation(LIMITS, Answering())
    asking.gateway.confirms_immediately = at_once
    asking.send(LOGIN + frame(1) + message() + frame(2) + frame(3)[:7])
    if not at_once:
        asking.confirm()
        assert commands[0].is_waiting
        asking.confirm()
    assert len(commands) == 1
    assert commands[0].is_waiting
    assert asking.received() == b"\x01" + ACK + ACK
    asking.send(frame(3)[7:])
    if not at_once:
        asking.confirm()
    assert asking.received() == ACK + COMMAND


@pytest.mark.parametrize("end", [name for name in ENDS if name != "garbage"])
def test_answer_is_not_reported_after_the_connection_has_ended(
    settled: Conversation, end: str
) -> None:
    settled.send(frame(2) + message(b"late"))
    ENDS[end](settled)
    assert answers(settled) == []
    settled.protocol.dataReceived(message(b"later"))
    resume(settled)
    assert answers(settled) == []
    payloads = [json.loads(entries[0].payload) for entries, _ in settled.gateway.published]
    texts = [payload["attributes"].get("message") for payload in payloads]
    assert texts == [None, None, "late"]  # the message is published


class StoppingGateway(OrderlyGateway):
    """Gateway that refuses all entries, like the publisher of a process that stops."""

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        return fail(NotAppended("stopping"))


def test_answer_is_not_reported_if_its_publication_closes_the_connection() -> None:
    gateway = StoppingGateway()
    gateway.accepts_detached = False
    talk = Conversation(LIMITS, gateway)
    talk.send(LOGIN + message())
    assert talk.closed
    assert answers(talk) == []
    assert [event[0] for event in gateway.events[-2:]] == ["closed", "lost"]


@pytest.mark.parametrize("invalid", [malformed.BAD_CRC, b"GET /"])
def test_answer_before_an_invalid_frame_is_reported(settled: Conversation, invalid: bytes) -> None:
    settled.send(message(b"a") + invalid + message(b"b"))
    assert settled.closed
    assert answers(settled) == [Answer("12", "a")]
