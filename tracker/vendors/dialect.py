"""The interface between the pure code of a vendor and the connection that all vendors share.

A :class:`Dialect` takes frames out of the bytes that a device has sent, and returns *steps* for
each: instructions for the connection. A dialect imports nothing of Twisted, performs no input or
output, and receives the time as an argument. The connection (``tracker.vendors.connection``)
carries out the steps in their order, up to the first one that closes the connection. The
connection knows nothing of a vendor's bytes.

Only the connection decides when bytes are written to the device, in the same way for all vendors:
an ``ack``, and a reply ``after_durable``, leave only after the log has confirmed the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, TypeVar

from tracker.command import Answer, CommandFrame
from tracker.interfaces import Rejection
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.position import Entry

#: Reason for closing a connection on which a second device logs in.
OTHER_DEVICE = "second login, with another device ID"


class LogIn(NamedTuple):
    """The frame names the device; the first such frame on a connection is its login.

    A later login of the same device is accepted again. A login of another device closes the
    connection, unless both are ``shared``.
    """

    device_id: str
    accept: bytes
    """Reply if the device is served; may be empty."""
    refuse: bytes = b""
    """Reply if the device is not served, written before the connection is closed; may be empty."""
    settle_time: float = 0.0
    """Seconds after ``accept`` in which no command is written, unless records arrive earlier."""
    may_stay: bool = False
    """True if a device that is not served stays connected, because it would reconnect at once. It
    gets ``accept``; its entries are discarded without an ACK until it is served."""
    shared: bool = False
    """True if the connection may carry several devices. Each login then names the device of the
    steps that follow it, up to the next login."""
    needs_log: bool = False
    """True if ``accept`` is withheld while the log does not confirm appends, because the device
    keeps its records until then. Such a login is the only step of its frame."""


class Append(NamedTuple):
    """Records that the device repeats until it has received ``ack``.

    The connection handles no later frame until the log has confirmed the records. If the
    connection ends first, the records are given up; the device sends them again.
    """

    entries: Sequence[Entry]
    ack: bytes


class AppendDetached(NamedTuple):
    """Entries that the device never repeats; the append outlives the connection.

    The connection handles later frames meanwhile, unless too many detached entries are under
    way.
    """

    entries: Sequence[Entry]
    ack: bytes = b""
    """Written once the log has confirmed the entries; may be empty."""


class Reply(NamedTuple):
    """Bytes for the device that acknowledge no records of their own frame."""

    data: bytes
    after_durable: bool = False
    """True if the reply also acknowledges all earlier records of the connection. It is then
    written once all of them are durable, and no later frame is handled until then."""


class CommandAnswer(NamedTuple):
    """The frame may be the answer to a command."""

    answer: Answer


class Notice(NamedTuple):
    """An oddity that has no consequences; it is logged."""

    text: str


class ProtocolError(NamedTuple):
    """The frame breaks the protocol."""

    reason: str
    """The error, in one line."""
    kind: Rejection
    closes: bool = True
    """True if the connection has to be closed."""
    reply: bytes = b""
    """Written before the connection is closed; may be empty."""


Step = LogIn | Append | AppendDetached | Reply | CommandAnswer | Notice | ProtocolError
#: A step for a datagram.
DatagramStep = Append | Reply | CommandAnswer | Notice | ProtocolError

FrameT = TypeVar("FrameT")


class Dialect(Protocol[FrameT]):
    """The server's side of a vendor's protocol, for one connection; vendors inherit from it.

    Methods that have a body here may be omitted by a vendor without the thing that they are for.
    The connection does not inspect frames; it only passes them back to the dialect.
    """

    def next_frame(self, buffer: bytearray) -> Decoded[FrameT] | Incomplete | Rejected | Fatal:
        """Decode the frame at the start of ``buffer``.

        :param buffer: received bytes; not empty. They must not be changed.
        :return: the frame and its number of bytes; ``Incomplete`` if bytes are missing;
            ``Rejected`` for an invalid frame that is skipped; ``Fatal`` if the next frame cannot
            be found, which closes the connection. The ``field`` of the last two decides which
            :class:`~tracker.interfaces.Rejection` is counted, see
            :func:`tracker.vendors.rejections.rejection`.
        """

    def is_detached(self, frame: FrameT) -> bool:
        """Return True if the device never repeats this frame.

        Its step is then ``AppendDetached``.
        """
        return False

    def count_messages(self, frame: FrameT) -> int:
        """Return the number of unsolicited messages in a detached frame, whose rate is limited.

        0 for all other frames, and for detached positions: only the budget of work limits them.
        """
        return 0

    def is_awaited(self, frame: FrameT) -> bool:
        """Return True if this message may be the answer to a command.

        Such a frame is exempt from the rate limit.

        :param frame: the first frame of the buffer.
        """
        return False

    def find_awaited(self, buffer: bytearray) -> tuple[int, Decoded[FrameT]] | None:
        """Find the answer to a command behind other detached frames, which it then overtakes.

        Called when the first frame is over the rate, and again whenever bytes were added.

        :param buffer: received bytes; not empty. They must not be changed.
        :return: offset of the answer in ``buffer``, and its frame; None if it is not there.
        """
        return None

    def handle(self, frame: FrameT, now: float) -> Sequence[Step]:
        """Return the steps for a frame; an empty sequence for a mere sign of life.

        Before the first :class:`LogIn` only ``Reply`` and ``ProtocolError`` are allowed. One frame
        gets at most one reply: return at most one ``Append`` or one ``Reply``. A ``Reply`` together
        with ``AppendDetached`` must be ``after_durable``.

        :param now: seconds since 1970 (UTC).
        """

    def count_detached(self, data: bytes | bytearray) -> int:
        """Return an estimate of the number of detached frames in unread bytes, without decoding.

        It is called for bytes that are given up, so that their loss can be counted.
        """
        return 0

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """Encode a command to a device that has logged in on the connection.

        :param content: the bytes of the command; a text is in UTF-8.
        :param codec: the vendor's name of the codec; empty: the vendor's usual one.
        :raises ValueError: if the codec is unknown or cannot carry the bytes. The message is one
            line.
        """

    def command_written(self, data: bytes) -> None:
        """Note that a command is being written, so that its answer can be recognised.

        :param data: the bytes of the command's frame.
        """
        return


class OpenedDatagram(NamedTuple):
    """A datagram whose device is known, and whose content is not decoded yet."""

    device_id: str
    data: bytes
    """The content. Its length is limited like that of a frame."""
    ids: tuple[int, ...] = ()
    """Numbers of the datagram. A datagram with the same device, data and ids is a repetition."""


class DatagramDialect(Protocol):
    """The server's side of a vendor's protocol over datagrams, for one port.

    Vendors inherit from it.

    The sender of a datagram may be forged, so a dialect must not store anything about it.
    """

    takes_commands: ClassVar[bool] = False
    """True if devices take commands as datagrams, sent to the address from which they were last
    heard. A peer that forges a datagram of a device then receives the device's commands."""

    def open(self, datagram: bytes) -> Decoded[OpenedDatagram] | Rejected:
        """Decode the header of a datagram, but not its content.

        :return: ``Rejected`` for an invalid header; its ``field`` as for
            :meth:`Dialect.next_frame`.
        """

    def handle(self, opened: OpenedDatagram, now: float) -> Sequence[DatagramStep]:
        """Return the steps for a datagram.

        At most one of them is an ``Append``, whose ``ack`` is the reply, or a ``Reply``, which is
        sent at once and is not ``after_durable``. Each may be empty. Not called for a repetition of
        a datagram with an ``Append``, which gets the same ACK again.

        :param now: seconds since 1970 (UTC).
        """

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """Encode a command to a device; called only if the dialect :attr:`takes_commands`.

        See :meth:`Dialect.command`; the frame is one datagram.
        """
        raise ValueError("the device takes no commands over UDP")
