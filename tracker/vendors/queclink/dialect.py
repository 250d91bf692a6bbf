"""The server's side of the @Track protocol over a stream transport.

============================ ==========================================================
frame from the device        reply of the server
============================ ==========================================================
report (+RESP, +BUFF)        ``+SACK:count$`` once its records are durable
heartbeat (+ACK:GTHBD)       ``+SACK:GTHBD,version,count$``
answer to a command (+ACK)   ``+SACK:count$`` once it is durable
============================ ==========================================================

The protocol has no login: each frame names its device, and a gateway may send those of several.
Whether a device waits for the SACK is a setting of the device that no frame shows. One that does
not wait never repeats a report; so what is read outlives its connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracker.command import CommandFrame
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.dialect import (
    AppendDetached,
    CommandAnswer,
    Dialect,
    LogIn,
    Notice,
    ProtocolError,
    Reply,
    Step,
)
from tracker.vendors.queclink.commands import Serials, command_frame, written_serial
from tracker.vendors.queclink.framing import (
    Blank,
    DeviceFrame,
    Frame,
    count_starts,
    decode_frame,
)
from tracker.vendors.queclink.reader import EntryReader
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.wording import counted


class QueclinkDialect(Dialect[Frame]):
    """The server's side of the protocol, for one connection.

    :param on_truncated: called for each message that is truncated because of its length.
    """

    __slots__ = (
        *("_awaited", "_device_id", "_limit", "_noticed", "_reader", "_searched", "_serials"),
        *("_settings", "_skipped"),
    )

    def __init__(
        self, limits: Limits, settings: QueclinkSettings, on_truncated: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._limit = limits.frame_bytes
        self._reader = EntryReader(limits, settings.zone, on_truncated)
        self._serials = Serials()
        self._device_id = ""  # of the last frame that names a device
        self._awaited = ""  # serial number of the last command; empty once it is answered
        self._searched = 0  # bytes at the start of the buffer that hold no answer
        self._skipped = 0  # bytes since the last valid frame
        self._noticed: set[str] = set()

    def next_frame(self, buffer: bytearray) -> Decoded[Frame] | Incomplete | Rejected | Fatal:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        outcome = decode_frame(buffer, self._limit)
        if isinstance(outcome, Rejected):
            self._skipped += outcome.used
            if self._skipped > self._limit:
                reason = f"no valid frame within {counted(self._limit, 'byte')}: {outcome.reason}"
                return Fatal(outcome.offset, reason, field=outcome.field)
        return outcome

    def is_detached(self, frame: Frame) -> bool:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return not isinstance(frame, Blank) and not frame.is_heartbeat

    def count_messages(self, frame: Frame) -> int:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return 0 if isinstance(frame, Blank) else frame.message_count

    def is_awaited(self, frame: Frame) -> bool:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        self._searched = 0
        return self._answers(frame)

    def find_awaited(self, buffer: bytearray) -> tuple[int, Decoded[Frame]] | None:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        if not self._awaited:
            return None
        # Deleting from the start of a bytearray moves no bytes; a slice for each frame would.
        unread, at = buffer[self._searched :], 0
        while unread:
            outcome = decode_frame(unread, self._limit)
            if isinstance(outcome, Incomplete | Fatal):
                break
            if isinstance(outcome, Decoded) and self._answers(outcome.value):
                return self._searched + at, outcome
            at += outcome.used
            del unread[: outcome.used]
        self._searched += at
        return None

    def _answers(self, frame: Frame) -> bool:
        if not self._awaited or isinstance(frame, Blank) or frame.answer is None:
            return False
        return frame.answer.token in ("", self._awaited)

    def handle(self, frame: Frame, now: float) -> Sequence[Step]:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        if isinstance(frame, Blank):
            return ()
        self._skipped = 0
        device_id = frame.device_id or self._device_id
        if not device_id:
            reason = "frame without a device ID on a connection whose device is not known yet"
            return (ProtocolError(reason, Rejection.LOGIN, closes=False),)
        steps: list[Step] = []
        if device_id != self._device_id:
            self._device_id = device_id
            steps.append(LogIn(device_id, b"", may_stay=True, shared=True))
        if frame.is_heartbeat:
            return (*steps, Reply(frame.ack))
        steps += self._append(frame, device_id, now)
        return steps

    def _append(self, frame: DeviceFrame, device_id: str, now: float) -> Sequence[Step]:
        steps: list[Step] = []
        reading = self._reader.read(frame, device_id, now)
        if reading.notice and reading.notice not in self._noticed:
            self._noticed.add(reading.notice)  # once on each connection
            steps.append(Notice(reading.notice))
        ack = frame.ack if self._settings.sack else b""
        if reading.entries:
            steps.append(AppendDetached(reading.entries, ack))
        elif ack:
            steps.append(Reply(ack))
        answer = frame.answer
        if answer is not None:
            if answer.token in ("", self._awaited):
                self._awaited = ""
            steps.append(CommandAnswer(answer))
        return steps

    def count_detached(self, data: bytes | bytearray) -> int:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return count_starts(data)

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        return command_frame(
            device_id,
            content,
            codec,
            passwords=self._settings.password_file,
            serials=self._serials,
        )

    def command_written(self, data: bytes) -> None:
        """See :class:`tracker.vendors.dialect.Dialect`."""
        self._awaited = written_serial(data)
