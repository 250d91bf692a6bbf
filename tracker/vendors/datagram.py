"""One datagram port of a vendor: each datagram is acknowledged once its records are appended.

A device repeats a datagram whose ACK it has not received. The repetition is acknowledged again, and
not appended again. Datagrams have no login: only the device ID in the datagram names the sender,
and it may be forged. If the vendor's devices take commands as datagrams, they have sessions; see
:mod:`tracker.vendors.sessions` for the consequences of a forged datagram.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Final

from attrs import define
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.interfaces import Admission, IGateway, IPeer, NotAppended, Rejection, Traffic
from tracker.limits import Limits
from tracker.outcomes import Rejected
from tracker.position import Entry
from tracker.vendors.budget import Source
from tracker.vendors.dialect import (
    Append,
    CommandAnswer,
    DatagramDialect,
    Notice,
    OpenedDatagram,
    ProtocolError,
    Reply,
)
from tracker.vendors.gate import DatagramGate
from tracker.vendors.rejections import rejection
from tracker.vendors.sessions import Sessions

#: Seconds for which a repeated datagram is recognised.
REPEAT_WINDOW: Final = 60.0
#: Maximum number of datagrams that are remembered.
MAX_REMEMBERED_DATAGRAMS: Final = 50_000

_Key = tuple[str, tuple[int, ...], bytes]


@define
class _Seen:
    """A datagram that was accepted."""

    at: float
    """Time of its arrival; once its records are appended, the time of the append."""
    ack: bytes | None = None
    """Its ACK, once its records are appended."""


class _Recent:
    """The datagrams that are under way, or were appended a short time ago."""

    def __init__(self, clock: IReactorTime) -> None:
        self.under_way = 0
        self._clock = clock
        self._seen: OrderedDict[_Key, _Seen] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def find(self, key: _Key) -> _Seen | None:
        """Return the earlier datagram with the same key, if it is still remembered."""
        horizon = self._clock.seconds() - REPEAT_WINDOW
        while self._seen:
            oldest, seen = next(iter(self._seen.items()))
            if seen.ack is None:
                break  # still under way; if it were forgotten, its repetition would be appended
            if seen.at > horizon and len(self._seen) < MAX_REMEMBERED_DATAGRAMS:
                break
            del self._seen[oldest]
        return self._seen.get(key)

    def begin(self, key: _Key) -> None:
        """Remember a datagram that is under way."""
        self.under_way += 1
        self._seen[key] = _Seen(self._clock.seconds())

    def finish(self, key: _Key, ack: bytes) -> None:
        """Remember the ACK of a datagram whose records are appended."""
        self.under_way -= 1
        self._seen[key] = _Seen(self._clock.seconds(), ack)
        self._seen.move_to_end(key)

    def give_up(self, key: _Key) -> None:
        """Forget a datagram whose records were not appended; its repetition is handled as new."""
        self.under_way -= 1
        del self._seen[key]


@implementer(IPeer)
@define(eq=False)
class _Sender:
    """The sender of a datagram, which has no connection."""

    peer: str
    device_id: str | None = None


class DatagramPort(DatagramProtocol):
    """One UDP port. An invalid datagram is counted and dropped."""

    noisy = False

    def __init__(
        self,
        gateway: IGateway,
        limits: Limits,
        clock: IReactorTime,
        dialect: DatagramDialect,
    ) -> None:
        self._gateway = gateway
        self._limits = limits
        self._clock = clock
        self._dialect = dialect
        self._recent = _Recent(clock)
        self._gate = DatagramGate(clock, limits, gateway.tally)
        self.sessions = Sessions(
            gateway, clock, dialect, idle_timeout=limits.idle_timeout, send=self._write
        )

    def startProtocol(self) -> None:
        """Start receiving."""
        self._gate.transport = self.transport

    def stopProtocol(self) -> None:
        """Stop receiving."""
        self._gate.transport = None
        self.sessions.close()

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        """Handle one datagram, unless its source is over its budget."""
        self._gateway.tally.bytes_received += len(datagram)
        if self._gate.begin(addr):
            try:
                self._open(datagram, addr)
            finally:
                self._gate.end()

    def _open(self, datagram: bytes, addr: Source) -> None:
        sender = _Sender(f"udp {addr[0]}:{addr[1]}")
        outcome = self._dialect.open(datagram)
        if isinstance(outcome, Rejected):
            self._gateway.rejected(sender, outcome.reason, rejection(outcome.field))
            return
        opened = outcome.value
        sender.device_id = opened.device_id
        if not self._gate.admits_device(opened.device_id):
            return
        size, limit = len(opened.data), self._limits.frame_bytes
        if size > limit:
            reason = f"data length {size} exceeds the limit of {limit}"
            self._gateway.rejected(sender, reason, Rejection.LENGTH)
        elif self._gateway.admission(opened.device_id) is not Admission.SERVED:
            self._gateway.tally.not_served += 1
        else:
            self._handle(opened, sender, addr)

    def _handle(self, opened: OpenedDatagram, sender: _Sender, addr: Source) -> None:
        digest = blake2b(opened.data, digest_size=16).digest()
        key = (opened.device_id, opened.ids, digest)
        seen = self._recent.find(key)
        if seen is not None:
            self._gateway.tally.repeated += 1
            if seen.ack is not None:  # else the ACK follows the append
                self._answer(opened, seen.ack, addr)
            return
        if self._recent.under_way >= self._limits.datagrams_under_way:
            self._gateway.tally.dropped += 1
            return  # the device repeats it
        self.sessions.notify(opened.device_id, Traffic.RECEIVED, opened.data)
        for step in self._dialect.handle(opened, self._clock.seconds()):
            if isinstance(step, Append):
                self._append(step, opened, key, addr)
            elif isinstance(step, Reply):
                if step.data:
                    self._answer(opened, step.data, addr)
            elif isinstance(step, CommandAnswer):
                if not self.sessions.answered(opened.device_id, addr, step.answer):
                    text = "answer from another address than that of the command ignored"
                    self._gateway.noticed(sender, text)
            elif isinstance(step, Notice):
                self._gateway.noticed(sender, step.text)
            elif isinstance(step, ProtocolError):
                self._gateway.rejected(sender, step.reason, step.kind)

    def _append(self, step: Append, opened: OpenedDatagram, key: _Key, addr: Source) -> None:
        self._recent.begin(key)

        def appended(_: None) -> None:
            self._recent.finish(key, step.ack)
            self._gate.remember_source(addr, opened.device_id)
            self._answer(opened, step.ack, addr, step.entries)

        def not_appended(failure: Failure) -> None:
            self._recent.give_up(key)
            failure.trap(NotAppended, CancelledError)

        self._gateway.publish(step.entries).addCallbacks(appended, not_appended)

    def _answer(
        self, opened: OpenedDatagram, reply: bytes, addr: Source, entries: Sequence[Entry] = ()
    ) -> None:
        """Reply to a datagram, if the reply is not empty, and continue its device's session."""
        if self.transport is None:
            return
        if reply:
            self._write(reply, addr)
            self.sessions.notify(opened.device_id, Traffic.SENT, reply)
        self.sessions.heard(opened.device_id, addr, len(opened.data), entries)

    def _write(self, data: bytes, addr: Source) -> None:
        if self.transport is not None:
            self._gateway.tally.bytes_sent += len(data)
            with suppress(OSError):  # a forged address, or a full queue
                self.transport.write(data, addr)
