"""Messages and answers that are too long to be stored whole."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, message
from tracker.command import MAX_RESPONSE_BYTES
from tracker.limits import Limits
from tracker.position import digest
from tracker.vendors.teltonika.commands import maybe_answer
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message
from tracker.vendors.teltonika.positions import message_position

NOW = 1_790_000_000.0


def said(content: bytes) -> Message:
    return Message(MESSAGE_CODECS[0x0C], 0x06, content)


def attributes(content: bytes, limit: int) -> dict[str, Any]:
    payload = message_position(IMEI, said(content), NOW, limit).to_payload()
    found: dict[str, Any] = json.loads(payload)["attributes"]
    return found


@pytest.mark.parametrize("content", [b"a" * 64, "\u0436".encode() * 32, b"\xff" * 64])
def test_a_message_up_to_the_limit_is_stored_unchanged(content: bytes) -> None:
    limited = message_position(IMEI, said(content), NOW, 64).to_payload()
    assert limited == message_position(IMEI, said(content), NOW, 1 << 20).to_payload()
    assert set(json.loads(limited)["attributes"]) == {"message", "message_type"}


@pytest.mark.parametrize(
    ("character", "kept"),
    [("a", 64), ("\u0436", 32), ("\u20ac", 21), ("\U0001f600", 16), ("\t", 64)],
)
def test_a_long_text_is_cut_between_characters(character: str, kept: int) -> None:
    content = character.encode() * 100
    assert attributes(content, 64) == {
        "message": character * kept,
        "message_type": 6,
        "message_length": len(content),
        "message_sha256": sha256(content).hexdigest(),
    }


@pytest.mark.parametrize("content", [b"a" * 99 + b"\xff", b"\xd0" * 100, b"a" * 99 + b"\x00"])
def test_long_bytes_are_cut_where_the_limit_is(content: bytes) -> None:
    stored = message_position(IMEI, said(content), NOW, 64)
    whole = message_position(IMEI, said(content[:64] + b"\xff"), NOW, 1000)
    assert set(stored.attributes["message"]) == {"__buffer_b64"}
    assert stored.attributes["message_length"] == 100
    assert len(stored.attributes["message"]["__buffer_b64"]) == 88
    assert stored.attributes["message"] != whole.attributes["message"]


def test_two_long_messages_that_begin_alike_are_two() -> None:
    payloads = {
        message_position(IMEI, said(b"a" * 100 + end), NOW, 64).to_payload() for end in (b"b", b"c")
    }
    assert len({digest(payload) for payload in payloads}) == 2


def test_the_blow_up_of_a_message_is_bounded() -> None:
    content = "\u0436".encode() * 32_000
    assert len(message_position(IMEI, said(content), NOW, 8192).to_payload()) < 25_000


def test_truncated_messages_are_counted_also_when_their_connection_has_ended() -> None:
    talk = Conversation(Limits(message_bytes=64, message_rate=1, message_burst=2))
    talk.send(LOGIN + message(b"x" * 65) * 3 + message(b"x" * 64))
    talk.lose()
    assert talk.gateway.tally.truncated == 3


@pytest.mark.parametrize("content", [b"a", "\u0436".encode(), b"\xff"])
def test_an_answer_is_kept_up_to_a_bound_and_says_so(content: bytes) -> None:
    most = content * (MAX_RESPONSE_BYTES // len(content))
    answer = maybe_answer(IMEI, said(most))
    assert answer is not None
    assert answer.text == most.decode(errors="backslashreplace")
    longer = maybe_answer(IMEI, said(most + content))
    assert longer is not None
    assert longer.text.startswith(answer.text)
    assert f"{len(most + content):,} bytes" in longer.text
    assert len(longer.text.encode()) < 5 * MAX_RESPONSE_BYTES
