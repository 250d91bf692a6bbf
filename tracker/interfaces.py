"""The interfaces between the parts of Tracker: vendors, gateways, sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from zope.interface import Attribute, Interface

from tracker.command import Answer, CommandFrame
from tracker.limits import Limits
from tracker.position import Entry, Position


class IVendor(Interface):
    """A family of devices: a plugin in ``twisted/plugins/``, found with ``getPlugins``."""

    name: str = Attribute(
        "Lower-case name: used in --listen, in the stream's name and in the positions table."
    )

    def buildFactory(
        gateway: IGateway,  # noqa: N805
        limits: Limits,
        clock: IReactorTime,
    ) -> IProtocolFactory:
        """Return the factory of one stream port, whose protocols report to ``gateway``."""

    def buildDatagramProtocol(
        gateway: IGateway,  # noqa: N805
        limits: Limits,
        clock: IReactorTime,
    ) -> DatagramProtocol | None:
        """Return the protocol of one UDP port; None if the vendor has no such thing."""

    def describe(data: bytes, kind: Traffic) -> dict[str, Any]:  # noqa: N805
        """Return the content of one piece of traffic, as JSON can hold it."""

    def buildNaming(models: Mapping[str, Path]) -> INaming | None:  # noqa: N805
        """Return names of attributes; None if the vendor has none.

        :param models: model → a file with names for its devices.
        :raises OSError: if one of the files cannot be read.
        :raises ValueError: if one of them is malformed; the text is one line.
        """


class INaming(Interface):
    """Names of the attributes of a vendor's devices."""

    def named(attributes: Mapping[str, Any], model: str | None) -> dict[str, Any]:  # noqa: N805
        """Return name → ``id``, ``value`` (signed and scaled) and, if it has one, ``unit``."""


class IPeer(Interface):
    """The sender of something, as the gateway logs it."""

    device_id: str | None = Attribute("The IMEI, or None before login.")
    peer: str = Attribute("Address of the other side, for people to read.")


