"""The interface between a simulated device and the protocol of its vendor.

A :class:`DeviceSide` is the device's side of a protocol. It is pure code: it receives the bytes
that the server has sent, and returns events and the bytes that the device sends. The simulator
(``tracker.simulator``) has the connections, the timers and the vehicles.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple, Protocol, TypeVar

from attrs import frozen

from tracker.position import Entry


@frozen
class Fix:
    """Coordinates and motion of a vehicle: degrees, metres, degrees from north, km/h."""

    latitude: float
    longitude: float
    altitude: int
    angle: int
    speed: int


@frozen
class Moment:
    """A reading of a device's clock, GNSS receiver and odometer."""

    timestamp: int
    """Milliseconds since 1970 (UTC)."""
    fix: Fix
    satellites: int
    odometer: int = 0
    """Metres."""

    @property
    def time(self) -> float:
        """UNIX seconds."""
        return self.timestamp / 1000


class LoggedIn(NamedTuple):
    """The server has accepted the login, or has answered for the first time without one."""


class LoginRefused(NamedTuple):
    """The server has refused the login."""


class Acknowledged(NamedTuple):
    """The server has acknowledged the last packet, or has asked for it again."""

    accepted: bool


class HeartbeatAnswered(NamedTuple):
    """The server has answered a heartbeat."""

    records: int = 0
    """Number of records that the answer acknowledges: the oldest that were sent."""


class CommandReceived(NamedTuple):
    """The server has sent a command."""

    text: str
    """Text for :meth:`DeviceSide.execute`, without a password."""
    codec: str
    request: Any
    """What :meth:`DeviceSide.answer` needs to make its frame."""
    foreign: bool = False
    """True if the command is for another device; it is refused."""


class Broken(NamedTuple):
    """The bytes break the protocol; the device closes the connection."""


Event = LoggedIn | LoginRefused | Acknowledged | HeartbeatAnswered | CommandReceived | Broken

RecordT = TypeVar("RecordT")


class DeviceSide(Protocol[RecordT]):
    """The device's side of a vendor's protocol, for one device."""

    def connected(self) -> bytes:
        """Begin a connection, and forget the last one.

        :return: the bytes that the device sends first; may be empty.
        """

    def feed(self, data: bytes) -> None:
        """Add received bytes."""

    def next_event(self) -> Event | None:
        """Take the next event out of the received bytes; None if it is incomplete.

        The simulator handles an event, and may send a packet, before it asks for the next.
        """

    def record(self, moment: Moment) -> RecordT:
        """Make a record."""

    def packet(self, records: Sequence[RecordT], stored: bool) -> bytes:
        """Return the bytes of a packet.

        :param records: not empty. A packet that is sent again has the same records.
        :param stored: True if the records could not be sent when they were made.
        """

    def heartbeat(self) -> bytes:
        """Return the bytes of a heartbeat; empty if the device sends none."""

    def entries(self, packet: bytes) -> Sequence[Entry]:
        """Return the stream entries that ingestion makes of a packet."""

    def execute(self, text: str, moment: Moment) -> str | None:
        """Execute a command.

        :return: the text of the answer; None if the device restarts instead.
        """

    def answer(self, request: Any, text: str) -> bytes:
        """Return the bytes of the answer to a command."""

    def refusal(self, request: Any) -> bytes:
        """Return the bytes that refuse a command; empty if the device says nothing."""


class Simulation(Protocol):
    """Simulated devices of a vendor."""

    @property
    def port(self) -> int:
        """The conventional TCP port of the vendor's devices."""

    @property
    def codecs(self) -> Sequence[str]:
        """Codecs of the records, the usual one first."""

    @property
    def max_records(self) -> int:
        """Maximum number of records in a packet."""

    @property
    def resolution(self) -> float:
        """Smallest difference between the times of two records, in seconds."""

    @property
    def refuses(self) -> bool:
        """True if a device can refuse a command."""

    @property
    def logs_in(self) -> bool:
        """True if the device sends records only after the server has accepted its login."""

    @property
    def acknowledges(self) -> bool:
        """True if the server acknowledges each packet.

        The device then sends one packet at a time, keeps its records until it has the ACK, and
        sends it again on the next connection. Otherwise it keeps no record that it has sent, and
        only the answer to a heartbeat acknowledges the records before it.
        """

    @property
    def response_timeout(self) -> float:
        """Seconds that a device waits for an answer before it reconnects."""

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two heartbeats; 0 if the device sends none."""

    def device(self, device_id: str, codec: str, random: Random, started: float) -> DeviceSide[Any]:
        """Return a device that was just switched on.

        :param codec: one of :attr:`codecs`.
        :param started: UNIX time in seconds.
        """
