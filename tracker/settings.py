"""Settings of a process or a vendor: each is an option, checked at start."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from attrs import Attribute, field, fields, validators

from tracker.durations import check_bounds, format_duration, parse_duration

_SIZE: Final = re.compile(r"([0-9]{1,12})([kMG]?)")
_ZONE: Final = re.compile(r"([+-])([0-9]{2}):([0-5][0-9])")
#: Maximum distance of a time zone from UTC in minutes.
_MAX_ZONE: Final = 14 * 60
_SHIFT: Final = {"G": 30, "M": 20, "k": 10, "": 0}


def parse_size(text: str) -> int:
    """Parse a number of bytes, optionally with ``k``, ``M`` or ``G`` (powers of 1,024).

    :raises ValueError: if the text is malformed.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"must be a size like 512M or 2G, not {text!r}")
    return int(found[1]) << _SHIFT[found[2]]


def format_size(value: int) -> str:
    """Return a number of bytes as :func:`parse_size` reads it."""
    unit = next(unit for unit, shift in _SHIFT.items() if value >> shift << shift == value)
    return f"{value >> _SHIFT[unit]}{unit}" if value else "0"


def parse_zone(text: str) -> int:
    """Parse a time zone such as ``+08:00``.

    :return: minutes east of UTC.
    :raises ValueError: if the text is malformed, or the zone is more than 14 hours from UTC.
    """
    found = _ZONE.fullmatch(text)
    east = int(found[2]) * 60 + int(found[3]) if found else 0
    if found is None or east > _MAX_ZONE:
        raise ValueError(f"must be a time zone between -14:00 and +14:00, not {text!r}")
    return -east if found[1] == "-" else east


def setting(default: float, low: float, high: float, help: str) -> Any:  # noqa: A002
    """Return an attrs field for a number.

    :param low: minimum value.
    :param high: maximum value.
    :param help: help text of the option.
    """
    read = partial(_number, type(default))
    return field(
        default=default,
        validator=_between(low, high),
        metadata={"help": help, "read": read, "shown": default},
    )


def size(default: int, low: int, high: int, help: str) -> Any:  # noqa: A002
    """Return an attrs field for a number of bytes, which the option gives like ``64M``.

    The arguments are those of :func:`setting`.
    """

    def check(instance: Any, attribute: Attribute[Any], value: int) -> None:
        if not low <= value <= high:
            low_, high_ = format_size(low), format_size(high)
            raise ValueError(f"must be between {low_} and {high_}, not {format_size(int(value))}")

    metadata = {"help": help, "read": parse_size, "shown": format_size(default)}
    return field(default=default, validator=check, metadata=metadata)


def duration(
    default: float,
    low: float,
    high: float,
    help: str,  # noqa: A002
    *,
    bare: bool = True,
) -> Any:
    """Return an attrs field for a number of seconds, which the option gives like ``10s``.

    The other arguments are those of :func:`setting`.

    :param bare: accept a number without a unit, as seconds.
    """
    shown = format_duration(default)
    read = partial(parse_duration, bare=True) if bare else partial(parse_duration, examples=shown)
    return field(
        default=default,
        validator=_lasts(low, high),
        metadata={"help": help, "read": read, "shown": shown},
    )


def optional(low: int, high: int, help: str) -> Any:  # noqa: A002
    """Return an attrs field for an integer whose default is None, for a computed default.

    The arguments are those of :func:`setting`.
    """
    check = validators.optional(_between(low, high))
    metadata = {"help": help, "read": partial(_number, int), "shown": None}
    return field(default=None, validator=check, metadata=metadata)


def parsed(default: str, read: Callable[[str], Any], help: str) -> Any:  # noqa: A002
    """Return an attrs field for a value that is written in a form of its own, like ``+02:00``.

    :param default: as the option gives it.
    :param read: returns the value for what the option gives; raises ValueError if that is not
        valid. The message is one line.
    :param help: help text of the option.
    """
    return field(default=read(default), metadata={"help": help, "read": read, "shown": default})


def file(read: Callable[[str], Any], help: str) -> Any:  # noqa: A002
    """Return an attrs field for the content of a file, which may be a secret; None without one.

    The option gives only the path, because other users can read a process' arguments.

    :param read: returns the value for the text of the file; raises ValueError if that is not
        valid. The message is one line, without a secret.
    :param help: help text of the option.
    """
    metadata = {"help": help, "read": partial(_content, read), "shown": None}
    return field(default=None, repr=False, metadata=metadata)


def options_of(cls: type[Any], prefix: str = "") -> list[tuple[str, Any, str]]:
    """Return option name, default as in an option, and help text of each setting of a class.

    :param prefix: see :func:`option_name`.
    """
    return [
        (option_name(attribute, prefix), attribute.metadata["shown"], attribute.metadata["help"])
        for attribute in fields(cls)
    ]


def option_name(attribute: Attribute[Any], prefix: str = "") -> str:
    """Return the name of the option for a setting.

    :param prefix: start of the name, such as ``concox-`` for the settings of a vendor.
    """
    return prefix + attribute.name.replace("_", "-")


def _content(read: Callable[[str], Any], path: str) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _number(kind: type[float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"must be a number, not {text!r}") from None


def _between(low: float, high: float) -> Any:
    def check(instance: Any, attribute: Attribute[Any], value: float) -> None:
        if not low <= value <= high:
            shown = f"{value:,}".removesuffix(".0")
            raise ValueError(f"must be between {low:,} and {high:,}, not {shown}")

    return check


def _lasts(low: float, high: float) -> Callable[[Any, Attribute[Any], float], None]:
    def check(instance: Any, attribute: Attribute[Any], value: float) -> None:
        check_bounds(value, low, high)

    return check
