"""Options and environment variables of a process, read once and checked at start."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import evolve, fields, frozen

from tracker.durations import MAX_DURATION, check_bounds, parse_duration
from tracker.keys import TELEMETRY_TEMPLATE, telemetry_stream
from tracker.settings import option_name, parse_size

#: The vendor whose stream ``REDIS_TELEMETRY_STREAM`` names.
PINNED_VENDOR: Final = "teltonika"

DEFAULT_REDIS: Final = "redis://127.0.0.1:6379/0"
DEFAULT_LISTEN: Final = "teltonika=tcp:5027"
DEFAULT_STANDALONE_LISTEN: Final = "teltonika=tcp:5027:interface=127.0.0.1"
DEFAULT_DATA: Final = "tracker-data"
DEFAULT_WEBHOOK: Final = "tcp:9130"
DEFAULT_CONSOLE: Final = "tcp:9120"
DEFAULT_RETAIN: Final = "24h"
DEFAULT_RETAIN_BYTES: Final = "1G"

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MIN_BYTES: Final = 1 << 20

Environment = Mapping[str, str]
T = TypeVar("T")


class ConfigError(ValueError):
    """An option or environment variable is invalid; the message is one line."""


@frozen
class Listen:
    """One ``--listen VENDOR=ENDPOINT``."""

    vendor: str
    endpoint: str
    given: str
    """The value that the user has given."""


def parse_listen(given: Iterable[str], vendors: Iterable[str]) -> tuple[Listen, ...]:
    """Parse the values of ``--listen``.

    :param vendors: names of the installed vendors.
    :raises ConfigError: if a value is malformed, or its vendor is not installed.
    """
    known = sorted(vendors)
    result = []
    for text in given:
        vendor, equals, endpoint = text.partition("=")
        if not equals or ":" in vendor or not endpoint:
            raise ConfigError(
                f"--listen {text}: must be VENDOR=ENDPOINT, for example {DEFAULT_LISTEN}"
            )
        if vendor not in known:
            names = ", ".join(known)
            raise ConfigError(f"--listen {text}: unknown vendor {vendor!r} (installed: {names})")
        result.append(Listen(vendor, endpoint, text))
    return tuple(result)


def settings(cls: type[T], options: Mapping[str, Any], prefix: str = "") -> T:
    """Return an instance of a class of settings, each read from the option of the same name.

    :param cls: an attrs class whose fields are made by :mod:`tracker.settings`.
    :param options: option name → value.
    :param prefix: see :func:`tracker.settings.option_name`.
    :raises ConfigError: if a value is malformed, out of bounds, or a file that cannot be read.
    """
    result = cls()
    for attribute in fields(cls):  # type: ignore[arg-type]
        name = option_name(attribute, prefix)
        if options[name] is None:
            continue
        try:
            value = attribute.metadata["read"](str(options[name]))
            result = evolve(result, **{attribute.name: value})  # type: ignore[misc]
        except ValueError as error:
            raise ConfigError(f"--{name}: {error}") from None
    return result


def choice(options: Mapping[str, Any], name: str, *allowed: str) -> str:
    """Return the value of an option that allows only a few values.

    :raises ConfigError: if the value is not one of ``allowed``.
    """
    value: str = options[name]
    if value not in allowed:
        raise ConfigError(f"--{name}: must be {' or '.join(allowed)}, not {value!r}")
    return value


def vendor_and_model(option: str, text: str, vendors: Iterable[str]) -> tuple[str, str]:
    """Parse [VENDOR:]MODEL. Without a vendor it is a model of Teltonika.

    :param option: the option and its value, for the error.
    :param vendors: names of the installed vendors.
    :raises ConfigError: if the vendor is not installed, or the model is missing.
    """
    vendor, colon, model = text.rpartition(":")
    if not model:
        raise ConfigError(f"{option}: must be [VENDOR:]MODEL")
    if colon and vendor not in (known := sorted(vendors)):
        names = ", ".join(known)
        raise ConfigError(f"{option}: unknown vendor {vendor!r} (installed: {names})")
    return vendor or PINNED_VENDOR, model


def files_by_model(given: Iterable[str], vendors: Iterable[str]) -> dict[tuple[str, str], Path]:
    """Parse the values of ``--names-map``, [VENDOR:]MODEL=FILE.

    :param vendors: names of the installed vendors.
    :return: (vendor, model) → path of the file.
    :raises ConfigError: if a value is malformed, its vendor is not installed, or a model is given
        twice.
    """
    vendors = list(vendors)
    files: dict[tuple[str, str], Path] = {}
    for text in given:
        option = f"--names-map {text}"
        name, equals, file = text.partition("=")
        if not (equals and name and file):
            raise ConfigError(f"{option}: must be [VENDOR:]MODEL=FILE")
        key = vendor_and_model(option, name, vendors)
        if key in files:
            raise ConfigError(f"{option}: {key[1]} is given twice")
        files[key] = Path(file)
    return files


def duration(option: str, text: str) -> float | None:
    """Parse a duration of at least a second, see :mod:`tracker.durations`.

    :param option: name of the option, for the error.
    :return: seconds; None for ``none``.
    :raises ConfigError: if the text is malformed, or out of bounds.
    """
    if text == "none":
        return None
    try:
        seconds = parse_duration(text)
        check_bounds(seconds, 1, MAX_DURATION)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
    return seconds


def size(option: str, text: str) -> int | None:
    """Parse a size: a number, optionally with ``k``, ``M`` or ``G`` (powers of 1,024).

    :param option: name of the option, for the error.
    :return: bytes; None for ``none``.
    :raises ConfigError: if the text is malformed, or the size too small.
    """
    if text == "none":
        return None
    try:
        found = parse_size(text)
    except ValueError:
        found = 0
    if found < _MIN_BYTES:
        raise ConfigError(f"{option}: must be like 512M or 2G, at least 1M, or none, not {text!r}")
    return found


def sink_url(given: str | None, environ: Environment) -> str:
    """Return the URL of the sink: ``--sink``, else ``TRACKER_SINK`` (or ``TRACKER_SINK_FILE``).

    :raises ConfigError: if neither is given.
    """
    url = maybe_sink_url(given, environ)
    if url is None:
        raise ConfigError(
            "--sink is required, for example --sink sqlite:/var/lib/tracker/positions.sqlite"
        )
    return url


def maybe_sink_url(given: str | None, environ: Environment) -> str | None:
    """Return the URL of the sink as :func:`sink_url` does, or None if it is not given."""
    return given or maybe_secret(environ, "TRACKER_SINK") or None


def stable_name(option: str, given: str | None, environ: Environment, variable: str) -> str:
    """Return a name of this process that stays the same across restarts.

    :param option: name of the option, for the error.
    :param given: value of the option.
    :param variable: environment variable that is used if the option is not given. The default is
        the host's name followed by ``-1``.
    :raises ConfigError: if the name contains other characters than it may.
    """
    name = given or environ.get(variable) or f"{socket.gethostname()}-1"
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{option}: must be 1 to 64 letters, digits, '.', '_' and '-', not {name!r}"
        )
    return name


def ingest_streams(environ: Environment, vendors: Iterable[str]) -> dict[str, str]:
    """Return vendor → the one stream to which ingestion appends the vendor's positions.

    :raises ConfigError: if ``REDIS_TELEMETRY_STREAM`` is invalid.
    """
    pinned = environ.get("REDIS_TELEMETRY_STREAM", "").strip()
    if "," in pinned:
        raise ConfigError(
            "REDIS_TELEMETRY_STREAM: must be one name here; only the role process accepts several"
        )
    return {vendor: _stream(pinned, vendor) for vendor in vendors}


def telemetry_setting(environ: Environment) -> str:
    """Return the value of ``REDIS_TELEMETRY_STREAM`` for the role process, or its default."""
    return environ.get("REDIS_TELEMETRY_STREAM", "").strip() or TELEMETRY_TEMPLATE


def process_streams(environ: Environment, vendors: Iterable[str]) -> dict[str, str]:
    """Return stream → vendor, for all streams that the role process reads.

    :raises ConfigError: if ``REDIS_TELEMETRY_STREAM`` is invalid.
    """
    vendors = list(vendors)
    names = telemetry_setting(environ).split(",")
    pinned = [name.strip() for name in names if name.strip()]
    canonical = {telemetry_stream(vendor): vendor for vendor in vendors}
    result: dict[str, str] = {}
    for name in pinned or [TELEMETRY_TEMPLATE]:
        for vendor in vendors:
            stream = _stream(name, vendor)
            result.setdefault(stream, canonical.get(stream, vendor))
    return result


def _stream(pinned: str, vendor: str) -> str:
    if any(character.isspace() for character in pinned):
        raise ConfigError(f"REDIS_TELEMETRY_STREAM: a name must not contain spaces: {pinned!r}")
    if "{vendor}" in pinned:
        return telemetry_stream(vendor, pinned)
    return pinned if pinned and vendor == PINNED_VENDOR else telemetry_stream(vendor)


def secret(option: str, given: str | None, environ: Environment, variable: str) -> str:
    """Return a secret from a file or from the environment.

    Options hold only the path of the file, because other users can read a process' arguments.

    :param option: name of the option, for the error.
    :param given: path of the file; None to use the environment.
    :param variable: see :func:`maybe_secret`.
    :raises ConfigError: if the file cannot be read, or no secret is found.
    """
    found = maybe_secret(environ, variable) if given is None else _content(option, given)
    if not found:
        raise ConfigError(
            f"{option}: no secret given; give a file that contains it, or set {variable}"
        )
    return found


def maybe_secret(environ: Environment, variable: str) -> str:
    """Return a secret from the environment, or an empty string if none is set.

    :param variable: environment variable with the secret. The variable of this name with
        ``_FILE`` appended, if set, names a file that takes precedence unless it is empty. Empty
        files are allowed so that a systemd credential is optional.
    :raises ConfigError: if the file cannot be read.
    """
    file = environ.get(f"{variable}_FILE")
    return (file and _content(f"{variable}_FILE", file)) or environ.get(variable, "")


def _content(name: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{name} {file}: {reason}") from None


def data_folder(given: str | None, environ: Environment) -> Path:
    """Return the folder for the data of the role standalone."""
    return Path(given or environ.get("TRACKER_DATA") or DEFAULT_DATA).absolute()
