"""What a process was told: options and environment, read once and checked at start."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import evolve, frozen

from tracker.keys import TELEMETRY_TEMPLATE, telemetry_stream
from tracker.settings import options_of

#: The vendor whose stream ``REDIS_TELEMETRY_STREAM`` names.
PINNED_VENDOR: Final = "teltonika"

DEFAULT_REDIS: Final = "redis://127.0.0.1:6379/0"
DEFAULT_LISTEN: Final = "teltonika=tcp:5027"
DEFAULT_STANDALONE_LISTEN: Final = "teltonika=tcp:5027:interface=127.0.0.1"
DEFAULT_DATA: Final = "tracker-data"
DEFAULT_WEBHOOK: Final = "tcp:9130"
DEFAULT_CONSOLE: Final = "tcp:9120"
DEFAULT_RUNTIME: Final = "/run/tracker"
DEFAULT_RETAIN: Final = "24h"
DEFAULT_RETAIN_BYTES: Final = "1G"

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 36_500 * 86_400
_SIZE: Final = re.compile(r"([0-9]{1,12})([kMG]?)")
_SHIFT: Final = {"": 0, "k": 10, "M": 20, "G": 30}
_SMALLEST: Final = 1 << 20

Environment = Mapping[str, str]
T = TypeVar("T")


class ConfigError(ValueError):
    """Something a user has to change; the text is one line that says what."""


@frozen
class Listen:
    """One ``--listen VENDOR=ENDPOINT``."""

    vendor: str
    endpoint: str
    given: str
    """As the user wrote it."""


def listens(given: Iterable[str], vendors: Iterable[str]) -> tuple[Listen, ...]:
    """Read the values of ``--listen``.

    :param vendors: the names of the vendors that are installed.
    """
    known = sorted(vendors)
    result = []
    for text in given:
        vendor, equals, endpoint = text.partition("=")
        if not equals or ":" in vendor or not endpoint:
            raise ConfigError(f"--listen {text}: must be VENDOR=ENDPOINT, as {DEFAULT_LISTEN}")
        if vendor not in known:
            names = ", ".join(known)
            raise ConfigError(f"--listen {text}: unknown vendor {vendor!r} (installed: {names})")
        result.append(Listen(vendor, endpoint, text))
    return tuple(result)


def settings(cls: type[T], options: Mapping[str, Any]) -> T:
    """The settings of a class, each from the option of its name."""
    made = cls()
    for name, default, _ in options_of(cls):
        if default is options[name] is None:
            continue
        number = int if default is None else type(default)
        try:
            value = number(options[name])
        except ValueError:
            raise ConfigError(f"--{name}: must be a number, not {options[name]!r}") from None
        try:
            made = evolve(made, **{name.replace("-", "_"): value})  # type: ignore[misc]
        except ValueError as error:
            raise ConfigError(f"--{name}: {error}") from None
    return made


def choice(options: Mapping[str, Any], name: str, *allowed: str) -> str:
    """The value of an option that has few."""
    value: str = options[name]
    if value not in allowed:
        raise ConfigError(f"--{name}: must be {' or '.join(allowed)}, not {value!r}")
    return value


def files_by_model(given: Iterable[str]) -> dict[str, Path]:
    """Read the values of ``--names-map``, MODEL=FILE."""
    files: dict[str, Path] = {}
    for text in given:
        model, equals, file = text.partition("=")
        if not (equals and model and file):
            raise ConfigError(f"--names-map {text}: must be MODEL=FILE")
        if model in files:
            raise ConfigError(f"--names-map {text}: {model} is given twice")
        files[model] = Path(file)
    return files


def duration(option: str, text: str) -> float | None:
    """Seconds, from a number with ``s``, ``m``, ``h`` or ``d``; None for ``none``."""
    if text == "none":
        return None
    found = _DURATION.fullmatch(text)
    if found is None or not 1 <= (seconds := int(found[1]) * _SECONDS[found[2]]) <= _LONGEST:
        raise ConfigError(f"{option}: must be like 90s, 30m, 24h or 7d, or none, not {text!r}")
    return float(seconds)


def size(option: str, text: str) -> int | None:
    """Bytes, from a number with ``k``, ``M`` or ``G`` (of 1,024 each); None for ``none``."""
    if text == "none":
        return None
    found = _SIZE.fullmatch(text)
    if found is None or (size := int(found[1]) << _SHIFT[found[2]]) < _SMALLEST:
        raise ConfigError(f"{option}: must be like 512M or 2G, at least 1M, or none, not {text!r}")
    return size


def sink_url(given: str | None, environ: Environment) -> str:
    """Where positions are stored: ``--sink``, else ``TRACKER_SINK`` (or its file)."""
    url = maybe_sink_url(given, environ)
    if url is None:
        raise ConfigError("--sink is required, as --sink sqlite:/var/lib/tracker/positions.db")
    return url


def maybe_sink_url(given: str | None, environ: Environment) -> str | None:
    """The same; None where it is not said."""
    return given or private(environ, "TRACKER_SINK") or None


def name_of(option: str, given: str | None, environ: Environment, variable: str) -> str:
    """A name that stays the same across restarts: given, else the host's name and ``-1``."""
    name = given or environ.get(variable) or f"{socket.gethostname()}-1"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{option}: letters, digits, '.', '_' and '-' only, at most 64: {name!r}")
    return name


