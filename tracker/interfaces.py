"""Interfaces between the parts of Tracker: vendors, gateways, instances, sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from zope.interface import Attribute, Interface

from tracker.command import Answer, Command, CommandFrame
from tracker.extra import NO_EXTRA, Extra
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.position import Entry, Position


class IVendor(Interface):
    """A family of device protocols: a plugin in ``twisted/plugins/``, found with ``getPlugins``."""

    name: str = Attribute(
        "Lower-case name: used in --listen, in the stream's name and in the positions table."
    )

    settings: type[Any] | None = Attribute(
        "An attrs class of settings (see tracker.settings), each of which is an option "
        "--NAME-SETTING of the roles that serve devices; None without settings."
    )
    codecs: frozenset[str] = Attribute(
        "All codecs that its entries may have; they are labels of metrics."
    )
    command_codecs: Sequence[str] = Attribute(
        "The codecs of commands, the usual one first; empty if there are no commands."
    )
    transports: frozenset[str] = Attribute(
        "What its devices use: tcp (with or without TLS), udp, or both."
    )
    device_id_form: str = Attribute(
        "The form of its device IDs, for messages: 'an IMEI of 15 digits'."
    )
    device_id_pattern: str = Attribute(
        "The texts that device_id accepts, as a regular expression of Python and of JavaScript."
    )

    def device_id(text: str) -> str:  # noqa: N805
        """Return a device ID, given by a person or another program, in the form of the entries.

        :raises ValueError: if it is not of :attr:`device_id_form`.
        """

    def buildFactory(
        gateway: IGateway,  # noqa: N805
        limits: Limits,
        clock: IReactorTime,
        settings: Any,
    ) -> IProtocolFactory:
        """Return the protocol factory of one TCP or TLS port.

        :param gateway: receives the connections and their records.
        :param limits: limits that the protocols enforce.
        :param clock: provides the time and the timers of the protocols.
        :param settings: an instance of :attr:`settings`; None without settings.
        """

    def buildDatagramProtocol(
        gateway: IGateway,  # noqa: N805
        limits: Limits,
        clock: IReactorTime,
        settings: Any,
    ) -> DatagramProtocol:
        """Return the protocol of one UDP port; called only if :attr:`transports` has udp.

        The arguments are those of :meth:`buildFactory`.
        """

    def describe(data: bytes, kind: Traffic) -> dict[str, Any]:  # noqa: N805
        """Decode one piece of traffic for people to read.

        :param data: the bytes that an :data:`Observer` was called with.
        :param kind: the kind that it was called with.
        :return: the content, in types that JSON can represent.
        """

    def buildNaming(
        models: Mapping[str, Path],  # noqa: N805
        default_model: str | None = None,
    ) -> INaming | None:
        """Return the names of attributes; None if the vendor has no names.

        :param models: model → path of a file with additional names for devices of that model.
        :param default_model: model of devices whose model is unknown; None: it stays unknown.
        :raises OSError: if a file cannot be read.
        :raises UnknownModel: if there are no names for the default model. The message is a line.
        :raises ValueError: if a file is malformed. The message is one line.
        """


class UnknownModel(ValueError):
    """There are no names for a model; the message gives a model that has names."""


class INaming(Interface):
    """Names of the attributes of a vendor's devices."""

    def named(
        attributes: Mapping[str, Any],  # noqa: N805
        widths: Mapping[int, int] | None,
        model: str | None,
        codec: str = "",
    ) -> dict[str, Any]:
        """Return the named attributes of a position.

        :param attributes: attribute key → raw value, as in :attr:`Position.attributes`.
        :param widths: see :attr:`tracker.extra.Extra.widths`.
        :param model: model of the device; None if it is unknown.
        :param codec: codec of the entry; empty if it is unknown.
        :return: name → a dictionary with ``id``, ``value`` (signed and scaled) and, if the
            attribute has them, ``unit`` and ``text``, the words for a value that is a code. If the
            value is the error code of a sensor or out of its range, ``value`` is None, ``raw`` the
            value of the attribute, and ``error`` the reason. Attributes without a certain meaning
            are omitted.
        """

    def knows(model: str) -> bool:  # noqa: N805
        """Return True if there are names for a model; else it is named like an unknown one."""


