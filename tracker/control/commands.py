"""The AMP commands of the control port, with their arguments, replies and errors.

``docs/control-port.rst`` describes the protocol. Optional arguments, new keys in replies and new
commands may be added; any other change requires a new :data:`VERSION`. No value exceeds the
65,535 bytes that AMP allows: texts are cut, and lists are paged. If ``more`` is true, request the
next page with ``after`` (name of the last row) or ``skip`` (number of rows received).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from twisted.protocols import amp

from tracker.untrusted import is_unicode

#: Version of the protocol, which Hello checks.
VERSION: Final = 1
#: Rows of a page, at most.
MAX_ROWS: Final = 200
#: Characters of a text of any length, such as a device's answer: at most 60,000 bytes of UTF-8.
MAX_TEXT: Final = 15_000
#: Bytes of a frame that a watcher receives (in hexadecimal).
MAX_RAW_BYTES: Final = 30_000
#: Characters of an id or a name; longer ones are cut.
MAX_NAME: Final = 64
#: Maximum of the seconds until a command expires.
MAX_EXPIRY: Final = 366 * 86_400.0
#: Seconds after its expiry within which an unwritten command ends at the latest.
FINAL_STATUS_GRACE: Final = 120.0
#: Statuses of a command that was not claimed yet.
QUEUED: Final = "queued"
WAITING: Final = "waiting"
#: Characters of an error's text; longer ones are cut.
MAX_ERROR: Final = 500


class ControlError(Exception):
    """An error of a command; the text is for people."""


class VersionMismatch(ControlError):
    """The two sides have different versions, or the client has not sent Hello."""


class NotPermitted(ControlError):
    """The client's permission does not include the command."""


class BadArgument(ControlError):
    """An argument is malformed or out of range."""


class NoSuchDevice(ControlError):
    """The device is not connected, or not to this instance."""


class NoSuchCommand(ControlError):
    """The command was not found."""


class RedisUnavailable(ControlError):
    """Redis does not reply, or refuses a request; the command can be retried."""


class InternalError(ControlError):
    """The command failed with an internal error, which the instance has logged."""


#: Error → its code on the wire.
CODES: Final[dict[type[Exception], bytes]] = {
    VersionMismatch: b"VERSION_MISMATCH",
    NotPermitted: b"NOT_PERMITTED",
    BadArgument: b"BAD_ARGUMENT",
    NoSuchDevice: b"NO_SUCH_DEVICE",
    NoSuchCommand: b"NO_SUCH_COMMAND",
    RedisUnavailable: b"REDIS_UNAVAILABLE",
    InternalError: b"INTERNAL",
}


def _errors(*particular: type[Exception]) -> dict[type[Exception], bytes]:
    """Return the errors of a command: those of every command, and particular ones."""
    common: tuple[type[Exception], ...] = (VersionMismatch, BadArgument, InternalError)
    return {one: CODES[one] for one in (*common, *particular)}


def brief(text: str, max_chars: int = MAX_ERROR) -> str:
    """Return untrusted text that AMP can send: valid UTF-8, at most ``max_chars`` characters."""
    if len(text) > max_chars:
        text = f"{text[: max_chars - 1]}…"
    return text if is_unicode(text) else text.encode(errors="replace").decode()


_PAGE: Final = [
    (b"after", amp.Unicode(optional=True)),
    (b"limit", amp.Integer(optional=True)),
    (b"prefix", amp.Unicode(optional=True)),
    (b"vendor", amp.Unicode(optional=True)),
]
#: Facts of a connection, without its device. Times are seconds since 1970 (UTC).
_CONNECTION: Final = [
    (b"vendor", amp.Unicode(optional=True)),
    (b"address", amp.Unicode(optional=True)),
    (b"since", amp.Float(optional=True)),
    (b"last_heard", amp.Float(optional=True)),
    (b"codec", amp.Unicode(optional=True)),
    (b"records", amp.Integer(optional=True)),
    (b"bytes", amp.Integer(optional=True)),
]
_STATUS: Final = [
    (b"status", amp.Unicode()),
    (b"reason", amp.Unicode(optional=True)),
    (b"response", amp.Unicode(optional=True)),
    (b"truncated", amp.Boolean(optional=True)),
    (b"at", amp.Unicode(optional=True)),
    (b"expires_at", amp.Unicode(optional=True)),
    (b"text", amp.Unicode(optional=True)),
    (b"sender", amp.Unicode(optional=True)),
    (b"sent_at", amp.Unicode(optional=True)),
]


