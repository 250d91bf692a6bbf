"""Messages and answers that are truncated because of their length."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, message
from tests.unit.vendors.teltonika.golden_messages import alone
from tracker.command import MAX_RESPONSE_BYTES
from tracker.limits import Limits
from tracker.position import digest
from tracker.vendors.teltonika.commands import possible_answer
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message
from tracker.vendors.teltonika.positions import message_position

NOW = 1_790_000_000.0


def message_of(content: bytes) -> Message:
    return Message(MESSAGE_CODECS[0x0C], 0x06, content)


def attributes(content: bytes, limit: int) -> dict[str, Any]:
    payload = message_position(IMEI, message_of(content), NOW, limit).to_payload()
    found: dict[str, Any] = json.loads(payload)["attributes"]
    return found


@pytest.mark.parametrize("content", [b"a" * 64, "\u0436".encode() * 32, b"\xff" * 64])
def test_message_up_to_the_limit_is_stored_unchanged(content: bytes) -> None:
    limited = message_position(IMEI, message_of(content), NOW, 64).to_payload()
    assert limited == message_position(IMEI, message_of(content), NOW, 1 << 20).to_payload()
    assert set(json.loads(limited)["attributes"]) == {"message", "message_type"}


@pytest.mark.parametrize(
    ("character", "kept"),
    [("a", 64), ("\u0436", 32), ("\u20ac", 21), ("\U0001f600", 16), ("\t", 64)],
)
def test_long_text_is_truncated_between_characters(character: str, kept: int) -> None:
    content = character.encode() * 100
    assert attributes(content, 64) == {
        "message": character * kept,
        "message_type": 6,
        "message_length": len(content),
        "message_sha256": sha256(content).hexdigest(),
    }


@pytest.mark.parametrize("content", [b"a" * 99 + b"\xff", b"\xd0" * 100, b"a" * 99 + b"\x00"])
def test_long_bytes_are_truncated_at_the_limit(content: bytes) -> None:
    stored = message_position(IMEI, message_of(content), NOW, 64)
    whole = message_position(IMEI, message_of(content[:64] + b"\xff"), NOW, 1000)
    assert set(stored.attributes["message"]) == {"__buffer_b64"}
    assert stored.attributes["message_length"] == 100
    assert len(stored.attributes["message"]["__buffer_b64"]) == 88
    assert stored.attributes["message"] != whole.attributes["message"]


def test_long_messages_with_the_same_beginning_have_different_digests() -> None:
    payloads = {
        message_position(IMEI, message_of(b"a" * 100 + end), NOW, 64).to_payload()
        for end in (b"b", b"c")
    }
    assert len({digest(payload) for payload in payloads}) == 2


def test_payload_of_a_message_is_bounded() -> None:
    content = "\u0436".encode() * 32_000
    assert len(message_position(IMEI, message_of(content), NOW, 8192).to_payload()) < 25_000


def test_truncated_messages_are_counted_after_their_connection_has_ended() -> None:
    talk = Conversation(Limits(message_bytes=64, message_rate=1, message_burst=2))
    talk.send(LOGIN + message(b"x" * 65) * 3 + message(b"x" * 64))
    talk.lose()
    assert talk.gateway.tally.truncated == 3


@pytest.mark.parametrize("content", [b"a", "\u0436".encode(), b"\xff"])
def test_long_answer_is_truncated_with_a_note(content: bytes) -> None:
    longest = content * (MAX_RESPONSE_BYTES // len(content))
    answer = possible_answer(IMEI, alone(message_of(longest)))
    assert answer is not None
    assert answer.text == longest.decode(errors="backslashreplace")
    longer = possible_answer(IMEI, alone(message_of(longest + content)))
    assert longer is not None
    assert longer.text.startswith(answer.text)
    assert f"{len(longest + content):,} bytes" in longer.text
    assert len(longer.text.encode()) < 5 * MAX_RESPONSE_BYTES
