"""Commands to a device in Codec 12 or 14, and which of its messages may answer one.

Source: Teltonika wiki, "Codec", chapters "Codec 12" and "Codec 14". There is no number that
ties an answer to its command.
"""

from __future__ import annotations

from typing import Final

from tracker.command import MAX_RESPONSE_BYTES, Answer, CommandFrame
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.frame import encode_frame, find_message
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    beginning,
    decode_message,
    encode_message,
)

#: Bytes of a frame before its data.
_HEADER: Final = 8
#: Codec of a command that names none.
USUAL_CODEC: Final = "12"

_CODECS: Final = {
    codec.name: codec for codec in MESSAGE_CODECS.values() if codec.name in ("12", "14")
}


def command_frame(imei: str, text: str, codec: str) -> CommandFrame:
    """Return the frame of a command; it holds exactly the bytes of its text.

    :raises ValueError: if there are no commands in this codec.
    """
    chosen = _CODECS.get(codec or USUAL_CODEC)
    if chosen is None:
        raise ValueError(f"codec {codec!r}: commands go in {' or '.join(_CODECS)}")
    message = Message(
        chosen, COMMAND, text.encode("utf-8"), imei=imei if chosen.addressed else None
    )
    return CommandFrame(chosen.name, encode_frame(encode_message(message)))


def maybe_answer(imei: str, message: Message) -> Answer | None:
    """Return the answer that a message may be; None if it certainly answers no command."""
    if message.codec.name not in _CODECS:
        return None
    # Where no IMEI is sent, none can be refused: there, the type means something else.
    refused = message.type == NACK and message.codec.addressed
    if not refused and (message.type != RESPONSE or message.imei not in (None, imei)):
        return None
    return Answer(message.codec.name, _text(message.content), refused)


class AwaitedAnswer:
    """The answer to the last command that was written on a connection, if it is still due."""

    __slots__ = ("_codec", "_looked")

    def __init__(self) -> None:
        self._codec = b""  # first byte of the answer's data
        self._looked = 0  # bytes of the buffer that are known to hold no answer

    def expect(self, command: bytes) -> None:
        """Await the answer to a command.

        :param command: its frame.
        """
        self._codec = command[_HEADER : _HEADER + 1]

    def arrived(self, data: bytes) -> None:
        """Await no other answer than this message, if it is of the command's codec."""
        if data[:1] == self._codec:
            self._codec = b""

    def may_be(self, imei: str, data: bytes) -> bool:
        """Return whether this message may be the answer."""
        if not self._codec or data[:1] != self._codec:
            return False
        outcome = decode_message(data)
        return isinstance(outcome, Decoded) and maybe_answer(imei, outcome.value) is not None

    def look_anew(self) -> None:
        """Search the buffer from its start next time, since bytes were removed from it."""
        self._looked = 0

    def find(self, imei: str, buffer: bytearray) -> tuple[int, bytes | None]:
        """Search for the answer behind other messages.

        :return: offset and data of its frame; the data are None if it is not there.
        """
        if not self._codec:
            return 0, None
        self._looked, data = find_message(
            buffer, self._looked, lambda found: self.may_be(imei, found)
        )
        return self._looked, data


def _text(content: bytes) -> str:
    size = len(content)
    if size <= MAX_RESPONSE_BYTES:
        return content.decode("utf-8", errors="backslashreplace")
    start = beginning(content, MAX_RESPONSE_BYTES)
    text = start.decode("utf-8", errors="backslashreplace")
    return f"{text}… (the first {len(start):,} of {size:,} bytes)"
