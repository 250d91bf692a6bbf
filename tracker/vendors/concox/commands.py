"""Commands to a device in 0x80, and the texts in 0x15 and 0x21 that answer them.

A device repeats the server flag of the command in its answer. Some answer with 0, which therefore
is not used as a flag, and matches any command.
Source: GT06 protocol 1.8 and Concox protocol 3.1, chapters on commands.
"""

from __future__ import annotations

import re
from typing import Final

from tracker.command import MAX_RESPONSE_BYTES, Answer, CommandFrame
from tracker.outcomes import Decoded
from tracker.vendors.concox.content import COMMAND, STRINGS, read_content
from tracker.vendors.concox.frames import (
    MAX_SHORT_LENGTH,
    MIN_LENGTH,
    Frame,
    decode_frame,
    encode_frame,
    frame_end,
)
from tracker.vendors.concox.messages import SERVER_FLAG
from tracker.vendors.concox.positions import CODEC
from tracker.vendors.concox.readings import Reading
from tracker.wording import counted

#: Codecs of commands.
COMMAND_CODECS: Final = (CODEC,)
MAX_FLAG: Final = 0xFFFFFFFF

_FLAG_BYTES: Final = 4
#: Offset of the flag in the frame of a command.
_FLAG_START: Final = 5
#: Maximum number of bytes of a command; a length and the flag precede it.
MAX_COMMAND_BYTES: Final = MAX_SHORT_LENGTH - MIN_LENGTH - 1 - _FLAG_BYTES

#: Beginning of the answer to a command that a device does not know; the wording depends on the
#: model and the firmware.
_UNKNOWN: Final = re.compile(
    r"\W{0,20}(?:error\W{1,20})?(?:command\serror"
    r"|(?:unknown|invalid|unsupported|unrecogni[sz]ed)\scommand"
    r"|command\s(?:is\s)?(?:unknown|invalid|unsupported|not\s(?:found|recogni[sz]ed|supported)))\b",
    re.IGNORECASE | re.ASCII,
)


class Flags:
    """Server flags, each different for as long as an answer may be late.

    :param first: the first flag. A process that starts later begins with a higher one.
    """

    __slots__ = ("_next",)

    def __init__(self, first: int) -> None:
        self._next = first

    def take(self) -> int:
        """Return a flag that is not 0."""
        flag = self._next % MAX_FLAG + 1
        self._next += 1
        return flag


def command_frame(content: bytes, flag: int, serial: int = 1) -> Frame:
    """Return the frame of a command with exactly these bytes.

    :param flag: the server flag.
    :param serial: number of the frame among those of the server.
    :raises ValueError: if the command is too long.
    """
    if len(content) > MAX_COMMAND_BYTES:
        raise ValueError(
            f"the command has {counted(len(content), 'byte')}: the maximum is {MAX_COMMAND_BYTES}"
        )
    length = bytes((_FLAG_BYTES + len(content),))
    return Frame(COMMAND, length + flag.to_bytes(_FLAG_BYTES, "big") + content, serial)


def encode_command(content: bytes, codec: str, flag: int, serial: int) -> CommandFrame:
    """Return a command for a device.

    :param codec: empty, or the only one.
    :raises ValueError: if the codec has no commands, or the command is too long.
    """
    if codec not in ("", CODEC):
        raise ValueError(f"unknown codec {codec!r}: commands use {CODEC}")
    data = encode_frame(command_frame(content, flag, serial))
    return CommandFrame(CODEC, data, _token(flag))


def possible_answer(reading: Reading) -> Answer:
    """Return a text of the device as the answer to a command."""
    text = reading.text
    if text is None:
        text = (reading.data or b"").decode("ascii", errors="backslashreplace")
    size = len(text.encode())
    if size > MAX_RESPONSE_BYTES:
        beginning = text.encode()[:MAX_RESPONSE_BYTES].decode(errors="ignore")
        text = f"{beginning}… (the first {len(beginning.encode()):,} of {counted(size, 'byte')})"
    flag = reading.attributes[SERVER_FLAG]
    unknown = _UNKNOWN.match(text) is not None
    return Answer(CODEC, text, unknown=unknown, token=_token(flag) if flag else "")


def _token(flag: int) -> str:
    return f"{flag:08x}"


class AwaitedAnswer:
    """The answer to the last command that was written on a connection, while it is expected."""

    __slots__ = ("_flag", "_searched")

    def __init__(self) -> None:
        self._flag = 0  # of the command; 0: no answer is expected
        self._searched = 0  # bytes at the start of the buffer that hold no answer

    def expect(self, command: bytes) -> None:
        """Expect the answer to a command.

        :param command: the frame of the command.
        """
        self._flag = int.from_bytes(command[_FLAG_START : _FLAG_START + _FLAG_BYTES], "big")

    def arrived(self, reading: Reading) -> None:
        """Stop expecting an answer if this is the one."""
        if self.may_be(reading):
            self._flag = 0

    def may_be(self, reading: Reading | None) -> bool:
        """Return True if this content may be the answer."""
        if not self._flag or reading is None:
            return False
        return reading.attributes.get(SERVER_FLAG) in (self._flag, 0)

    def restart_search(self) -> None:
        """Restart the search, because bytes were removed from the start of the buffer."""
        self._searched = 0

    def find(self, buffer: bytearray) -> tuple[int, Decoded[Frame]] | None:
        """Search the buffer for the answer, which may follow other frames.

        :return: offset of the answer, and its frame; None if it is not found.
        """
        if not self._flag:
            return None
        start = self._searched
        while start < (end := frame_end(buffer, start)) <= len(buffer):
            if buffer[start + 3] in STRINGS or buffer[start + 4] in STRINGS:
                outcome = decode_frame(buffer[start:end])
                if isinstance(outcome, Decoded) and self.may_be(read_content(outcome.value)):
                    self._searched = start
                    return start, outcome
            start = end
        self._searched = start
        return None
