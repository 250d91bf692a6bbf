"""The server's side of Teltonika's protocol over a stream transport.

============================ ==========================================================
frame from the device        reply of the server
============================ ==========================================================
ping                         none; it only shows that the device is alive
login                        ``01`` if the device is accepted, else ``00``
records                      an ACK with their number in four bytes, once they are durable
message                      none: the device never sends it again. It may be the answer to
                             a command. An invalid one is skipped
============================ ==========================================================

Anything else closes the connection. The device reconnects and sends unacknowledged records
again.

A command does not follow the reply to the login at once: a device reads one byte as that reply,
and takes bytes that arrive with it for a part of the next one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from tracker.command import CommandFrame
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.dialect import (
    OTHER_DEVICE,
    Append,
    AppendDetached,
    CommandAnswer,
    Dialect,
    LogIn,
    Notice,
    ProtocolError,
    Step,
)
from tracker.vendors.rejections import rejection
from tracker.vendors.teltonika.commands import AwaitedAnswer, command_frame, possible_answer
from tracker.vendors.teltonika.envelope import PING, PREAMBLE, decode_frame, frame_size
from tracker.vendors.teltonika.frames import Login, Ping
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.login import ACCEPT, LENGTH_WORD, REFUSE, decode_login
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, count_messages
from tracker.vendors.teltonika.positions import REPEATED_ID
from tracker.vendors.teltonika.reader import EntryReader

#: Seconds without commands after the reply to a login, unless the device sends records before.
LOGIN_SETTLE_TIME: Final = 1.0

#: The start of a frame with a message, if the frame is shorter than 64 KiB.
_MESSAGE_START: Final = re.compile(
    re.escape(PREAMBLE) + rb"\x00\x00..[" + re.escape(bytes(MESSAGE_CODECS)) + rb"]", re.DOTALL
)

#: ``bytes`` are the data of a TCP frame; ``Rejected`` is a login without a valid IMEI.
Frame = bytes | Ping | Login | Rejected


class TeltonikaDialect(Dialect[Frame]):
    """The server's side of the protocol, for one connection.

    :param on_truncated: called for each message that is truncated because of its length.
    """

    __slots__ = ("_awaited", "_imei", "_limits", "_reader", "_repeats_ids")

    def __init__(self, limits: Limits, layouts: Layouts, on_truncated: Callable[[], None]) -> None:
        self._limits = limits
        self._reader = EntryReader(layouts, limits.records, limits.message_bytes, on_truncated)
        self._awaited = AwaitedAnswer()
        self._imei = ""  # of the login; empty before it
        self._repeats_ids = False

    def next_frame(self, buffer: bytearray) -> Decoded[Frame] | Incomplete | Fatal:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        if buffer[0] == PING:
            count = len(buffer) - len(buffer.lstrip(_PINGS))
            return Decoded(Ping(count), count)
        if not self._imei:
            return _first_login(buffer)
        if buffer.startswith(LENGTH_WORD):
            return self._login_again(buffer)
        limits = self._limits
        return decode_frame(buffer, limits.frame_bytes, limits.command_frame_bytes)

    def _login_again(self, buffer: bytearray) -> Decoded[Frame] | Incomplete | Fatal:
        # A device that has missed the reply repeats its login. A second IMEI on the same
        # connection is a mistake.
        outcome = decode_login(buffer)
        if isinstance(outcome, Incomplete):
            return outcome
        if not isinstance(outcome, Decoded):
            return Fatal(0, f"invalid second login: {outcome.reason}", field=_LOGIN)
        if outcome.value != self._imei:
            return Fatal(0, OTHER_DEVICE, field=_LOGIN)
        return Decoded(Login(outcome.value), outcome.used)

    def is_detached(self, frame: Frame) -> bool:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return isinstance(frame, bytes) and frame[0] in MESSAGE_CODECS

    def count_messages(self, frame: Frame) -> int:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        if not isinstance(frame, bytes) or frame[0] not in MESSAGE_CODECS:
            return 0
        return count_messages(frame)

    def is_awaited(self, frame: Frame) -> bool:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        self._awaited.restart_search()
        return isinstance(frame, bytes) and self._awaited.may_be(self._imei, frame)

    def find_awaited(self, buffer: bytearray) -> tuple[int, Decoded[Frame]] | None:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        start, data = self._awaited.find(self._imei, buffer)
        return None if data is None else (start, Decoded(data, frame_size(data)))

    def handle(self, frame: Frame, now: float) -> Sequence[Step]:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        if not isinstance(frame, bytes):
            return self._handle_other(frame)
        was_noticed = self._repeats_ids
        reading = self._reader.read(self._imei, frame, now, self._note_repeated_id)
        if isinstance(reading, Rejected):
            # The checksum is correct, so the next frame follows. The device sends records again,
            # but never a message; closing would only delay what follows.
            closes = frame[0] not in MESSAGE_CODECS
            return (ProtocolError(reading.reason, rejection(reading.field), closes),)
        entries, messages = reading
        if messages is None:
            append = Append(entries, len(entries).to_bytes(4, "big"))
            if self._repeats_ids is was_noticed:
                return (append,)
            return (Notice(REPEATED_ID), append)  # the first time on this connection
        if not entries:
            return ()
        answer = possible_answer(self._imei, messages)
        if answer is None:
            return (AppendDetached(entries),)
        self._awaited.arrived(frame)
        return (AppendDetached(entries), CommandAnswer(answer))

    def _handle_other(self, frame: Ping | Login | Rejected) -> Sequence[Step]:
        if isinstance(frame, Ping):
            return ()
        if isinstance(frame, Rejected):
            return (ProtocolError(frame.reason, Rejection.LOGIN, reply=REFUSE),)
        self._imei = frame.imei
        return (LogIn(frame.imei, ACCEPT, REFUSE, LOGIN_SETTLE_TIME),)

    def _note_repeated_id(self) -> None:
        self._repeats_ids = True

    def count_detached(self, data: bytes | bytearray) -> int:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return len(_MESSAGE_START.findall(data))

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return command_frame(device_id, content, codec)

    def command_written(self, data: bytes) -> None:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        self._awaited.expect(data)


_PINGS: Final = bytes((PING,))
#: The field that is wrong in a login, see :mod:`tracker.vendors.rejections`.
_LOGIN: Final = Rejection.LOGIN.value


def _first_login(buffer: bytearray) -> Decoded[Frame] | Incomplete | Fatal:
    outcome = decode_login(buffer)
    if isinstance(outcome, Rejected):
        return Decoded(outcome, outcome.used)  # handled like a frame, because it gets a reply
    if isinstance(outcome, Fatal):
        return Fatal(outcome.offset, outcome.reason, field=_LOGIN)
    if isinstance(outcome, Incomplete):
        return outcome
    return Decoded(Login(outcome.value), outcome.used)
