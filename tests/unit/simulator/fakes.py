"""The server's side of a simulated device, played by the test."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.outcomes import Decoded
from tracker.vendors.teltonika.avl import Packet, decode_packet
from tracker.vendors.teltonika.frame import decode_frame, encode_frame
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    Message,
    decode_message,
    encode_message,
)


class FakeConnection:
    """One connection of a device: what it sent, and what it is told."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._transport = StringTransport()
        protocol.makeConnection(self._transport)

    @property
    def closing(self) -> bool:
        """Whether the device wants to end the connection."""
        return bool(self._transport.disconnecting)

    @property
    def aborted(self) -> bool:
        """Whether the device ends it without waiting for what is on its way."""
        return bool(self._transport.disconnected)

    def received(self) -> bytes:
        """What the device has sent since the last time."""
        data: bytes = self._transport.value()
        self._transport.clear()
        return data

    def packet(self) -> Packet:
        """The one packet that the device has sent since the last time."""
        (packet,) = self.units()
        assert isinstance(packet, Packet)
        return packet

    def message(self) -> Message:
        """The one message that the device has sent since the last time."""
        (message,) = self.units()
        assert isinstance(message, Message)
        return message

    def units(self) -> list[Packet | Message]:
        """The packets and messages that the device has sent since the last time."""
        data = self.received()
        units: list[Packet | Message] = []
        while data:
            frame = decode_frame(data, 1 << 20)
            assert isinstance(frame, Decoded)
            data = data[frame.used :]
            is_message = frame.value[0] in MESSAGE_CODECS
            unit = decode_message(frame.value) if is_message else decode_packet(frame.value)
            assert isinstance(unit, Decoded)
            units.append(unit.value)
        return units

    def answer(self, data: bytes) -> None:
        """Send bytes to the device."""
        self._protocol.dataReceived(data)

    def accept_login(self) -> None:
        """Take the login that the device has sent."""
        self.received()
        self.answer(b"\x01")

    def acknowledge(self, count: int) -> None:
        """Tell the device that so many records were received."""
        self.answer(acknowledgement(count))

    def command(self, text: str, imei: str | None = None) -> None:
        """Send a command: in Codec 14 where there is an IMEI, else in Codec 12."""
        self.answer(command(text, imei))

    def lose(self) -> None:
        """The connection is gone, on both sides."""
        self._protocol.connectionLost(Failure(ConnectionLost()))


def acknowledgement(count: int) -> bytes:
    """What tells a device that so many records were received."""
    return count.to_bytes(4, "big")


def command(text: str, imei: str | None = None) -> bytes:
    """The frame of a command: in Codec 14 where there is an IMEI, else in Codec 12."""
    codec = MESSAGE_CODECS[0x0C if imei is None else 0x0E]
    return encode_frame(encode_message(Message(codec, COMMAND, text.encode(), imei=imei)))


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """Connects nothing; the test says what becomes of each attempt."""

    def __init__(self) -> None:
        self.attempts = 0
        self.cancelled = 0
        self._pending: list[tuple[IProtocolFactory, Deferred[Any]]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """See IStreamClientEndpoint."""

        def cancel(_: Deferred[Any]) -> None:
            self.cancelled += 1
            self._pending.clear()

        attempt: Deferred[Any] = Deferred(cancel)
        self.attempts += 1
        self._pending.append((protocolFactory, attempt))
        return attempt

    @property
    def pending(self) -> int:
        """Attempts that nothing has become of yet."""
        return len(self._pending)

    def accept(self) -> FakeConnection:
        """The oldest attempt succeeds."""
        factory, attempt = self._pending.pop(0)
        address: IAddress | None = None
        protocol = factory.buildProtocol(address)  # type: ignore[arg-type]
        connection = FakeConnection(protocol)
        attempt.callback(protocol)
        return connection

    def refuse(self) -> None:
        """The oldest attempt fails."""
        _, attempt = self._pending.pop(0)
        attempt.errback(Failure(ConnectError()))