class ControlCommand(amp.Command):
    """A command of the control port; it requires the permission ``read`` unless it operates."""

    operates: ClassVar[bool] = False
    """True if the command changes something: it requires the permission ``operate`` and is logged
    with its client."""


class Hello(ControlCommand):
    """Agree on the version; the first command of a connection."""

    commandName = b"Hello"
    arguments: ClassVar[Any] = [
        (b"version", amp.Integer()),
        (b"client", amp.Unicode(optional=True)),
    ]
    response: ClassVar[Any] = [
        (b"version", amp.Integer()),
        (b"software", amp.Unicode()),
        (b"instance_id", amp.Unicode()),
        (b"name", amp.Unicode()),
        (b"permission", amp.Unicode()),
    ]
    errors: ClassVar[Any] = _errors(NotPermitted)


class Info(ControlCommand):
    """Return facts of the instance, and its numbers of connections and commands."""

    commandName = b"Info"
    response: ClassVar[Any] = [
        (b"instance_id", amp.Unicode()),
        (b"version", amp.Unicode()),
        (b"started_at", amp.Unicode()),
        (b"connections", amp.Integer()),
        (b"devices", amp.Integer()),
        (b"commands_held", amp.Integer()),
        (b"watchers", amp.Integer()),
        (b"draining", amp.Boolean()),
        (b"streams", amp.ListOf(amp.Unicode())),
    ]
    errors: ClassVar[Any] = _errors()


class ListConnections(ControlCommand):
    """Return a page of the devices that are connected to this instance, sorted by device ID."""

    commandName = b"ListConnections"
    arguments: ClassVar[Any] = _PAGE
    response: ClassVar[Any] = [
        (b"connections", amp.AmpList([(b"device_id", amp.Unicode()), *_CONNECTION])),
        (b"more", amp.Boolean()),
    ]
    errors: ClassVar[Any] = _errors()


class ListDeviceRegistry(ControlCommand):
    """Return a page of the devices that are connected to any instance, sorted by device ID."""

    commandName = b"ListDeviceRegistry"
    arguments: ClassVar[Any] = [*_PAGE, (b"instance_id", amp.Unicode(optional=True))]
    response: ClassVar[Any] = [
        (
            b"devices",
            amp.AmpList(
                [
                    (b"device_id", amp.Unicode()),
                    (b"instance_id", amp.Unicode()),
                    (b"vendor", amp.Unicode(optional=True)),
                ]
            ),
        ),
        (b"more", amp.Boolean()),
    ]
    errors: ClassVar[Any] = _errors(RedisUnavailable)


class GetDevice(ControlCommand):
    """Return the instance of a device, and the state of its connection if it is this instance."""

    commandName = b"GetDevice"
    arguments: ClassVar[Any] = [(b"device_id", amp.Unicode())]
    response: ClassVar[Any] = [
        (b"device_id", amp.Unicode()),
        (b"instance_id", amp.Unicode(optional=True)),
        (b"here", amp.Boolean()),
        *_CONNECTION,
        (b"queued", amp.Integer(optional=True)),
        (b"outstanding", amp.Boolean(optional=True)),
        (b"waiting", amp.Integer()),
    ]
    errors: ClassVar[Any] = _errors(RedisUnavailable, NoSuchDevice)


class SendCommand(ControlCommand):
    """Send a command to a device, on any instance."""

    operates = True
    commandName = b"SendCommand"
    arguments: ClassVar[Any] = [
        (b"device_id", amp.Unicode()),
        (b"text", amp.Unicode(optional=True)),
        (b"payload_hex", amp.Unicode(optional=True)),
        (b"command_id", amp.Unicode(optional=True)),
        (b"codec", amp.Unicode(optional=True)),
        (b"expires_at", amp.Unicode(optional=True)),
        (b"expires_in", amp.Float(optional=True)),
        (b"timeout", amp.Float(optional=True)),
        (b"offline", amp.Unicode(optional=True)),
        (b"sender", amp.Unicode(optional=True)),
        (b"wait", amp.Boolean(optional=True)),
    ]
    response: ClassVar[Any] = [
        (b"command_id", amp.Unicode()),
        (b"instance_id", amp.Unicode(optional=True)),
        *_STATUS,
    ]
    errors: ClassVar[Any] = _errors(RedisUnavailable, NotPermitted, NoSuchCommand)