class IPeer(Interface):
    """The sender of bytes, as the gateway logs it."""

    device_id: str | None = Attribute(
        "The device ID, on a shared connection that of the latest login; None before login."
    )
    peer: str = Attribute("Address of the sender, for people to read.")


class Traffic(Enum):
    """The kind of an event on a device's connection, for its observers."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    RECEIVED = "received"
    """A login or a frame."""
    SENT = "sent"
    """A reply to a login, an ACK, or a command."""
    REJECTED = "rejected"
    """Received bytes break the protocol. The event's bytes are the reason, as text."""


#: Called with the kind of each event on a device's connection, and its bytes.
Observer = Callable[[Traffic, bytes], None]


@frozen
class ConnectionFigures:
    """Figures of a connection. Times are seconds since 1970 (UTC)."""

    since: float
    """Time of the login."""
    last_heard: float
    """Time of the last whole frame or sign of life."""
    codec: str
    """Codec of the last entries; empty if none were received."""
    records: int
    """Number of received records."""
    bytes: int
    """Number of received bytes."""


class ConnectionEnded(Exception):
    """The connection has ended, or is about to end."""


class IConnection(IPeer):
    """One connection of a device, as its gateway sees it."""

    host: str = Attribute(
        "IP address of the peer, by which the connection is counted; empty if it has none."
    )

    device_ids: Collection[str] = Attribute(
        "The IDs of the devices that have logged in on the connection: one, or several that share "
        "it. They are served, or wait until they are."
    )

    may_stay: bool = Attribute("True if devices that are not served may wait on the connection.")

    def close() -> None:
        """Close the connection. No record is acknowledged on it afterwards."""

    def is_alive() -> bool:
        """Return True if the peer was heard within its idle timeout, and the end has not begun."""

    def serve(device_id: str) -> None:  # noqa: N805
        """Serve a device that has waited on the connection."""

    def withdraw(device_id: str) -> bool:  # noqa: N805
        """Stop serving a device, which then waits; else the connection closes.

        :return: True if the protocol lets the device wait.
        """

    def log_out(device_id: str) -> None:  # noqa: N805
        """Remove a device from ``device_ids``; if it is the only one, close the connection."""

    def retire() -> None:
        """Close the connection as soon as no record or frame of the device is under way on it."""

    def figures() -> ConnectionFigures:
        """Return the figures of the connection, once a device has logged in."""

    def observe(observer: Observer | None) -> None:  # noqa: N805
        """Notify an observer of everything that is received and sent from now on.

        :param observer: replaces the earlier one; None removes it.
        """

    def command_frame(
        device_id: str,  # noqa: N805
        content: bytes,
        codec: str,
    ) -> CommandFrame:
        """Encode a command to a device of this connection.

        :param content: the bytes of the command; a text is in UTF-8.
        :param codec: the vendor's name of the codec; empty: the vendor's usual one.
        :raises ValueError: if the codec is unknown or cannot carry the bytes. The message is one
            line.
        """

    def when_free(silence_limit: float = 0) -> Deferred[None]:  # noqa: N805
        """Wait until a command may be written; at most one caller a device.

        A command may be written while no frame of the device waits for its ACK, and no frame is
        partly received. The caller has to write in the callback of the Deferred, or not at all.

        :param silence_limit: seconds of silence after which the device may not listen; the
            command then waits for the next frame of the device. 0: it always listens.
        :return: fires when the caller may write; fails with :class:`ConnectionEnded`; may be
            cancelled.
        """

    def write_command(data: bytes, shown: bytes | None = None) -> None:  # noqa: N805
        """Write a command, in the callback of :meth:`when_free`.

        The next message that may be its answer is exempt from the device's rate limit of messages.

        :param data: the bytes that :meth:`command_frame` has returned.
        :param shown: the bytes that observers are called with instead; None: ``data``.
        """


