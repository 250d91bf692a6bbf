"""The optional field ``extra`` of a stream entry: facts about a record that its digest omits.

The field is a JSON object. A device that repeats a record may say something else here (another
arrival, another serial), so the digest covers the payload alone. An entry without the field is
complete, and readers ignore the names that they do not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from json import dumps
from typing import Any, Final

from attrs import field, frozen

from tracker.clock import CLOCK_ERRORS, ClockRule
from tracker.position import BadEntry, Position, is_timestamp
from tracker.untrusted import is_unicode, parse_json

#: Element IDs by the size of their values on the wire in bytes: ``{"1": [239, 240], "2": [66]}``.
#: Values of variable length are not listed.
WIDTHS: Final = "widths"
#: False if the coordinates are not those of the record; true if they are, from a vendor that
#: reports no number of satellites.
FIX: Final = "fix"
#: Time of the first arrival, which everything that moves an entry keeps; ISO 8601 UTC with
#: milliseconds and Z.
ARRIVED: Final = "arrived"
#: Kind of an error of the device's clock, one of :data:`tracker.clock.CLOCK_ERRORS`.
CLOCK: Final = "clock"

#: Maximum number of characters of the field.
MAX_EXTRA: Final = 1 << 20

#: Texts of this length or less are kept parsed. A fleet has few different ones.
_MAX_CACHED: Final = 1024
_MAX_WIDTH: Final = 255


@frozen
class Extra:
    """The content of the field ``extra``."""

    text: str = ""
    """The JSON object; empty if the entry does not have the field."""
    widths: Mapping[int, int] | None = field(default=None, repr=False)
    """Element ID → size of its value on the wire in bytes; None if the entry does not say."""
    fix: bool | None = None
    """See :data:`FIX`; None if the number of satellites decides."""
    arrived: str | None = None
    """See :data:`ARRIVED`; None: the entry was never moved."""
    clock: str | None = None
    """See :data:`CLOCK`; None if the time of the record is right."""

    def marked(self, name: str, value: bool | str) -> Extra:
        """Return a copy with one more fact, which replaces an earlier one of that name."""
        if len(self.text) <= _MAX_CACHED:
            return _cached_mark(self.text, name, value)
        return _marked(self.text, name, value)


#: The content of an entry without the field.
NO_EXTRA: Final = Extra()


def judged(extra: Extra, position: Position, arrival: str, clocks: ClockRule) -> Extra:
    """Return the field with the marks of a record that is not a place.

    :param arrival: time at which the record first arrived.
    :param clocks: the rule that the time of the record must meet.
    """
    if not position.has_fix(extra.fix) and extra.fix is not False and not position.is_message:
        extra = extra.marked(FIX, False)
    error = clocks.error(position.timestamp, arrival)
    return extra if error is None else extra.marked(CLOCK, error)


def widths_json(widths: Iterable[tuple[int | str, int]]) -> str:
    """Return the JSON object for :data:`WIDTHS`.

    :param widths: (element ID, size of its value in bytes), each ID once, and those of one size
        together, as on the wire.
    """
    text, last = "", -1
    for element_id, width in widths:
        if width == last:
            text = f"{text},{element_id}"
        else:
            text = f'{text}],"{width}":[{element_id}'
            last = width
    return f"{{{text[2:]}]}}" if text else "{}"


def record_extra(widths: Iterable[tuple[int | str, int]], fix: bool | None) -> str:
    """Return the field of a record of a vendor whose elements have widths.

    :param widths: see :func:`widths_json`.
    :param fix: see :data:`FIX`; None if the number of satellites decides.
    """
    mark = "" if fix is None else f',"{FIX}":{"true" if fix else "false"}'
    return f'{{"{WIDTHS}":{widths_json(widths)}{mark}}}'


def read_extra(text: str) -> Extra:
    """Return the content of the field.

    :param text: the value of the field.
    :raises BadEntry: if it is not a JSON object, or one of the facts of this module is malformed.
    """
    return _cached(text) if len(text) <= _MAX_CACHED else _read(text)


def _read(text: str) -> Extra:
    try:
        document = parse_json(text, MAX_EXTRA)
    except ValueError as error:
        raise BadEntry(f"extra is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadEntry("extra is not a JSON object")
    # PostgreSQL's json keeps such a text, and fails at each access to it.
    shown = dumps(document, ensure_ascii=False)
    if "\\u0000" in shown or not is_unicode(shown):
        raise BadEntry("extra has a NUL, or half of a surrogate pair")
    fix, arrived, clock = document.get(FIX), document.get(ARRIVED), document.get(CLOCK)
    if not (fix is None or isinstance(fix, bool)):
        raise BadEntry("extra: fix is neither true nor false")
    if not (arrived is None or is_timestamp(arrived)):
        raise BadEntry("extra: arrived is not of the form 2026-11-22T10:00:00.000Z")
    if not (clock is None or clock in CLOCK_ERRORS):
        raise BadEntry(f"extra: clock is not one of {', '.join(CLOCK_ERRORS)}")
    return Extra(text, read_widths(document.get(WIDTHS)), fix, arrived, clock)


def _marked(text: str, name: str, value: bool | str) -> Extra:
    document = parse_json(text, MAX_EXTRA) if text else {}
    return read_extra(dumps(document | {name: value}, separators=(",", ":")))


_cached: Final = lru_cache(maxsize=4096)(_read)
#: A device that stands in a garage sends hours of records without a fix.
_cached_mark: Final = lru_cache(maxsize=4096)(_marked)


def read_widths(value: Any) -> Mapping[int, int] | None:
    """Return element ID → size of its value in bytes.

    :param value: the parsed value of :data:`WIDTHS`; None if there is none.
    :raises BadEntry: if it is malformed.
    """
    if value is None:
        return None
    try:
        return {
            _small(element_id): _small(int(width), _MAX_WIDTH)
            for width, element_ids in value.items()
            for element_id in element_ids
        }
    except (AttributeError, TypeError, ValueError):
        raise BadEntry(
            'extra: widths is not of the form {"1": [239], "2": [66]}: element IDs by bytes'
        ) from None


def _small(value: Any, most: int = 0xFFFFFFFF) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(value)
    return value