class CommandStatus(ControlCommand):
    """Return the status of a command, at once or when it is final."""

    commandName = b"CommandStatus"
    arguments: ClassVar[Any] = [
        (b"command_id", amp.Unicode()),
        (b"device_id", amp.Unicode(optional=True)),
        (b"seconds", amp.Float(optional=True)),
    ]
    response: ClassVar[Any] = [
        (b"command_id", amp.Unicode()),
        (b"instance_id", amp.Unicode(optional=True)),
        *_STATUS,
    ]
    errors: ClassVar[Any] = _errors(RedisUnavailable, NoSuchCommand)


class DropConnection(ControlCommand):
    """Close the connection of a device to this instance."""

    operates = True
    commandName = b"DropConnection"
    arguments: ClassVar[Any] = [(b"device_id", amp.Unicode())]
    response: ClassVar[Any] = [(b"address", amp.Unicode())]
    errors: ClassVar[Any] = _errors(NotPermitted, NoSuchDevice)


class Watch(ControlCommand):
    """Start sending an :class:`Event` for each piece of a device's traffic on this instance."""

    commandName = b"Watch"
    arguments: ClassVar[Any] = [(b"device_id", amp.Unicode())]
    response: ClassVar[Any] = [(b"here", amp.Boolean())]
    errors: ClassVar[Any] = _errors()


class Unwatch(ControlCommand):
    """Stop sending events of a device."""

    commandName = b"Unwatch"
    arguments: ClassVar[Any] = [(b"device_id", amp.Unicode())]
    errors: ClassVar[Any] = _errors(NoSuchDevice)


class Event(amp.Command):
    """Report traffic of a watched device; sent by the instance, without a reply.

    Events that the client does not read in time are dropped and counted.
    """

    commandName = b"Event"
    requiresAnswer = False
    arguments: ClassVar[Any] = [
        (b"device_id", amp.Unicode()),
        (b"at", amp.Float()),
        (b"kind", amp.Unicode()),
        (b"raw", amp.Unicode(optional=True)),
        (b"decoded", amp.Unicode(optional=True)),
        (b"truncated", amp.Boolean()),
        (b"dropped", amp.Integer()),
    ]


class Lag(ControlCommand):
    """Return a page of the lag of each stream's consumer groups."""

    commandName = b"Lag"
    arguments: ClassVar[Any] = [
        (b"streams", amp.ListOf(amp.Unicode(), optional=True)),
        (b"skip", amp.Integer(optional=True)),
        (b"limit", amp.Integer(optional=True)),
    ]
    response: ClassVar[Any] = [
        (
            b"groups",
            amp.AmpList(
                [
                    (b"stream", amp.Unicode()),
                    (b"entries", amp.Integer()),
                    (b"group", amp.Unicode(optional=True)),
                    (b"lag", amp.Integer(optional=True)),
                    (b"pending", amp.Integer(optional=True)),
                    (b"oldest_unprocessed_age", amp.Float(optional=True)),
                    (b"consumers", amp.Integer(optional=True)),
                ]
            ),
        ),
        (b"more", amp.Boolean()),
    ]
    errors: ClassVar[Any] = _errors(RedisUnavailable)


class SetLogLevel(ControlCommand):
    """Set the lowest level that is logged, for one part of the program or for all of it."""

    operates = True
    commandName = b"SetLogLevel"
    arguments: ClassVar[Any] = [
        (b"level", amp.Unicode()),
        (b"namespace", amp.Unicode(optional=True)),
    ]
    response: ClassVar[Any] = [(b"before", amp.Unicode())]
    errors: ClassVar[Any] = _errors(NotPermitted)


class Drain(ControlCommand):
    """Refuse new connections of devices, and close the present ones one after another."""

    operates = True
    commandName = b"Drain"
    arguments: ClassVar[Any] = [(b"seconds", amp.Float())]
    response: ClassVar[Any] = [(b"closed", amp.Integer()), (b"left", amp.Integer())]
    errors: ClassVar[Any] = _errors(NotPermitted)


#: All commands that a client may send, Hello first.
COMMANDS: Final[tuple[type[ControlCommand], ...]] = (
    Hello,
    Info,
    ListConnections,
    ListDeviceRegistry,
    GetDevice,
    SendCommand,
    CommandStatus,
    DropConnection,
    Watch,
    Unwatch,
    Lag,
    SetLogLevel,
    Drain,
)