class Admission(Enum):
    """Decision on a device that logs in."""

    SERVED = "served"
    REFUSED = "refused"
    LATER = "later"
    """Undecided: close without a reply; the device retries."""
    OTHER_VENDOR = "other_vendor"
    """The device is bound to another vendor, or connected under one: close without a reply."""
    WAITING = "waiting"
    """Not served; the device stays connected until it is."""


class Rejection(Enum):
    """Reason for disconnecting a peer, or dropping what it has sent, in one word for counting."""

    CONNECTION_LIMIT = "connection_limit"
    """All connection slots of the process are in use."""
    CONNECTION_RATE = "connection_rate"
    """Too many new connections in this second, from all addresses or from this one."""
    ADDRESS_SHARE = "address_share"
    """The address has reached its maximum number of connections."""
    PROXY = "proxy"
    """Not a listed proxy, or no valid PROXY header, on a port that expects one."""
    LOGIN = "login"
    """A login is malformed, or names another device than the first login of the connection."""
    PREAMBLE = "preamble"
    """A frame begins with the wrong bytes."""
    LENGTH = "length"
    """A length is over the limit, or impossible."""
    CRC = "crc"
    """A checksum is wrong."""
    CODEC = "codec"
    """The codec is not supported."""
    CONTENT = "content"
    """The content of a frame is inconsistent, or over a limit."""
    NO_LOGIN = "no_login"
    """The device did not log in within the login timeout."""
    IDLE = "idle"
    """The device sent no complete frame within the idle timeout."""
    NOT_SERVED = "not_served"
    """The device is not on the allow-list, or was removed from it."""
    OTHER_VENDOR = "other_vendor"
    """The device is bound to another vendor, or connected under one."""
    MOVED = "moved"
    """The device is connected to another instance."""


@define
class Tally:
    """Counters that connections and ports update directly: calls would be too frequent."""

    bytes_received: int = 0
    bytes_sent: int = 0
    repeated: int = 0
    """Repeated datagrams, which are acknowledged again and not published."""
    dropped: int = 0
    """Datagrams that were dropped because too many were under way."""
    over_budget: Counter[str] = field(factory=Counter)
    """Budget of work → datagrams that were dropped because it was used up."""
    paused_for_work: int = 0
    """Number of times that a connection was held because its budget of work was used up."""
    paused_for_messages: int = 0
    """Number of times that a connection was held because it was over its rate of messages."""
    paused_for_memory: int = 0
    """Number of times that a connection was held because the kept memory was used up."""
    truncated: int = 0
    """Messages that were too long to be stored whole."""

    def count_truncated(self) -> None:
        """Count a message that was too long to be stored whole."""
        self.truncated += 1

    not_served: int = 0
    """Frames and datagrams of devices that are refused, or not decided on yet."""


class IDeviceAuthority(Interface):
    """Decides which devices are served."""

    def admission(device_id: str, vendor: str) -> Admission:  # noqa: N805
        """Decide on a device that logs in or sends a datagram.

        :param vendor: the vendor whose protocol it uses.
        """

    def review(device_id: str, vendor: str) -> Admission:  # noqa: N805
        """Decide again on a device that is connected."""


