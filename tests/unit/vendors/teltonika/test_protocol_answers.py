"""What a device says that may be the answer to a command: told once, and published as ever."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, fail

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame, message
from tests.unit.vendors.teltonika.turns import (
    ACK,
    COMMAND,
    ENDS,
    LIMITS,
    Turn,
    resume,
)
from tracker.command import Answer
from tracker.interfaces import IConnection, NotAppended
from tracker.position import Entry
from tracker.vendors.teltonika.frame import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, NACK, Message, encode_message

REFUSAL = encode_frame(encode_message(Message(MESSAGE_CODECS[0x0E], NACK, b"", imei=IMEI)))


class OrderlyGateway(FakeGateway):
    """Notes in one list what became of the entries too."""

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
    return [event[1] for event in talk.told("answered")]


@pytest.mark.parametrize(
    ("sent", "codec", "expected"),
    [
        (message(b"a\r\n"), "12", Answer("12", "a\r\n")),
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
def test_what_may_be_an_answer_is_told_once_and_published_as_ever(
    settled: Conversation, sent: bytes, codec: str, expected: Answer | None, keeps: bool
) -> None:
    settled.gateway.accepts_detached = keeps
    settled.gateway.events.clear()
    settled.send(sent)
    told = [] if expected is None else [("answered", expected)]
    assert settled.gateway.events == [("kept" if keeps else "published", [codec]), *told]
    settled.confirm()
    settled.send(b"\xff")
    assert len(settled.gateway.events) == 1 + len(told)
    assert settled.answer() == b""


def test_answers_among_records_are_told_in_their_order(settled: Conversation) -> None:
    settled.gateway.events.clear()
    settled.send(frame(2) + message(b"a") + message(b"b") + b"\xff" + frame(3) + message(b"c"))
    assert answers(settled) == []  # nothing behind a packet is read before it is confirmed
    settled.confirm()
    assert [answer.text for answer in answers(settled)] == ["a", "b"]
    settled.confirm()
    assert [answer.text for answer in answers(settled)] == ["a", "b", "c"]
    order = [event[0] for event in settled.gateway.events]
    assert order == [
        *("published", "kept", "answered", "kept", "answered", "published", "kept", "answered")
    ]
    texts = [json.loads(entries[0].payload) for entries, _ in settled.gateway.published]
    said = [payload["attributes"].get("message") for payload in texts]
    assert said == [None, None, "a", "b", None, "c"]


@pytest.mark.parametrize("split", range(1, len(message())))
def test_an_answer_in_pieces_is_told_once(settled: Conversation, split: int) -> None:
    settled.send(message()[:split])
    assert answers(settled) == []
    settled.send(message()[split:])
    assert answers(settled) == [Answer("12", "DI1:1")]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("keeps", [True, False])
def test_an_answer_is_told_before_the_next_command_is_written(
    settled: Conversation, at_once: bool, keeps: bool
) -> None:
    # Else what answers the one before, late, would be taken for the answer to that.
    settled.clock.advance(100)
    turn = Turn(settled, radio_sleeps=30)
    turn.wanted.addCallback(lambda _: settled.gateway.events.append(("written",)))
    settled.gateway.confirms_immediately = at_once
    settled.gateway.accepts_detached = keeps
    settled.gateway.events.clear()
    settled.send(message())
    if not (at_once or keeps):
        assert turn.waits
        settled.confirm()
    assert [event[0] for event in settled.gateway.events] == [
        "kept" if keeps else "published",
        "answered",
        "written",
    ]


@pytest.mark.parametrize("at_once", [True, False])
def test_who_is_told_an_answer_may_ask_for_a_turn(at_once: bool) -> None:
    turns: list[Turn] = []

    class Answering(FakeGateway):
        def command_answered(self, connection: IConnection, answer: Answer) -> None:
            turns.append(Turn(asking))

    asking = Conversation(LIMITS, Answering())
    asking.gateway.confirms_immediately = at_once
    asking.send(LOGIN + frame(1) + message() + frame(2) + frame(3)[:7])
    if not at_once:
        asking.confirm()
        assert turns[0].waits
        asking.confirm()
    assert len(turns) == 1
    assert turns[0].waits
    assert asking.answer() == b"\x01" + ACK + ACK
    asking.send(frame(3)[7:])
    if not at_once:
        asking.confirm()
    assert asking.answer() == ACK + COMMAND


@pytest.mark.parametrize("end", [name for name in ENDS if name != "garbage"])
def test_no_answer_is_told_after_the_end(settled: Conversation, end: str) -> None:
    settled.send(frame(2) + message(b"late"))
    ENDS[end](settled)
    assert answers(settled) == []
    settled.protocol.dataReceived(message(b"later"))
    resume(settled)
    assert answers(settled) == []
    payloads = [json.loads(entries[0].payload) for entries, _ in settled.gateway.published]
    said = [payload["attributes"].get("message") for payload in payloads]
    assert said == [None, None, "late"]  # it is published none the less


class StoppingGateway(OrderlyGateway):
    """Accepts nothing any more, and says so at once, as the publisher of a process that stops."""

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        return fail(NotAppended("stopping"))


def test_an_answer_that_ends_the_connection_is_told_to_nobody() -> None:
    gateway = StoppingGateway()
    gateway.accepts_detached = False
    talk = Conversation(LIMITS, gateway)
    talk.send(LOGIN + message())
    assert talk.closed
    assert answers(talk) == []
    assert [event[0] for event in gateway.events[-2:]] == ["closed", "lost"]


@pytest.mark.parametrize("wrong", [malformed.BAD_CRC, b"GET /"])
def test_an_answer_in_front_of_what_is_wrong_is_told(settled: Conversation, wrong: bytes) -> None:
    settled.send(message(b"a") + wrong + message(b"b"))
    assert settled.closed
    assert answers(settled) == [Answer("12", "a")]