def ingest_streams(environ: Environment, vendors: Iterable[str]) -> dict[str, str]:
    """Vendor → the one stream that ingestion appends its positions to."""
    pinned = environ.get("REDIS_TELEMETRY_STREAM", "").strip()
    if "," in pinned:
        raise ConfigError(
            "REDIS_TELEMETRY_STREAM: several names are for the processor; ingestion writes one"
        )
    return {vendor: _stream(pinned, vendor) for vendor in vendors}


def process_streams(environ: Environment, vendors: Iterable[str]) -> dict[str, str]:
    """Stream → vendor, for all streams that the processor reads."""
    vendors = list(vendors)
    names = environ.get("REDIS_TELEMETRY_STREAM", "").split(",")
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
        raise ConfigError(f"REDIS_TELEMETRY_STREAM: a name holds no spaces: {pinned!r}")
    if "{vendor}" in pinned:
        return telemetry_stream(vendor, pinned)
    return pinned if pinned and vendor == PINNED_VENDOR else telemetry_stream(vendor)


def control_address(given: str | None, environ: Environment, instance_id: str) -> str | None:
    """Where the control port listens: ``--control``, else a socket in the runtime folder.

    :return: None where there is no such folder, or ``none`` is given.
    """
    if given is not None:
        return None if given == "none" else given
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or DEFAULT_RUNTIME
    if not os.access(folder, os.W_OK | os.X_OK):
        return None
    return f"unix:{folder}/control-{instance_id}.sock"


def secret(option: str, given: str | None, environ: Environment, variable: str) -> str:
    """A secret: from the file that is given, or from the environment; never from an option.

    :param variable: holds the secret; with ``_FILE`` behind its name, the name of its file.
    """
    found = private(environ, variable) if given is None else _content(option, given)
    if not found:
        raise ConfigError(f"{option}: a secret is needed there, or in {variable}")
    return found


def private(environ: Environment, variable: str) -> str:
    """What a variable says that others should not see, or the file that ``…_FILE`` names.

    A file that holds nothing says nothing: so a credential of systemd need not be there.
    """
    file = environ.get(f"{variable}_FILE")
    return (file and _content(f"{variable}_FILE", file)) or environ.get(variable, "")


def _content(name: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise ConfigError(f"{name} {file}: {reason}") from None


def data_folder(given: str | None, environ: Environment) -> Path:
    """Where the standalone role keeps its data."""
    return Path(given or environ.get("TRACKER_DATA") or DEFAULT_DATA).absolute()
