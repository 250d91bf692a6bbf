"""The seam between the pure code of a vendor and the connection that all vendors share.

A :class:`Dialect` takes frames out of the bytes that a device has sent and answers each with
*steps*: what the connection has to do about it. It imports nothing of Twisted, performs no
input or output, and is given the time. The connection (``tracker.vendors.connection``) carries
the steps out in their order, and knows no bytes of any vendor. It stops after the first step
that closes the connection.

What a step promises to the device is kept by the connection alone, once for all vendors: an
``ack`` and a reply ``after_durable`` leave only when the log has confirmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

from tracker.command import Answer, CommandFrame
from tracker.interfaces import Rejection
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.position import Entry

#: Reason for closing a connection on which a second device logs in.
OTHER_DEVICE = "a second login, of another device"


class LogIn(NamedTuple):
    """The frame names its device; the first one on a connection is its login.

    A login of the same device again is accepted again; one of another device closes the
    connection.
    """

    device_id: str
    accept: bytes
    """The answer if the device is served; may be empty."""
    refuse: bytes = b""
    """The answer if it is not; may be empty. Then the connection is closed."""
    settle_time: float = 0.0
    """Seconds after ``accept`` in which no command is written, unless records come before."""


class Append(NamedTuple):
    """Records that the device sends again until it has received ``ack``.

    Nothing that follows is handled before the log has confirmed them. If the connection ends
    before, they are given up.
    """

    entries: Sequence[Entry]
    ack: bytes


class AppendDetached(NamedTuple):
    """Entries that the device never sends again; on their way to the log they outlive the
    connection.

    What follows does not wait for it, unless too much is under way.
    """

    entries: Sequence[Entry]
    ack: bytes = b""
    """Written once the log has confirmed; may be empty."""


class Reply(NamedTuple):
    """An answer that confirms no records of its own frame."""

    data: bytes
    after_durable: bool = False
    """True if it also says that all earlier records of the connection are durable: it then leaves
    only when they are, and nothing is handled until then."""


class CommandAnswer(NamedTuple):
    """The frame may be the answer to a command."""

    answer: Answer


class Notice(NamedTuple):
    """Something odd that hurts nothing."""

    text: str


class ProtocolError(NamedTuple):
    """The frame breaks the protocol."""

    reason: str
    """The mistake, in one line."""
    kind: Rejection
    closes: bool = True
    """True if the connection is of no further use."""
    reply: bytes = b""
    """Written before the connection is closed."""


Step = LogIn | Append | AppendDetached | Reply | CommandAnswer | Notice | ProtocolError
#: What a datagram may call for.
DatagramStep = Append | Notice | ProtocolError

FrameT = TypeVar("FrameT")


class Dialect(Protocol[FrameT]):
    """The server's side of the protocol of a vendor, for one connection.

    Frames are opaque to the connection, which only passes them back.
    """

    def next_frame(self, buffer: bytearray) -> Decoded[FrameT] | Incomplete | Rejected | Fatal:
        """Take one frame from the start of ``buffer``, which is not empty and is not changed.

        :return: ``Rejected`` for a frame that is skipped, ``Fatal`` if the connection is of no
            further use. Their ``field`` decides which kind of mistake is counted, see
            :func:`tracker.vendors.rejections.rejection`.
        """

    def is_detached(self, frame: FrameT) -> bool:
        """Return whether the device never sends this again: it calls for ``AppendDetached``.

        Only the rate of such frames is limited.
        """

    def is_awaited(self, frame: FrameT) -> bool:
        """Return whether this first frame of the buffer may be the answer to a command.

        No rate limits it.
        """

    def find_awaited(self, buffer: bytearray) -> tuple[int, Decoded[FrameT]] | None:
        """Search the buffer for the answer to a command, behind detached frames.

        Called once the first frame is over the rate, and again when bytes were added.

        :return: offset of the frame and the frame, which then overtakes the others; None if it
            is not there.
        """

    def handle(self, frame: FrameT, now: float) -> Sequence[Step]:
        """Return the steps that a frame calls for; none for a mere sign of life.

        Before the first :class:`LogIn` there is no device: only ``Reply`` and ``ProtocolError``
        may come before it. One frame calls for one answer at most: for one ``Append`` or one
        ``Reply``. A ``Reply`` that comes with ``AppendDetached`` is ``after_durable``.

        :param now: seconds since 1970 (UTC).
        """

    def count_detached(self, data: bytes | bytearray) -> int:
        """Estimate, without decoding, the number of detached frames in unread bytes."""

    def command(self, text: str, codec: str) -> CommandFrame:
        """Return the bytes of a command to the device that has logged in.

        :param codec: the vendor's name of it; empty: the usual one.
        :raises ValueError: if there is no such codec, or it cannot carry that; in one line.
        """

    def command_written(self, data: bytes) -> None:
        """Note that the bytes of a command are being written, so that an answer may follow."""


class Envelope(NamedTuple):
    """A datagram whose device is known, and whose content is not decoded yet."""

    device_id: str
    data: bytes
    """The content. Its length is limited like that of a frame."""
    ids: tuple[int, ...] = ()
    """Numbers of the datagram. One with the same device, data and ids is a repetition."""


class DatagramDialect(Protocol):
    """The server's side of the protocol of a vendor over datagrams, for one port.

    Anybody may have sent a datagram, so nothing is remembered of its sender.
    """

    def open(self, datagram: bytes) -> Decoded[Envelope] | Rejected:
        """Read what stands around the content."""

    def handle(self, envelope: Envelope, now: float) -> Sequence[DatagramStep]:
        """Return the steps that a datagram calls for; its answer is the ``ack`` of ``Append``.

        It is not called for a repetition, which gets the same answer.

        :param now: seconds since 1970 (UTC).
        """
