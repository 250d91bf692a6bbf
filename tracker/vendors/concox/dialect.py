"""The server's side of the GT06 protocol.

============================ ==========================================================
frame from the device        answer of the server
============================ ==========================================================
login                        its acknowledgement, while the log confirms appends
heartbeat                    its acknowledgement, once everything before it is durable
alarm                        its acknowledgement, once it is durable
time request                 the time
number without a layout      its acknowledgement, once it is durable
anything else                none
============================ ==========================================================

No position has an answer, and none is ever sent again. So the device learns from the answers to
heartbeats and logins only: without them it takes the connection for broken within seconds, and
keeps its positions until a login is answered.

A frame with a wrong checksum is skipped without an answer, as the documents say. Bytes that are
no frame are skipped, too; too many of either close the connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tracker.command import CommandFrame
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected, as_fatal
from tracker.vendors.concox.commands import AwaitedAnswer, Flags, encode_command, possible_answer
from tracker.vendors.concox.content import (
    HEARTBEATS,
    STRINGS,
    TIME,
    is_acknowledged,
    read_content,
)
from tracker.vendors.concox.fields import FIRST_DATE, date_bytes, write_imei
from tracker.vendors.concox.frames import (
    EXTENDED_START,
    SHORT_START,
    STOP,
    Frame,
    acknowledgement,
    decode_frame,
    encode_frame,
)
from tracker.vendors.concox.login import NUMBER as LOGIN
from tracker.vendors.concox.login import read_login
from tracker.vendors.concox.positions import entry
from tracker.vendors.concox.readings import Reading
from tracker.vendors.concox.settings import ConcoxSettings
from tracker.vendors.dialect import (
    OTHER_DEVICE,
    AppendDetached,
    CommandAnswer,
    Dialect,
    LogIn,
    ProtocolError,
    Reply,
    Step,
)

#: Maximum number of bytes between two frames that are no frame.
MAX_GARBAGE_BYTES: Final = 512
#: Maximum number of frames in succession with a wrong checksum. A line damages single frames; a
#: device whose checksums are always wrong speaks another protocol.
MAX_INVALID_FRAMES: Final = 16

#: The start of a frame after the end of another.
_START: Final = re.compile(
    b"(?:\\A|" + re.escape(STOP) + b")(?:" + SHORT_START + b"|" + EXTENDED_START + b")"
)
#: Numbers that make no entry.
_WITHOUT_ENTRY: Final = frozenset((LOGIN, TIME))


class Received(NamedTuple):
    """A frame with its fields."""

    frame: Frame
    reading: Reading | None
    """None if the number has no layout that the content agrees with."""


class ConcoxDialect(Dialect[Received]):
    """The server's side of the protocol, for one connection.

    :param flags: source of server flags, which all connections of a port share.
    :param on_truncated: called for each message that is truncated because of its length.
    """

    __slots__ = (
        *("_awaited", "_flags", "_garbage", "_imei", "_invalid", "_limits", "_on_truncated"),
        *("_arrival", "_packed_imei", "_serial", "_settings", "_zone"),
    )

    def __init__(
        self,
        limits: Limits,
        settings: ConcoxSettings,
        flags: Flags,
        on_truncated: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._settings = settings
        self._flags = flags
        self._on_truncated = on_truncated
        self._awaited = AwaitedAnswer()
        self._imei = ""  # of the login; empty before it
        self._packed_imei = b""
        self._zone = settings.zone or 0
        self._serial = 0  # of the last command
        self._arrival = -1  # of the last message, in milliseconds since 1970 (UTC)
        self._garbage = 0  # bytes since the last valid frame
        self._invalid = 0  # frames since the last valid one

    def next_frame(self, buffer: bytearray) -> Decoded[Received] | Incomplete | Rejected | Fatal:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        outcome = decode_frame(buffer, self._limits.frame_bytes)
        if isinstance(outcome, Decoded):
            self._garbage = self._invalid = 0
            frame = outcome.value
            reading = read_content(frame, self._packed_imei)
            return Decoded(Received(frame, reading), outcome.used)
        if isinstance(outcome, Rejected):
            return self._skip(outcome)
        return outcome

    def _skip(self, outcome: Rejected) -> Rejected | Fatal:
        if outcome.field == "crc":
            self._invalid += 1
            if self._invalid <= MAX_INVALID_FRAMES:
                return outcome
            reason = f"more than {MAX_INVALID_FRAMES} frames in succession with a wrong CRC"
        else:
            self._garbage += outcome.used
            if self._garbage <= MAX_GARBAGE_BYTES:
                return outcome
            reason = f"{outcome.reason}, and more than {MAX_GARBAGE_BYTES} bytes are no frame"
        return as_fatal(outcome, reason=reason)

    def is_detached(self, frame: Received) -> bool:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return frame.frame.number not in _WITHOUT_ENTRY

    def count_messages(self, frame: Received) -> int:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        number, reading = frame.frame.number, frame.reading
        if number in _WITHOUT_ENTRY or (reading is not None and reading.gps is not None):
            return 0
        return 1

    def is_awaited(self, frame: Received) -> bool:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        self._awaited.restart_search()
        return frame.frame.number in STRINGS and self._awaited.may_be(frame.reading)

    def find_awaited(self, buffer: bytearray) -> tuple[int, Decoded[Received]] | None:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        found = self._awaited.find(buffer)
        if found is None:
            return None
        start, outcome = found
        return start, Decoded(Received(outcome.value, read_content(outcome.value)), outcome.used)

    def handle(self, frame: Received, now: float) -> Sequence[Step]:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        received, reading = frame
        number = received.number
        if number == LOGIN:
            return (self._log_in(received),)
        if not self._imei:
            reason = f"frame {number:#04x} before the login: the IMEI must come first"
            return (ProtocolError(reason, Rejection.LOGIN),)
        if number == TIME:
            if now < FIRST_DATE:
                return ()  # the clock of this machine is not set, so that the device keeps its own
            return (Reply(encode_frame(Frame(TIME, date_bytes(now), received.serial))),)
        arrival = int(now * 1000)
        if reading is None or reading.gps is None:
            # Equal messages of one millisecond, as after a delay of the network, are kept apart.
            arrival = self._arrival = max(arrival, self._arrival + 1)
        made = entry(
            self._imei,
            received,
            reading,
            arrival / 1000,
            zone=self._zone,
            message_bytes=self._limits.message_bytes,
            on_truncated=self._on_truncated,
        )
        if number in HEARTBEATS:
            return (AppendDetached((made,)), Reply(acknowledgement(received), after_durable=True))
        if is_acknowledged(received):
            return (AppendDetached((made,), acknowledgement(received)),)
        if reading is None or number not in STRINGS:
            return (AppendDetached((made,)),)
        self._awaited.arrived(reading)
        return (AppendDetached((made,)), CommandAnswer(possible_answer(reading)))

    def _log_in(self, frame: Frame) -> LogIn | ProtocolError:
        login = read_login(frame.content)
        if login is None:
            reason = "login without an IMEI: it must have 15 digits after a leading 0"
            return ProtocolError(reason, Rejection.LOGIN)
        if self._imei not in ("", login.imei):
            return ProtocolError(OTHER_DEVICE, Rejection.LOGIN)
        self._imei = login.imei
        self._packed_imei = write_imei(login.imei)
        if self._settings.zone is None:
            self._zone = login.zone or 0
        return LogIn(login.imei, acknowledgement(frame), may_stay=True, needs_log=True)

    def count_detached(self, data: bytes | bytearray) -> int:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return len(_START.findall(data))

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        self._serial = self._serial % 0xFFFF + 1
        return encode_command(content, codec, self._flags.take(), self._serial)

    def command_written(self, data: bytes) -> None:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        self._awaited.expect(data)
