"""A vendor whose devices send lines of text as datagrams, and a port that receives them.

``ID NUMBER A B`` carries two records; its ACK is ``NUMBER 2``. With ``wrong`` as a record, the
content is invalid; with ``odd``, it causes a notice. All other datagrams are invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport

from tests.unit.fakes import FakeGateway
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded, Rejected
from tracker.position import Entry
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.dialect import (
    Append,
    DatagramDialect,
    DatagramStep,
    Notice,
    OpenedDatagram,
    ProtocolError,
)

ADDRESS: Final = ("192.0.2.7", 40_001)
OTHER_ADDRESS: Final = ("198.51.100.9", 7)
DEVICE: Final = "device-1"

#: Builds the protocol of a port.
BuildPort = Callable[[FakeGateway, Limits, Clock], DatagramPort]


class PostDialect(DatagramDialect):
    """The dialect of these devices."""

    def open(self, datagram: bytes) -> Decoded[OpenedDatagram] | Rejected:
        head, _, rest = datagram.partition(b" ")
        number, _, records = rest.partition(b" ")
        if not number.isdigit():
            return Rejected(len(datagram), 0, "not a line", field="length")
        return Decoded(OpenedDatagram(head.decode(), records, (int(number),)), len(datagram))

    def handle(self, opened: OpenedDatagram, now: float) -> Sequence[DatagramStep]:
        words = opened.data.decode().split()
        if "wrong" in words:
            return [ProtocolError("an error", Rejection.CONTENT)]
        when = "2026-11-22T10:00:00.000Z"
        entries = [Entry(when, opened.device_id, "lines", word) for word in words]
        notices = [Notice(word) for word in words if word == "odd"]
        return [*notices, Append(entries, b"%d %d" % (*opened.ids, len(words)))]


def build_port(gateway: FakeGateway, limits: Limits, clock: Clock) -> DatagramPort:
    """Build a port for these devices."""
    return DatagramPort(gateway, limits, clock, PostDialect())


def post(number: int = 5, records: str = "A B", device: str = DEVICE) -> bytes:
    """Return a datagram of a device."""
    return f"{device} {number} {records}".encode()


class Port:
    """A port, its transport and its gateway."""

    def __init__(self, limits: Limits | None = None, build: BuildPort = build_port) -> None:
        self.gateway = FakeGateway()
        self.clock = Clock()
        self.protocol = build(self.gateway, limits or Limits(), self.clock)
        self.transport = FakeDatagramTransport()
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes, address: tuple[str, int] = ADDRESS) -> None:
        self.protocol.datagramReceived(data, address)

    def acks(self) -> list[tuple[bytes, tuple[str, int]]]:
        """Return the datagrams that were sent since the last call, with their addresses."""
        written, self.transport.written = self.transport.written, []
        return list(written)

    def confirm(self, number: int = -1) -> None:
        """Confirm the entries of one datagram; by default, of the last one."""
        self.gateway.published[number][1].callback(None)

    @property
    def published(self) -> int:
        return len(self.gateway.published)

    @property
    def remembered(self) -> int:
        """Number of datagrams that the port remembers."""
        return len(self.protocol._recent)

    @property
    def reasons(self) -> list[str]:
        """Reasons for which datagrams were rejected."""
        return [event[1] for event in self.gateway.events if event[0] == "rejected"]
