"""Commands to a device in Codec 12 or 14, and the messages that may answer them.

Source: Teltonika wiki, "Codec", chapters "Codec 12" and "Codec 14". The protocol has no number
that ties an answer to its command.
"""

from __future__ import annotations

import re
from typing import Final

from tracker.command import MAX_RESPONSE_BYTES, Answer, CommandFrame
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.envelope import encode_frame, find_message
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    Messages,
    beginning,
    decode_messages,
    encode_message,
)
from tracker.wording import counted

#: Beginning of the answer to a command that a device does not know. Teltonika does not document
#: it; the wording depends on the model and the firmware.
_UNKNOWN: Final = re.compile(
    r"\W{0,20}(?:(?:warning|error)\W{1,20})?"
    r"(?:(?:unknown|invalid|unrecogni[sz]ed|unsupported)\s(?:sms\s|gprs\s)?command\b"
    r"|command\s(?:is\s)?(?:unknown|invalid|unsupported|not\s(?:found|recogni[sz]ed|supported))\b)",
    re.IGNORECASE | re.ASCII,
)
#: Bytes of a frame before its data.
_HEADER: Final = 8
#: Codecs of commands; the first is that of a command whose codec is not given.
COMMAND_CODECS: Final = ("12", "14")

_CODECS: Final = {
    codec.name: codec for codec in MESSAGE_CODECS.values() if codec.name in COMMAND_CODECS
}


def command_frame(imei: str, content: bytes, codec: str) -> CommandFrame:
    """Return the frame of a command with exactly these bytes.

    :param codec: "12" or "14"; empty for the default.
    :raises ValueError: if the codec has no commands.
    """
    chosen = _CODECS.get(codec or COMMAND_CODECS[0])
    if chosen is None:
        raise ValueError(f"unknown codec {codec!r}: commands use {' or '.join(_CODECS)}")
    message = Message(chosen, COMMAND, content, imei=imei if chosen.addressed else None)
    return CommandFrame(chosen.name, encode_frame(encode_message(message)))


def possible_answer(imei: str, messages: Messages) -> Answer | None:
    """Return the messages of a frame as the answer to a command; None if they cannot be one.

    A device may answer in several parts. The text of the answer has a line for each.
    """
    name = messages.codec.name
    if name not in _CODECS:
        return None
    answers = [
        message.content
        for message in messages.parts
        if message.type == RESPONSE and message.imei in (None, imei)
    ]
    if answers:
        text = _text(b"\n".join(answers))
        return Answer(name, text, unknown=_UNKNOWN.match(text) is not None)
    # A refusal means that the IMEI is wrong; without an IMEI, the type has another meaning.
    for message in messages.parts:
        if message.type == NACK and messages.codec.addressed:
            return Answer(name, _text(message.content), refused=True)
    return None


class AwaitedAnswer:
    """The answer to the last command that was written on a connection, while it is expected."""

    __slots__ = ("_codec", "_searched")

    def __init__(self) -> None:
        self._codec = b""  # first byte of the answer's data
        self._searched = 0  # bytes at the start of the buffer that hold no answer

    def expect(self, command: bytes) -> None:
        """Expect the answer to a command.

        :param command: the frame of the command.
        """
        self._codec = command[_HEADER : _HEADER + 1]

    def arrived(self, data: bytes) -> None:
        """Stop expecting an answer if this message has the codec of the command."""
        if data[:1] == self._codec:
            self._codec = b""

    def may_be(self, imei: str, data: bytes) -> bool:
        """Return True if this message may be the answer."""
        if not self._codec or data[:1] != self._codec:
            return False
        outcome = decode_messages(data)
        return isinstance(outcome, Decoded) and possible_answer(imei, outcome.value) is not None

    def restart_search(self) -> None:
        """Restart the search, because bytes were removed from the start of the buffer."""
        self._searched = 0

    def find(self, imei: str, buffer: bytearray) -> tuple[int, bytes | None]:
        """Search the buffer for the answer, which may follow other messages.

        :return: offset and data of its frame; the data is None if the answer is not found.
        """
        if not self._codec:
            return 0, None
        self._searched, data = find_message(
            buffer, self._searched, lambda found: self.may_be(imei, found)
        )
        return self._searched, data


def _text(content: bytes) -> str:
    size = len(content)
    if size <= MAX_RESPONSE_BYTES:
        return content.decode("utf-8", errors="backslashreplace")
    start = beginning(content, MAX_RESPONSE_BYTES)
    text = start.decode("utf-8", errors="backslashreplace")
    return f"{text}… (the first {len(start):,} of {counted(size, 'byte')})"
