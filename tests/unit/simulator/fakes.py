"""A fake server for a simulated device."""

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
from tracker.vendors.teltonika.envelope import decode_frame, encode_frame
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    Message,
    decode_messages,
    encode_message,
)


class FakeConnection:
    """The server's side of a device's connection."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._transport = StringTransport()
        protocol.makeConnection(self._transport)

    @property
    def closing(self) -> bool:
        """True if the device has closed the connection."""
        return bool(self._transport.disconnecting)

    @property
    def aborted(self) -> bool:
        """True if the device has aborted the connection."""
        return bool(self._transport.disconnected)

    def received(self) -> bytes:
        """Return the bytes that the device has sent since the last call."""
        data: bytes = self._transport.value()
        self._transport.clear()
        return data

    def packet(self) -> Packet:
        """Return the single packet that the device has sent since the last call."""
        (packet,) = self.packets_and_messages()
        assert isinstance(packet, Packet)
        return packet

    def message(self) -> Message:
        """Return the single message that the device has sent since the last call."""
        (message,) = self.packets_and_messages()
        assert isinstance(message, Message)
        return message

    def packets_and_messages(self) -> list[Packet | Message]:
        """Return the packets and messages that the device has sent since the last call."""
        data = self.received()
        sent: list[Packet | Message] = []
        while data:
            frame = decode_frame(data, 1 << 20)
            assert isinstance(frame, Decoded)
            data = data[frame.used :]
            if frame.value[0] in MESSAGE_CODECS:
                messages = decode_messages(frame.value)
                assert isinstance(messages, Decoded)
                sent.extend(messages.value.parts)
            else:
                packet = decode_packet(frame.value)
                assert isinstance(packet, Decoded)
                sent.append(packet.value)
        return sent

    def send(self, data: bytes) -> None:
        """Send bytes to the device."""
        self._protocol.dataReceived(data)

    def accept_login(self) -> None:
        """Accept the login that the device has sent."""
        self.received()
        self.send(b"\x01")

    def acknowledge(self, count: int) -> None:
        """Send the ACK of ``count`` records."""
        self.send(acknowledgement(count))

    def command(self, text: str, imei: str | None = None) -> None:
        """Send a command, in Codec 14 if an IMEI is given, else in Codec 12."""
        self.send(command(text, imei))

    def lose(self) -> None:
        """Lose the connection."""
        self._protocol.connectionLost(Failure(ConnectionLost()))


def acknowledgement(count: int) -> bytes:
    """Return the ACK of ``count`` records."""
    return count.to_bytes(4, "big")


def command(text: str, imei: str | None = None) -> bytes:
    """Return the frame of a command, in Codec 14 if an IMEI is given, else in Codec 12."""
    codec = MESSAGE_CODECS[0x0C if imei is None else 0x0E]
    return encode_frame(encode_message(Message(codec, COMMAND, text.encode(), imei=imei)))


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """Endpoint whose attempts to connect the test accepts or refuses."""

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
        """Number of attempts that are neither accepted, refused nor cancelled."""
        return len(self._pending)

    def accept(self) -> FakeConnection:
        """Accept the oldest attempt."""
        factory, attempt = self._pending.pop(0)
        address: IAddress | None = None
        protocol = factory.buildProtocol(address)  # type: ignore[arg-type]
        connection = FakeConnection(protocol)
        attempt.callback(protocol)
        return connection

    def refuse(self) -> None:
        """Refuse the oldest attempt."""
        _, attempt = self._pending.pop(0)
        attempt.errback(Failure(ConnectError()))