class IGateway(Interface):
    """The way from the sockets of one vendor's devices into the log."""

    tally: Tally = Attribute("Counters that connections and ports update directly.")
    kept: KeptMemory = Attribute("Memory of the instance for what outlives its connection.")

    def admits(address: IAddress | None) -> bool:  # noqa: N805
        """Reserve a slot for a connection from this address; return False if none is free.

        :param address: address of the peer; None if it is unknown.
        """

    def opened(connection: IConnection) -> None:  # noqa: N805
        """Note that an admitted connection was made."""

    def admission(device_id: str) -> Admission:  # noqa: N805
        """Decide on a device that sends a datagram, and therefore does not log in."""

    def session_opened(connection: IConnection) -> None:  # noqa: N805
        """Note the session of a device that sends datagrams, before its login.

        It needs no slot. It ends with :meth:`closed`, like a connection.
        """

    def login(connection: IConnection, device_id: str) -> Admission:  # noqa: N805
        """Decide on a device that logs in; if it is served, log it out on its older connection.

        :param device_id: it is in ``device_ids`` already. Remove it from there unless the decision
            is SERVED or WAITING; :meth:`IConnection.serve` ends the wait.
        """

    def publish(entries: Sequence[Entry]) -> Deferred[None]:  # noqa: N805
        """Append the entries of one frame or datagram to the log, all of them or none.

        :return: fires when the log has confirmed the entries. Send the ACK only then. Fails with
            :class:`NotAppended` if this process stops trying to append them. Cancel it when the
            connection ends.
        """

    def publish_detached(entries: Sequence[Entry]) -> Deferred[None] | None:  # noqa: N805
        """Append entries that the device never repeats; the append outlives the connection.

        They use :attr:`kept` until then. Do not call it while that is used up, except for a frame
        that is being handled already.

        :return: fires when the log has confirmed the entries; fails with :class:`NotAppended` if
            this process stops trying to append them. None if the instance is stopping: then call
            :meth:`publish`, and handle no later frame until it fires.
        """

    def when_log_confirms() -> Deferred[None] | None:
        """Wait until the log confirms appends, and entries may be kept.

        :return: None if that is so now. Otherwise it fires when it is so; cancel it when the
            connection ends.
        """

    def command_answered(connection: IConnection, answer: Answer) -> None:  # noqa: N805
        """Pass on a text that may be the answer to a command.

        It is from the device that ``device_id`` of the connection names.
        """

    def lost(peer: IPeer, count: int) -> None:  # noqa: N805
        """Count and log messages that were not appended and that the device never repeats.

        :param count: number of messages.
        """

    def rejected(
        peer: IPeer,  # noqa: N805
        reason: str,
        kind: Rejection = Rejection.CONTENT,
    ) -> None:
        """Count and log a protocol error; the caller disconnects the peer, or drops the datagram.

        :param reason: the error, in one line, for people to read.
        :param kind: the error, for counting.
        """

    def noticed(peer: IPeer, notice: str) -> None:  # noqa: N805
        """Log an oddity that has no consequences.

        :param notice: the oddity, in one line, for people to read.
        """

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
    """An ingest instance, as its control port and its metrics see it."""

    instance_id: str = Attribute("The ID of the instance.")
    started_at: str = Attribute("Time of the start, ISO 8601 UTC; empty before it.")
    streams: Sequence[str] = Attribute("The streams to which it appends positions.")
    draining: bool = Attribute("True if it refuses new connections.")

    def counts() -> dict[str, int]:
        """Return the current numbers of the instance, by name.

        :return: ``connections`` (logged in or not), ``devices`` (logged in), ``commands_held``.
        """

    def devices(vendor: str | None) -> Iterable[str]:  # noqa: N805
        """Return the IDs of the connected devices, in any order.

        :param vendor: only devices of this vendor; None: of all vendors.
        """

    def connection(device_id: str) -> ConnectionFacts | None:  # noqa: N805
        """Return the facts of a device's connection; None if it is not connected here."""

    def commands(device_id: str) -> tuple[int, bool]:  # noqa: N805
        """Return the commands of a device that this instance holds.

        :return: the number of queued commands, and True if one is outstanding.
        """

    def held_command(command_id: str) -> Command | None:  # noqa: N805
        """Return a command that is queued or outstanding here; None for any other."""

    def drop(device_id: str) -> str | None:  # noqa: N805
        """Close the connection of a device.

        :return: address of the device; None if it is not connected here.
        """

    def watch(device_id: str, observer: Observer) -> bool:  # noqa: N805
        """Notify an observer of all traffic of a device, on this and later connections.

        :return: True if the device is connected here.
        """

    def unwatch(device_id: str, observer: Observer) -> None:  # noqa: N805
        """Stop notifying an observer that was given to :meth:`watch`."""

    def describe(device_id: str, data: bytes, kind: Traffic) -> dict[str, Any]:  # noqa: N805
        """Decode a piece of a device's traffic; see :meth:`IVendor.describe`.

        :return: the content; only ``hex``, the bytes, if the vendor of the device is unknown.
        """

    def drain(seconds: float) -> Deferred[tuple[int, int]]:  # noqa: N805
        """Refuse new connections, and close all open ones, spread over ``seconds``.

        :return: fires with the number of closed connections and the number of remaining ones.
        """


