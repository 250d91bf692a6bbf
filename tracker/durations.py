"""Durations in options and in output, such as ``500ms``, ``10s``, ``5m``, ``24h`` or ``7d``.

In the program a duration is a number of seconds. :func:`parse_duration` reads one,
:func:`format_duration` returns its exact text, and :func:`age` the largest whole unit of it, for
tables and findings.
"""

from __future__ import annotations

import re
from typing import Final

#: Maximum of all durations, in seconds: a hundred years.
MAX_DURATION: Final = 36_500 * 86_400.0
#: Examples of all units, for errors and help texts.
EXAMPLES: Final = "500ms, 10s, 5m, 24h or 7d"

_SECONDS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(
    r"(?P<number>[0-9]{1,12}(\.[0-9]{0,30})?|\.[0-9]{1,30})(?P<unit>ms|s|m|h|d)?", re.ASCII
)


def parse_duration(text: str, *, bare: bool = False, examples: str = EXAMPLES) -> float:
    """Return the seconds of a duration.

    :param bare: accept a number without a unit, as seconds.
    :param examples: durations to suggest in the error.
    :raises ValueError: if the text is not a duration, or one above :data:`MAX_DURATION`; the
        message is one line.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not (found["unit"] or bare):
        raise ValueError(f"must be like {examples}, not {text!r}")
    number, unit = float(found["number"]), found["unit"] or "s"
    # A division keeps 20ms the same number as 0.02.
    seconds = number / 1000 if unit == "ms" else number * _SECONDS[unit]
    if seconds > MAX_DURATION:
        raise ValueError(f"must be at most {format_duration(MAX_DURATION)}, not {text!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the text of a duration in the largest unit that it is a whole multiple of."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.10g}ms"
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.10g}{unit}"
    return f"{seconds:.12g}s"


def check_bounds(seconds: float, low: float, high: float) -> None:
    """Raise an error if a duration is out of its bounds.

    :raises ValueError: in that case; the message is one line.
    """
    if not low <= seconds <= high:
        raise ValueError(
            f"must be between {format_duration(low)} and {format_duration(high)}, "
            f"not {format_duration(seconds)}"
        )


def age(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as ``12s``, ``5m``, ``3h`` or ``2d``."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit]:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{max(0, int(seconds))}s"
