"""The commands of the control port: AMP boxes, each with the errors that it may answer.

``docs/control-port.rst`` describes the protocol. It is extended by optional arguments and new
commands only; any other change takes another :data:`VERSION`. No value exceeds the 65,535 bytes
that AMP allows: texts are cut, and lists are paged (if ``more`` is true, ``after`` the last row's
name, or to ``skip`` so many rows, brings the next page).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from twisted.protocols import amp

from tracker.untrusted import is_unicode

#: Version of the protocol, on which both sides agree first.
VERSION: Final = 1
#: Rows of a page, at most.
MAX_ROWS: Final = 200
#: Characters of a text that may be any length, such as a device's answer. As UTF-8 they are
#: 60,000 bytes at most.
MAX_TEXT: Final = 15_000
#: Bytes of a frame that a watcher receives in hexadecimal.
MAX_RAW_BYTES: Final = 30_000
#: Characters of an id or a name, and of an error's text. Longer ones are cut.
MAX_NAME: Final = 64
MAX_ERROR: Final = 500


class ControlError(Exception):
    """An error that a command answers; the text is for people."""


class VersionMismatch(ControlError):
    """The two sides speak different versions, or the client has not sent its version."""


class NotPermitted(ControlError):
    """The client's permission does not allow that."""


class BadArgument(ControlError):
    """An argument is malformed or out of range."""


class NoSuchDevice(ControlError):
    """No connection of this device is known, or none on this instance."""


class NoSuchCommand(ControlError):
    """Nothing is known of this command."""


class RedisUnavailable(ControlError):
    """Redis does not answer, or refuses a request. The instance goes on; try again."""


class InternalError(ControlError):
    """The instance has an internal error, which is in its log; it goes on."""


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
    any_may: tuple[type[Exception], ...] = (VersionMismatch, BadArgument, InternalError)
    return {one: CODES[one] for one in (*any_may, *particular)}


def brief(text: str, most: int = MAX_ERROR) -> str:
    """Return untrusted text in a form that can be sent: at most ``most`` characters of UTF-8."""
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    return text if is_unicode(text) else text.encode(errors="replace").decode()


_PAGE: Final = [
    (b"after", amp.Unicode(optional=True)),
    (b"limit", amp.Integer(optional=True)),
    (b"prefix", amp.Unicode(optional=True)),
    (b"vendor", amp.Unicode(optional=True)),
]
#: Facts of a connection, besides its device. Times are seconds since 1970 (UTC).
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
]


class ControlCommand(amp.Command):
    """A command of the control port, for the permission ``read`` unless it operates."""

    operates: ClassVar[bool] = False
    """True if it changes something: it then requires the permission ``operate``, and is logged
    with its client."""


class Hello(ControlCommand):
    """Must come first: the version and the name of the client."""

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
    """Facts of the instance, and how much it holds."""

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
    """Devices that are connected to this instance, sorted by their ids."""

    commandName = b"ListConnections"
    arguments: ClassVar[Any] = _PAGE
    response: ClassVar[Any] = [
        (b"connections", amp.AmpList([(b"device_id", amp.Unicode()), *_CONNECTION])),
        (b"more", amp.Boolean()),
    ]
    errors: ClassVar[Any] = _errors()


class ListDeviceRegistry(ControlCommand):
    """Devices that are connected to any instance, sorted by their ids."""

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
    """The instance that a device is connected to; the state of its connection if it is this one."""

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
    """Send a command to a device, wherever it is connected."""

    operates = True
    commandName = b"SendCommand"
    arguments: ClassVar[Any] = [
        (b"device_id", amp.Unicode()),
        (b"text", amp.Unicode()),
        (b"command_id", amp.Unicode(optional=True)),
        (b"codec", amp.Unicode(optional=True)),
        (b"expires_at", amp.Unicode(optional=True)),
        (b"expires_in", amp.Float(optional=True)),
        (b"timeout", amp.Float(optional=True)),
        (b"offline", amp.Unicode(optional=True)),
        (b"wait", amp.Boolean(optional=True)),
    ]
    response: ClassVar[Any] = [
        (b"command_id", amp.Unicode()),
        (b"instance_id", amp.Unicode(optional=True)),
        *_STATUS,
    ]
    errors: ClassVar[Any] = _errors(RedisUnavailable, NotPermitted, NoSuchCommand)


class CommandStatus(ControlCommand):
    """State of a command."""

    commandName = b"CommandStatus"
    arguments: ClassVar[Any] = [
        (b"command_id", amp.Unicode()),
        (b"device_id", amp.Unicode(optional=True)),
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
    """Request an :class:`Event` for all traffic of a device on this instance."""

    commandName = b"Watch"
    arguments: ClassVar[Any] = [(b"device_id", amp.Unicode())]
    response: ClassVar[Any] = [(b"here", amp.Boolean())]
    errors: ClassVar[Any] = _errors()


class Unwatch(ControlCommand):
    """Request no more events of a device."""

    commandName = b"Unwatch"
    arguments: ClassVar[Any] = [(b"device_id", amp.Unicode())]
    errors: ClassVar[Any] = _errors(NoSuchDevice)


class Event(amp.Command):
    """Sent by the server: something has happened on the connection of a watched device.

    It is not answered. Events that the client does not read in time are dropped and counted.
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
    """Lag of the consumer groups of each stream."""

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
    """Log events of this level and above: of one part of the program, or of all of it."""

    operates = True
    commandName = b"SetLogLevel"
    arguments: ClassVar[Any] = [
        (b"level", amp.Unicode()),
        (b"namespace", amp.Unicode(optional=True)),
    ]
    response: ClassVar[Any] = [(b"before", amp.Unicode())]
    errors: ClassVar[Any] = _errors(NotPermitted)


class Drain(ControlCommand):
    """Refuse new connections, and close the present ones one after another."""

    operates = True
    commandName = b"Drain"
    arguments: ClassVar[Any] = [(b"seconds", amp.Float())]
    response: ClassVar[Any] = [(b"closed", amp.Integer()), (b"left", amp.Integer())]
    errors: ClassVar[Any] = _errors(NotPermitted)


#: All commands of a client, Hello first.
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
