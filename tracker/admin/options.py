"""What every command is told: the options before it, the environment, and a file.

The nearest wins: the command line, then the environment, then the file.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import click
from attrs import field, frozen

from tracker import config
from tracker.config import ConfigError

#: Where the file is, unless that is said; the first one that is there.
FILES: Final = ("~/.config/tracker-admin.conf", "/etc/tracker/admin.conf")
FILE_VARIABLE: Final = "TRACKER_ADMIN_CONFIG"
CONTROL_VARIABLE: Final = "TRACKER_CONTROL"
REDIS_VARIABLE: Final = "REDIS_URL"
#: Where control sockets are looked for when nobody has said where one is.
SOCKETS: Final = Path("/run/tracker")

_SECTION: Final = "tracker-admin"
_KEYS: Final = ("control", "redis")
_IMEI: Final = re.compile(r"[0-9]{15}")


class Origin(IntEnum):
    """Where something was said, the nearest first."""

    COMMAND_LINE = 1
    ENVIRONMENT = 2
    FILE = 3
    FOUND = 4


@frozen
class Given:
    """What was said, and where."""

    value: str
    origin: Origin
    place: str
    """How a complaint calls it."""


@frozen
class Options:
    """The options before the command."""

    control: str | None = None
    file: Path | None = None
    output: str = "table"
    environ: Mapping[str, str] = field(factory=lambda: os.environ)

    def given_control(self) -> Given | None:
        """Which control port was named, if one was.

        :raises click.UsageError: when the file is bad, as do the others.
        """
        return self._given("control", "--control", self.control, CONTROL_VARIABLE)

    def given_redis(self, url: str | None) -> Given | None:
        """Which Redis was named, if one was.

        :param url: on the command line.
        """
        return self._given("redis", "--redis", url, REDIS_VARIABLE)

    def found_control(self, sockets: Path = SOCKETS) -> Given:
        """The control port that was named, or else the only one there is on this machine."""
        given = self.given_control()
        if given is not None:
            return given
        found = sorted(path for path in sockets.glob("*.sock") if path.is_socket())
        if len(found) == 1:
            return Given(f"unix:{found[0]}", Origin.FOUND, str(found[0]))
        names = f"more than one is in {sockets}" if found else f"none is in {sockets}"
        raise click.UsageError(
            f"say which control port: --control ENDPOINT, {CONTROL_VARIABLE} or a file ({names})"
        )

    def _given(self, key: str, option: str, value: str | None, variable: str) -> Given | None:
        if value:
            return Given(value, Origin.COMMAND_LINE, option)
        if self.environ.get(variable):
            return Given(self.environ[variable], Origin.ENVIRONMENT, variable)
        file = self.file or _default_file()
        said = None if file is None else read_file(file).get(key)
        return Given(said, Origin.FILE, f"{file}: {key}") if said else None


def options() -> Options:
    """Those of the command that is running."""
    return click.get_current_context().find_object(Options) or Options()


def read_file(file: Path) -> dict[str, str]:
    """What a file says: ``control`` and ``redis``, each if it does.

    :raises click.UsageError: when it is bad; in one line that holds no value.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{file}: is not UTF-8") from None
    except configparser.Error as error:
        raise click.UsageError(f"{file}: {_fault(error)}") from None
    for section in parser.sections():
        if section != _SECTION:
            raise click.UsageError(f"{file}: unknown section [{section}]: only [{_SECTION}]")
    if not parser.has_section(_SECTION):
        raise click.UsageError(f"{file}: there is no section [{_SECTION}]")
    values = dict(parser[_SECTION])
    for key, value in values.items():
        if key not in _KEYS:
            raise click.UsageError(f"{file}: unknown key {key!r}: only {' and '.join(_KEYS)}")
        if "\n" in value:
            raise click.UsageError(f"{file}: {key}: must be one line")
    return values


def _fault(error: configparser.Error) -> str:
    """The fault without the line's text, which may hold a password."""
    number = getattr(error, "lineno", None)
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {number}: [{_SECTION}] must come first"
    if isinstance(error, configparser.ParsingError):
        return f"line {error.errors[0][0]}: must be KEY = VALUE"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {number}: {error.option} is there twice"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {number}: [{error.section}] is there twice"
    return type(error).__name__


def _default_file() -> Path | None:
    for name in FILES:
        try:
            path = Path(name).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError):  # no home, or one that this user may not look into
            continue
    return None


def _chosen_output(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    return value or options().output


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    callback=_chosen_output,
    help="How the result is shown.  [default: as said before the command, else table]",
)


def _chosen_redis(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    given = options().given_redis(value)
    if given is None or given.origin is Origin.ENVIRONMENT:
        return None  # whoever asks Redis looks there anyway
    return given.value


redis_option = click.option(
    "--redis",
    "url",
    metavar="URL",
    callback=_chosen_redis,
    help=f"Where Redis is.  [default: {REDIS_VARIABLE}, else as the file says, else "
    f"{config.DEFAULT_REDIS}]",
)


class Imei(click.ParamType):  # type: ignore[type-arg]
    """A device: 15 digits."""

    name = "IMEI"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """See ParamType."""
        if not _IMEI.fullmatch(value):
            self.fail(f"{value!r} is no IMEI of 15 digits", param, ctx)
        return str(value)


class Seconds(click.FloatRange):
    """A number within a range, which click would take ``nan`` to be."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """See ParamType."""
        if isinstance(value, str) and value.strip().lower().lstrip("+-") == "nan":
            self.fail(f"{value!r} is not a number", param, ctx)
        number: float = super().convert(value, param, ctx)
        return number


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, as ``90s``, ``30m``, ``24h`` or ``7d``."""

    name = "DURATION"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """See ParamType."""
        if isinstance(value, float):
            return value
        try:
            seconds = None if value == "none" else config.duration("", value)
        except ConfigError:
            seconds = None
        if seconds is None:
            self.fail(f"{value!r} is not like 90s, 30m, 24h or 7d", param, ctx)
        return seconds