class Traffic(Enum):
    """The kind of an event on a device's connection, for its observers."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    RECEIVED = "received"
    """A login, a frame, or whatever else is one piece."""
    SENT = "sent"
    """An answer to a login, an acknowledgement, a command."""
    REJECTED = "rejected"
    """What came breaks the protocol; the bytes are the reason, as text."""


#: Called with what happens on a device's connection, and the bytes.
Observer = Callable[[Traffic, bytes], None]


@frozen
class ConnectionFigures:
    """Figures of a connection. Times are seconds since 1970 (UTC)."""

    since: float
    """Time of the login."""
    last_heard: float
    """Time of the last whole frame or sign of life."""
    codec: str
    """Codec of the last entries; empty before there are any."""
    records: int
    """Records that were received."""
    bytes: int
    """Bytes that were received."""


class ConnectionEnded(Exception):
    """The connection has ended, or is about to."""


class IConnection(IPeer):
    """One connection of a device, as its gateway sees it."""

    host: str = Attribute(
        "IP address of the peer, by which the connection is counted; empty if it has none."
    )

    def close() -> None:
        """Close the connection; nothing more is acknowledged on it."""

    def retire() -> None:
        """Close the connection as soon as nothing of the device is under way on it."""

    def figures() -> ConnectionFigures:
        """Return the figures of the connection, once a device has logged in."""

    def observe(observer: Observer | None) -> None:  # noqa: N805
        """Notify an observer of all that is received and sent from now on; None: none."""

    def command_frame(text: str, codec: str) -> CommandFrame:  # noqa: N805
        """Return the bytes of a command to this device.

        :param codec: the vendor's name of it; empty: the usual one.
        :raises ValueError: if there is no such codec, or it cannot carry that; in one line.
        """

    def when_free(radio_sleeps: float = 0) -> Deferred[None]:  # noqa: N805
        """Wait until a command may be written; one caller at a time.

        That is when no packet of the device waits for its acknowledgement, and none is half
        received. The caller has to write as soon as this fires, in the same turn.

        :param radio_sleeps: seconds of silence after which the device may not listen; then it
            has to be heard first. 0: it always listens.
        :return: fails with :class:`ConnectionEnded`; may be cancelled.
        """

    def write_command(data: bytes) -> None:  # noqa: N805
        """Write a command, now that the connection is free for it.

        The next message that may be its answer is exempt from the device's rate of messages.
        """


class Admission(Enum):
    """Decision on a device that logs in."""

    SERVED = "served"
    REFUSED = "refused"
    LATER = "later"
    """Undecided: close without answering; the device retries."""


class Rejection(Enum):
    """Reason for disconnecting a peer, or dropping a datagram, in one word for counting."""

    CONNECTION_LIMIT = "connection_limit"
    """All connection slots of the process are in use."""
    CONNECTION_RATE = "connection_rate"
    """Too many new connections in this second, from all addresses or from this one."""
    ADDRESS_SHARE = "address_share"
    """The address holds its maximal number of connections."""
    PROXY = "proxy"
    """Not a named proxy, or no valid PROXY header, on a port that expects one."""
    LOGIN = "login"
    """What came instead of a login, or as a second one, is malformed."""
    PREAMBLE = "preamble"
    """A frame has a wrong beginning."""
    LENGTH = "length"
    """A length is over the limit, or impossible."""
    CRC = "crc"
    """A checksum is wrong."""
    CODEC = "codec"
    """The codec is not supported."""
    CONTENT = "content"
    """What is in a frame contradicts itself, or is over a limit."""
    NO_LOGIN = "no_login"
    """No login came in time."""
    IDLE = "idle"
    """Nothing whole came for too long."""
    NOT_SERVED = "not_served"
    """The device is not on the allow-list, or was removed from it."""
    MOVED = "moved"
    """The device is connected to another instance."""


@define
class Tally:
    """Counts that connections and ports keep themselves, too frequent for a call each time."""

    bytes_received: int = 0
    bytes_sent: int = 0
    repeated: int = 0
    """Repeated datagrams: answered again, and not published."""
    dropped: int = 0
    """Datagrams for which there was no room."""
    over_budget: Counter[str] = field(factory=Counter)
    """Budget of work → datagrams that were dropped because it was used up."""
    paused_for_work: int = 0
    """Times that a connection was held because its budget of work was used up."""
    paused_for_messages: int = 0
    """Times that a connection was held because it was over its rate of messages."""
    truncated: int = 0
    """Messages that were too long to be stored whole."""

    def count_truncated(self) -> None:
        """Count a message that was too long to be stored whole."""
        self.truncated += 1

    turned_away: int = 0
    """Datagrams of devices that are not served, or not now."""


class IDeviceAuthority(Interface):
    """Decides which devices are served."""

    def admission(device_id: str) -> Admission:  # noqa: N805
        """Decide on a device that logs in or sends a datagram."""

    def withdrawn(device_id: str) -> bool:  # noqa: N805
        """Return whether a device that was served is no longer to be served."""


class IGateway(Interface):
    """The way from the sockets of one vendor's devices into the log."""

    tally: Tally = Attribute("Counts that connections and ports keep themselves.")

    def admits(address: IAddress | None) -> bool:  # noqa: N805
        """Return whether there is room for a connection from this address; if so, reserve it."""

    def opened(connection: IConnection) -> None:  # noqa: N805
        """Note that an admitted connection was made."""

    def admission(device_id: str) -> Admission:  # noqa: N805
        """Decide on a device that has no connection to log in on."""

    def login(connection: IConnection, device_id: str) -> Admission:  # noqa: N805
        """Decide on a device that logs in; if it is served, close its older connection."""

    def publish(entries: Sequence[Entry]) -> Deferred[None]:  # noqa: N805
        """Make the entries of one packet durable, all of them or none.

        :return: fires when the log has confirmed them, and only then may the device be
            answered. Fails with :class:`NotAccepted` if this process gives up. Cancel it when
            its connection ends.
        """

    def keep(entries: Sequence[Entry]) -> Deferred[None] | None:  # noqa: N805
        """Make durable what its device never sends again; it outlives the connection.

        :return: fires when the log has confirmed it, and fails with :class:`NotAccepted` when
            it was given up. None when too much is kept already, or the instance stops: publish
            it, and let the device wait.
        """

    def answered(connection: IConnection, answer: Answer) -> None:  # noqa: N805
        """Pass on what may be the answer to a command."""

    def lost(peer: IPeer, count: int) -> None:  # noqa: N805
        """Count messages that could neither be published nor kept."""

    def rejected(
        peer: IPeer,  # noqa: N805
        reason: str,
        kind: Rejection = Rejection.CONTENT,
    ) -> None:
        """Count and log a peer that breaks the protocol; the caller disconnects it, or drops.

        :param reason: what is wrong, in one line, for people.
        :param kind: the same, for counting.
        """

    def noticed(peer: IPeer, what: str) -> None:  # noqa: N805
        """Log something odd that hurts nothing; once a connection."""

    def closed(connection: IConnection) -> None:  # noqa: N805
        """Note that a connection has ended."""


