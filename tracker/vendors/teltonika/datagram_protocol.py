"""Teltonika devices over UDP: each datagram is answered by itself, once Redis has confirmed.

A device repeats a datagram whose answer it missed, with the same ids. It is then
answered again, and not appended again. There is no login: the IMEI in the datagram is
all there is, and anybody could have written it.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

from attrs import define
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.interfaces import Admission, IGateway, IPeer, NotAccepted, Rejection
from tracker.limits import Limits
from tracker.outcomes import Rejected
from tracker.vendors.datagrams import DatagramGate
from tracker.vendors.rejections import rejection
from tracker.vendors.teltonika.datagram import Datagram, decode_datagram, encode_answer
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.positions import REPEATED_ID
from tracker.vendors.teltonika.reader import EntryReader

#: Seconds for which a repeated datagram is recognised.
WINDOW: Final = 60.0
#: Datagrams that are remembered at most.
REMEMBERED: Final = 50_000

_Key = tuple[str, int, int, bytes]


@define
class _Seen:
    """A datagram that was taken in: when, and how many of its records were confirmed."""

    at: float
    accepted: int | None = None


@implementer(IPeer)
@define(eq=False)
class _Sender:
    """Who sent a datagram; there is no connection."""

    peer: str
    device_id: str | None = None


class TeltonikaDatagramProtocol(DatagramProtocol):
    """One UDP port."""

    noisy = False

    def __init__(self, gateway: IGateway, limits: Limits, clock: Any) -> None:
        self._gateway = gateway
        self._limits = limits
        self._clock = clock
        self._seen: OrderedDict[_Key, _Seen] = OrderedDict()
        self._under_way = 0
        # One for all: who sends is not known well enough to remember anything of it.
        self._reader = EntryReader(Layouts(), limits.records)
        self._gate = DatagramGate(clock, limits, gateway.tally)

    def startProtocol(self) -> None:
        """Begin to receive."""
        self._gate.transport = self.transport

    def stopProtocol(self) -> None:
        """Receive no more."""
        self._gate.transport = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take in one datagram; whatever is wrong with it, it is dropped."""
        self._gateway.tally.bytes_received += len(datagram)
        if self._gate.begin(addr):
            try:
                self._read(datagram, addr)
            finally:
                self._gate.end()

    def _read(self, datagram: bytes, addr: Any) -> None:
        sender = _Sender(f"udp {addr[0]}:{addr[1]}")
        outcome = decode_datagram(datagram)
        if isinstance(outcome, Rejected):
            self._gateway.rejected(sender, outcome.reason, rejection(outcome.field))
            return
        packet = outcome.value
        sender.device_id = packet.imei
        if not self._gate.admits_device(packet.imei):
            return
        most = self._limits.frame_bytes
        if len(packet.data) > most:
            reason = f"data length {len(packet.data)} is over the limit of {most}"
            self._gateway.rejected(sender, reason, Rejection.LENGTH)
            return
        if self._gateway.admission(packet.imei) is not Admission.SERVED:
            self._gateway.tally.turned_away += 1
            return
        digest = blake2b(packet.data, digest_size=16).digest()
        key = (packet.imei, packet.packet_id, packet.avl_packet_id, digest)
        self._forget_old()
        seen = self._seen.get(key)
        if seen is None:
            self._take_in(key, packet, sender, addr)
            return
        self._gateway.tally.repeated += 1
        if seen.accepted is not None:
            self._answer(packet, seen.accepted, addr)
        # else: its answer follows as soon as Redis has confirmed

    def _take_in(self, key: _Key, packet: Datagram, sender: _Sender, addr: Any) -> None:
        if self._under_way >= self._limits.datagrams_under_way:
            self._gateway.tally.dropped += 1
            return  # the device repeats it

        def repeated_id() -> None:
            self._gateway.noticed(sender, REPEATED_ID)

        now = self._clock.seconds()
        reading = self._reader.read(packet.imei, packet.data, now, repeated_id)
        if isinstance(reading, Rejected):
            self._gateway.rejected(sender, reading.reason, rejection(reading.field))
            return
        if reading.message is not None:
            reason = "a message over UDP, which carries records only"
            self._gateway.rejected(sender, reason, Rejection.CODEC)
            return
        count = len(reading.entries)
        seen = self._seen[key] = _Seen(now)
        self._under_way += 1

        def confirmed(_: None) -> None:
            self._under_way -= 1
            seen.accepted = count
            seen.at = self._clock.seconds()
            self._seen.move_to_end(key)
            self._gate.confirmed(addr, packet.imei)
            self._answer(packet, count, addr)

        def not_confirmed(failure: Failure) -> None:
            self._under_way -= 1
            del self._seen[key]
            failure.trap(NotAccepted, CancelledError)

        self._gateway.publish(reading.entries).addCallbacks(confirmed, not_confirmed)

    def _answer(self, packet: Datagram, accepted: int, addr: Any) -> None:
        if self.transport is not None:
            answer = encode_answer(packet.packet_id, packet.avl_packet_id, accepted)
            self._gateway.tally.bytes_sent += len(answer)
            with suppress(OSError):  # an address that was forged, or a full queue
                self.transport.write(answer, addr)

    def _forget_old(self) -> None:
        horizon = self._clock.seconds() - WINDOW
        while self._seen:
            key, seen = next(iter(self._seen.items()))
            if seen.accepted is None:
                return  # under way, as are few: it would be appended again
            if seen.at > horizon and len(self._seen) < REMEMBERED:
                return
            del self._seen[key]
