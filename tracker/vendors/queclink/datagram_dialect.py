"""The server's side of the @Track protocol over UDP.

A datagram has one frame, or several of the same device. Its reply has the acknowledgement of each.
A device that is configured to wait for it repeats the datagram otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from tracker.command import CommandFrame
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded, Rejected
from tracker.position import Entry
from tracker.vendors.dialect import (
    Append,
    CommandAnswer,
    DatagramDialect,
    DatagramStep,
    Notice,
    OpenedDatagram,
    ProtocolError,
    Reply,
)
from tracker.vendors.queclink.commands import Serials, command_frame
from tracker.vendors.queclink.framing import Blank, DeviceFrame, decode_frame
from tracker.vendors.queclink.reader import EntryReader
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.queclink.text import BLANK
from tracker.vendors.rejections import rejection

#: Maximum number of frames in a datagram.
MAX_FRAMES: int = 32


class QueclinkDatagramDialect(DatagramDialect):
    """The server's side of the protocol, for one UDP port.

    :param on_truncated: called for each message that is truncated because of its length.
    """

    takes_commands: ClassVar[bool] = True

    def __init__(
        self, limits: Limits, settings: QueclinkSettings, on_truncated: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._limit = limits.frame_bytes
        self._reader = EntryReader(limits, settings.zone, on_truncated)
        self._serials = Serials()

    def open(self, datagram: bytes) -> Decoded[OpenedDatagram] | Rejected:
        """See :class:`tracker.vendors.dialect.DatagramDialect`."""
        size = len(datagram)
        data = datagram.lstrip(BLANK)
        outcome = decode_frame(data, self._limit) if data else None
        if not isinstance(outcome, Decoded):
            reason = getattr(outcome, "reason", "datagram without a whole frame")
            field = getattr(outcome, "field", Rejection.LENGTH.value)
            return Rejected(size, 0, reason, field=field)
        frame = outcome.value
        if isinstance(frame, Blank) or not frame.device_id:
            reason = "datagram without a device ID"
            return Rejected(size, 0, reason, field=Rejection.LOGIN.value)
        return Decoded(OpenedDatagram(frame.device_id, data), size)

    def handle(self, opened: OpenedDatagram, now: float) -> Sequence[DatagramStep]:
        """See :class:`tracker.vendors.dialect.DatagramDialect`."""
        steps: list[DatagramStep] = []
        entries: list[Entry] = []
        acks = []
        for frame in self._frames(opened, steps):
            if frame.is_heartbeat:
                acks.append(frame.ack)
                continue
            reading = self._reader.read(frame, opened.device_id, now)
            if reading.notice:
                steps.append(Notice(reading.notice))
            entries += reading.entries
            if self._settings.sack:
                acks.append(frame.ack)
            if frame.answer is not None:
                steps.append(CommandAnswer(frame.answer))
        ack = b"".join(acks)
        return (*steps, Append(entries, ack) if entries else Reply(ack))

    def _frames(self, opened: OpenedDatagram, steps: list[DatagramStep]) -> Sequence[DeviceFrame]:
        """Return the frames of a datagram; add a step for what is none.

        :param steps: receives the steps.
        """
        frames: list[DeviceFrame] = []
        unread = opened.data
        while unread and len(frames) < MAX_FRAMES:
            outcome = decode_frame(unread, self._limit)
            if not isinstance(outcome, Decoded):
                reason = getattr(outcome, "reason", "datagram ends within a frame")
                field = getattr(outcome, "field", Rejection.LENGTH.value)
                steps.append(ProtocolError(reason, rejection(field), closes=False))
                break
            unread = unread[outcome.used :]
            frame = outcome.value
            if isinstance(frame, Blank):
                continue
            if frame.device_id not in ("", opened.device_id):
                reason = "datagram with frames of several devices"
                steps.append(ProtocolError(reason, Rejection.LOGIN, closes=False))
                break
            frames.append(frame)
        return frames

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """See :class:`tracker.vendors.dialect.DatagramDialect`."""
        return command_frame(
            device_id,
            content,
            codec,
            passwords=self._settings.password_file,
            serials=self._serials,
        )