@frozen
class ConnectionFacts:
    """A device's connection to an instance."""

    device_id: str
    vendor: str
    address: str
    figures: ConnectionFigures


class IInstance(Interface):
    """An ingest instance as those see it who look inside and operate it."""

    instance_id: str = Attribute("Its id.")
    started_at: str = Attribute("ISO 8601 UTC; empty before it has started.")
    streams: Sequence[str] = Attribute("The streams that it writes.")
    draining: bool = Attribute("Whether it accepts no more connections.")

    def counts() -> dict[str, int]:
        """``connections`` (logged in or not), ``devices`` (logged in), ``commands_held``."""

    def devices(vendor: str | None) -> Iterable[str]:  # noqa: N805
        """The devices that are connected, in no order; only those of one vendor, if it is said."""

    def connection(device_id: str) -> ConnectionFacts | None:  # noqa: N805
        """Return the facts of a device's connection; None if it is not connected here."""

    def commands(device_id: str) -> tuple[int, bool]:  # noqa: N805
        """Commands that are queued for a device, and whether one is outstanding."""

    def holds_command(command_id: str) -> bool:  # noqa: N805
        """Return whether a command is queued or outstanding here."""

    def drop(device_id: str) -> str | None:  # noqa: N805
        """Close the connection of a device; its address, or None where there is none."""

    def watch(device_id: str, observer: Observer) -> bool:  # noqa: N805
        """Tell an observer of all traffic of a device, now and on later connections.

        :return: whether it is connected here.
        """

    def unwatch(device_id: str, observer: Observer) -> None:  # noqa: N805
        """No more of that."""

    def describe(device_id: str, data: bytes, kind: Traffic) -> dict[str, Any]:  # noqa: N805
        """Return the content of a piece of a device's traffic, as JSON can hold it."""

    def drain(seconds: float) -> Deferred[tuple[int, int]]:  # noqa: N805
        """Accept no more connections, and close those that there are within so many seconds.

        :return: fires with how many were closed, and how many are left.
        """


class NotAccepted(Exception):
    """The entries were not confirmed; the device has to send them again."""


@frozen
class StoredPosition:
    """A position (or a message) with what the stream knows about it: one row of the database."""

    position: Position
    digest: bytes
    """:func:`tracker.position.digest` of the payload, 16 bytes."""
    vendor: str
    codec: str
    received_at: str
    """Time at which Redis appended it, ISO 8601 UTC with milliseconds and Z."""
    named: Mapping[str, Any] | None = None
    """Result of :meth:`INaming.named`, with ``--names``."""


@frozen
class Batch:
    """Positions and checkpoints that a sink commits in one transaction."""

    positions: Sequence[StoredPosition]
    """Those with :attr:`Position.is_message` are no places; sinks keep them apart."""
    checkpoints: dict[tuple[str, str], str]
    """(stream, group) → ID of the last entry in this batch."""


class SinkUnusable(Exception):
    """The sink cannot be opened, and trying again would not help; the text says why."""


class SinkDown(Exception):
    """The sink failed for now; the text says why, and holds no password."""


class SinkTimedOut(SinkDown):
    """The sink did not store a batch in time; fewer positions may succeed."""


class BatchRefused(Exception):
    """Something in a batch can never be stored, which is the data's fault; the text says what."""


class IPositionSink(Interface):
    """A store of positions. Called from the reactor's thread, one call at a time."""

    def open() -> Deferred[None]:
        """Connect and bring the schema up to date.

        Fails with :class:`SinkUnusable` when trying again would not help, and with
        anything else when it may.
        """

    def store(batch: Batch) -> Deferred[int]:  # noqa: N805
        """Commit a batch in one transaction; what is there already is left alone.

        :return: fires with the number of positions that were new, after the commit
            is durable. After a failure nothing of the batch is stored, unless the connection
            was lost during the commit. After :class:`BatchRefused` a retry fails again; after
            :class:`SinkTimedOut` a part of the batch may succeed; after anything else the
            caller may retry.
        """

    def checkpoint(stream: str, group: str) -> Deferred[str | None]:  # noqa: N805
        """The ID of the last entry of a stream that was committed; None where there is none."""

    def close() -> Deferred[Any]:
        """Release everything; fires when done."""
