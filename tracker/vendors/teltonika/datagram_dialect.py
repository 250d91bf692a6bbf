"""The server's side of Teltonika's protocol over UDP, see :mod:`.datagram`.

Each datagram has one AVL packet. Its ACK repeats its ids and adds the number of records, or of
messages. Teltonika documents no messages over UDP. They get an ACK all the same: a device
that expects one would repeat them without it, and one that does not has no use for the
datagram. A message over UDP is never the answer to a command: commands are sent over TCP, and
anybody can forge a datagram.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracker.limits import Limits
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.dialect import (
    Append,
    DatagramDialect,
    DatagramStep,
    Notice,
    OpenedDatagram,
    ProtocolError,
)
from tracker.vendors.rejections import rejection
from tracker.vendors.teltonika.datagram import decode_datagram, encode_ack
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.positions import REPEATED_ID
from tracker.vendors.teltonika.reader import EntryReader


class TeltonikaDatagramDialect(DatagramDialect):
    """The server's side of the protocol, for one UDP port.

    :param on_truncated: called for each message that is truncated because of its length.
    """

    def __init__(self, limits: Limits, layouts: Layouts, on_truncated: Callable[[], None]) -> None:
        # One reader serves all devices: nothing is remembered about the sender of a
        # datagram, which may be forged.
        self._reader = EntryReader(layouts, limits.records, limits.message_bytes, on_truncated)

    def open(self, datagram: bytes) -> Decoded[OpenedDatagram] | Rejected:
        """See :class:`tracker.vendors.dialect.DatagramDialect`."""
        outcome = decode_datagram(datagram)
        if isinstance(outcome, Rejected):
            return outcome
        packet = outcome.value
        ids = (packet.packet_id, packet.avl_packet_id)
        return Decoded(OpenedDatagram(packet.imei, packet.data, ids), outcome.used)

    def handle(self, opened: OpenedDatagram, now: float) -> Sequence[DatagramStep]:
        """See :class:`tracker.vendors.dialect.DatagramDialect`."""
        repeated: list[DatagramStep] = []
        reading = self._reader.read(
            opened.device_id,
            opened.data,
            now,
            lambda: repeated.append(Notice(REPEATED_ID)),
        )
        if isinstance(reading, Rejected):
            return (ProtocolError(reading.reason, rejection(reading.field)),)
        packet_id, avl_packet_id = opened.ids
        ack = encode_ack(packet_id, avl_packet_id, len(reading.entries))
        return (*repeated[:1], Append(reading.entries, ack))
