"""Commands to a device in Codec 12 or 14, and which of its messages may answer one.

Source: Teltonika wiki, "Codec", chapters "Codec 12" and "Codec 14". There is no number that
ties an answer to its command.
"""

from __future__ import annotations

from typing import Final

from tracker.command import MAX_RESPONSE_BYTES, Answer, CommandFrame
from tracker.vendors.teltonika.frame import encode_frame
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    beginning,
    encode_message,
)

#: Bytes of a frame in front of its data.
_HEADER: Final = 8
#: What a command is written in that does not ask for a codec.
USUAL_CODEC: Final = "12"

_CODECS: Final = {
    codec.name: codec for codec in MESSAGE_CODECS.values() if codec.name in ("12", "14")
}


def command_frame(imei: str, text: str, codec: str) -> CommandFrame:
    """The frame of a command: exactly the bytes of its text.

    :raises ValueError: when there are no commands in this codec.
    """
    chosen = _CODECS.get(codec or USUAL_CODEC)
    if chosen is None:
        raise ValueError(f"codec {codec!r}: commands go in {' or '.join(_CODECS)}")
    message = Message(
        chosen, COMMAND, text.encode("utf-8"), imei=imei if chosen.addressed else None
    )
    return CommandFrame(chosen.name, encode_frame(encode_message(message)))


def expected_answer(command: bytes) -> bytes:
    """Return how the data of the answer to a command begins: with its codec.

    :param command: its frame.
    """
    return command[_HEADER : _HEADER + 1]


def maybe_answer(imei: str, message: Message) -> Answer | None:
    """What may answer a command to this device; None for what certainly does not."""
    if message.codec.name not in _CODECS:
        return None
    # Where no IMEI is sent, none can be refused: there, the type means something else.
    refused = message.type == NACK and message.codec.addressed
    if not refused and (message.type != RESPONSE or message.imei not in (None, imei)):
        return None
    return Answer(message.codec.name, _text(message.content), refused)


def _text(content: bytes) -> str:
    size = len(content)
    if size <= MAX_RESPONSE_BYTES:
        return content.decode("utf-8", errors="backslashreplace")
    start = beginning(content, MAX_RESPONSE_BYTES)
    text = start.decode("utf-8", errors="backslashreplace")
    return f"{text}… (the first {len(start):,} of {size:,} bytes)"
