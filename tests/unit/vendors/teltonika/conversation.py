"""A device's conversation with the protocol, over a transport without a socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.python.failure import Failure

from tests.unit.fakes import FakeGateway
from tracker.limits import Limits
from tracker.position import Entry
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.factory import TeltonikaFactory
from tracker.vendors.teltonika.frame import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message
from tracker.vendors.teltonika.protocol import TeltonikaProtocol

IMEI = "356307042441013"
LOGIN = b"\x00\x0f" + IMEI.encode()


def frame(*timestamps: int) -> bytes:
    records = [Record(timestamp, 0, 1, 2, 3, 4, 5, 6, 0) for timestamp in timestamps]
    return encode_frame(encode_packet(CODEC_8, records))


def message(
    text: bytes = b"DI1:1", codec_id: int = 0x0C, time: int | None = None, imei: str | None = None
) -> bytes:
    """The frame of a message that a device sends."""
    made = Message(MESSAGE_CODECS[codec_id], 0x06, text, time, imei)
    return encode_frame(encode_message(made))


def repeating(*timestamps: int) -> bytes:
    """A frame of records in each of which an IO id occurs twice."""
    elements = ((66, 2, 1), (66, 2, 2))
    records = [Record(time, 0, 1, 2, 3, 4, 5, 6, 0, elements) for time in timestamps]
    return encode_frame(encode_packet(CODEC_8, records))


def is_message(entries: Sequence[Entry]) -> bool:
    """Whether nobody waits for an acknowledgement of this packet."""
    return bool(entries) and entries[0].codec in ("12", "13", "14", "15")


class Connection(StringTransportWithDisconnection):
    """A transport that is gone as soon as it is closed, and tells how it was."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Conversation:
    """A protocol, its transport and its gateway.

    :param lingers: whether the connection stays when the protocol has closed it, as one
        does whose peer has not yet taken what was sent.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        gateway: FakeGateway | None = None,
        lingers: bool = False,
    ) -> None:
        self.gateway = gateway or FakeGateway()
        self.clock = Clock()
        self.limits = limits or Limits()
        factory = TeltonikaFactory(self.gateway, self.limits, self.clock)
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        self.protocol: TeltonikaProtocol = protocol
        transport: Any = StringTransport() if lingers else Connection()
        transport.protocol = self.protocol
        self.transport = transport
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Data arrives; then the reactor turns once."""
        self.protocol.dataReceived(data)
        self.clock.advance(0)

    def lose(self) -> None:
        """The connection breaks."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def answer(self) -> bytes:
        """What the device has received since the last time."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def confirm(self) -> None:
        """Redis confirms the packet that was published last."""
        self.gateway.published[-1][1].callback(None)

    @property
    def timers(self) -> int:
        """Timers that are still to fire."""
        return len(self.clock.getDelayedCalls())

    def told(self, kind: str) -> list[tuple[Any, ...]]:
        """What the gateway was told of one kind."""
        return [event for event in self.gateway.events if event[0] == kind]

    @property
    def closed(self) -> bool:
        return bool(not self.transport.connected or self.transport.disconnecting)

    @property
    def reason(self) -> str:
        """Why the peer was rejected."""
        reason: str = next(event[1] for event in self.gateway.events if event[0] == "rejected")
        return reason
