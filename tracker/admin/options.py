"""Options that commands share, with their defaults in the environment and in a file.

The command line takes precedence over the environment, and the environment over the file.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import field, frozen
from click.shell_completion import CompletionItem

from tracker import config
from tracker.admin.variables import CONTROL_VARIABLE, FILES, REDIS_VARIABLE
from tracker.clock import ClockRule
from tracker.command import parse_hex
from tracker.config import ConfigError
from tracker.durations import MAX_DURATION, check_bounds, parse_duration
from tracker.settings import options_of
from tracker.untrusted import shown

_SECTION: Final = "tracker-admin"
_KEYS: Final = ("control", "redis")

R = TypeVar("R")


class Origin(IntEnum):
    """The source of a setting, in order of precedence."""

    COMMAND_LINE = 1
    ENVIRONMENT = 2
    FILE = 3
    FOUND = 4


@frozen
class Setting:
    """The value of a setting, and its source."""

    value: str
    origin: Origin
    source: str
    """The source's name in an error message: an option, a variable, or a key of a file."""


@frozen
class Options:
    """The options before the command.

    The methods raise click.UsageError if the configuration file is malformed.
    """

    control: str | None = None
    file: Path | None = None
    output: str = "table"
    environ: Mapping[str, str] = field(factory=lambda: os.environ)

    def given_control(self) -> Setting | None:
        """Return the control port that is given; None if none is."""
        return self._setting("control", "--control", self.control, CONTROL_VARIABLE)

    def given_redis(self, url: str | None) -> Setting | None:
        """Return the URL of Redis that is given; None if none is.

        :param url: the option's value.
        """
        return self._setting("redis", "--redis", url, REDIS_VARIABLE)

    def _setting(self, key: str, option: str, value: str | None, variable: str) -> Setting | None:
        if value:
            return Setting(value, Origin.COMMAND_LINE, option)
        if self.environ.get(variable):
            return Setting(self.environ[variable], Origin.ENVIRONMENT, variable)
        file = self.file or _default_file()
        in_file = None if file is None else read_file(file).get(key)
        return Setting(in_file, Origin.FILE, f"{file}: {key}") if in_file else None


def options() -> Options:
    """Return the options of the running command."""
    return click.get_current_context().find_object(Options) or Options()


def read_file(file: Path) -> dict[str, str]:
    """Return the keys ``control`` and ``redis`` of a configuration file, if present.

    :raises click.UsageError: if the file is malformed; the message contains no value.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"Cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"File {file} is not UTF-8") from None
    except configparser.Error as error:
        raise click.UsageError(f"{file}: {_fault(error)}") from None
    for section in parser.sections():
        if section != _SECTION:
            raise click.UsageError(f"{file}: unknown section [{section}]; use [{_SECTION}]")
    if not parser.has_section(_SECTION):
        raise click.UsageError(f"{file}: the section [{_SECTION}] is missing")
    values = dict(parser[_SECTION])
    for key, value in values.items():
        if key not in _KEYS:
            raise click.UsageError(f"{file}: unknown key {key!r}; use {' or '.join(_KEYS)}")
        if "\n" in value:
            raise click.UsageError(f"{file}: {key} must be on one line")
    return values


def _fault(error: configparser.Error) -> str:
    """Return the fault, without the text of the line, which may hold a password."""
    number = getattr(error, "lineno", None)
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {number}: [{_SECTION}] must come first"
    if isinstance(error, configparser.ParsingError):
        return f"line {error.errors[0][0]}: must be KEY = VALUE"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {number}: {error.option} is given twice"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {number}: [{error.section}] is given twice"
    return type(error).__name__


def _default_file() -> Path | None:
    for name in FILES:
        try:
            path = Path(name).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError):  # the user has no home folder, or may not read it
            continue
    return None


def _chosen_output(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    return value or options().output


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    callback=_chosen_output,
    help="Format of the result.  [default: the -o given before the command, or table]",
)


def _chosen_redis(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    given = options().given_redis(value)
    if given is None or given.origin is Origin.ENVIRONMENT:
        return None  # redis_address reads the variable
    return given.value


redis_option = click.option(
    "--redis",
    "url",
    metavar="URL",
    callback=_chosen_redis,
    help=f"URL of Redis.  [default: {REDIS_VARIABLE}, or redis in the configuration file, or "
    f"{config.DEFAULT_REDIS}]",
)


def clock_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options of :class:`ClockRule` to a command, which receives it as ``clocks``."""

    @wraps(command)
    def with_clocks(**arguments: Any) -> R:
        given = {name: arguments.pop(name.replace("-", "_")) for name, _, _ in clock_settings}
        try:
            clocks = config.settings(ClockRule, given)
        except ConfigError as error:
            raise click.UsageError(f"{error}.") from None
        return command(clocks=clocks, **arguments)

    clock_settings = options_of(ClockRule)
    for name, default, text in reversed(clock_settings):
        with_clocks = click.option(
            f"--{name}", metavar="DURATION", default=default, show_default=True, help=text
        )(with_clocks)
    return with_clocks


class DeviceId(click.ParamType):  # type: ignore[type-arg]
    """The ID of a device of an installed vendor."""

    name = "DEVICE"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """See ParamType."""
        from tracker.vendors.installed import checked_device_id  # not needed for completion

        try:
            return checked_device_id(value)
        except ValueError as error:
            self.fail(f"'{shown(value)}' is not a device ID: it {error}.", param, ctx)


class CommandCodec(click.ParamType):  # type: ignore[type-arg]
    """A codec of commands of an installed vendor."""

    name = "CODEC"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """See ParamType."""
        return str(_codec_choice().convert(value, param, ctx))

    def get_metavar(self, param: Any, ctx: Any) -> str | None:
        """See ParamType."""
        return _codec_choice().get_metavar(param, ctx)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """See ParamType."""
        return _codec_choice().shell_complete(ctx, param, incomplete)


def _codec_choice() -> click.Choice[str]:
    from tracker.vendors.installed import command_codecs, installed_vendors

    return click.Choice(list(command_codecs(installed_vendors())))


class HexBytes(click.ParamType):  # type: ignore[type-arg]
    """Bytes for a device, in hex."""

    name = "HEX"

    def convert(self, value: Any, param: Any, ctx: Any) -> bytes:
        """See ParamType."""
        try:
            return parse_hex(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration such as ``90s``, ``30m``, ``24h`` or ``7d``, which is converted to seconds.

    :param bare: accept a number without a unit, as seconds.
    """

    name = "DURATION"

    def __init__(self, low: float = 1, high: float = MAX_DURATION, *, bare: bool = False) -> None:
        self._low, self._high, self._bare = low, high, bare

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """See ParamType."""
        if isinstance(value, float):
            return value
        try:
            seconds = parse_duration(value, bare=self._bare)
            check_bounds(seconds, self._low, self._high)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        return seconds