class NotAppended(Exception):
    """The entries were not appended; the device has to send them again."""


@frozen
class StoredPosition:
    """A position (or a message) with the fields of its stream entry: one row of the database."""

    position: Position
    digest: bytes
    """:func:`tracker.position.digest` of the payload, 16 bytes."""
    vendor: str
    codec: str
    received_at: str
    """Time of the first arrival, ISO 8601 UTC with milliseconds and Z: the time at which Redis
    appended the entry, or :attr:`tracker.extra.Extra.arrived` if it was moved since."""
    named: Mapping[str, Any] | None = None
    """Return value of :meth:`INaming.named`; None without ``--names``."""
    extra: Extra = NO_EXTRA
    """The field ``extra`` of the entry, with the marks that the processor has added."""

    @property
    def is_place(self) -> bool:
        """True if the device was at these coordinates at that time.

        Only such a record is part of a track, and may become the device's last position.
        """
        return self.extra.clock is None and self.position.has_fix(self.extra.fix)


@frozen
class Batch:
    """Positions and checkpoints that a sink commits in one transaction."""

    positions: Sequence[StoredPosition]
    """Positions and messages; sinks store those with :attr:`Position.is_message` separately."""
    checkpoints: dict[tuple[str, str], str]
    """(stream, group) → ID of the last entry in this batch."""


class SinkUnusable(Exception):
    """The sink cannot be opened, and a retry would fail again; the message gives the reason."""


class SinkDown(Exception):
    """The sink failed temporarily; the message gives the reason, without a password."""


class SinkTimedOut(SinkDown):
    """The sink did not store a batch in time; a smaller batch may succeed."""


class BatchRefused(Exception):
    """A batch holds data that can never be stored; the message gives the reason."""


class IPositionSink(Interface):
    """A store of positions. Called from the reactor's thread, one call at a time."""

    def open() -> Deferred[None]:
        """Connect and bring the schema up to date.

        :return: fires when the sink is open. Fails with :class:`SinkUnusable` if a retry would
            fail again, and with any other exception if a retry may succeed.
        """

    def store(batch: Batch) -> Deferred[int]:  # noqa: N805
        """Commit a batch in one transaction; rows that exist already stay unchanged.

        :return: fires with the number of new positions once the commit is durable. After a
            failure nothing of the batch is stored, unless the connection was lost during the
            commit. After :class:`BatchRefused` a retry fails again; after :class:`SinkTimedOut`
            a smaller batch may succeed; after any other exception the caller may retry.
        """

    def checkpoint(stream: str, group: str) -> Deferred[str | None]:  # noqa: N805
        """Return the ID of the last entry that was committed.

        :param stream: name of the stream.
        :param group: name of the consumer group.
        :return: fires with the ID; None if no entry of the stream was committed for the group.
        """

    def close() -> Deferred[Any]:
        """Release all connections and files; fires when done."""
