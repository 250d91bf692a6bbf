"""The rule of places in SQL, for rows that were stored without its marks.

:attr:`tracker.interfaces.StoredPosition.is_place` is the rule in Python, which writers apply to
records. Rows of earlier versions lack the marks of the processor, so that readers apply the same
rule to the columns of a row of ``positions`` or ``last_positions``.
"""

from __future__ import annotations

from typing import Final

from tracker.clock import DEFAULT_CLOCKS, ClockRule

_ON_THE_GLOBE: Final = (
    "{row}latitude BETWEEN -90 AND 90 AND {row}longitude BETWEEN -180 AND 180 "
    "AND NOT ({row}latitude = 0 AND {row}longitude = 0)"
)
# A row with "extra" has been judged when it was stored, perhaps with another tolerance.
_POSTGRESQL: Final = f"""coalesce(
    {_ON_THE_GLOBE}
    AND CASE {{row}}extra->>'fix'
        WHEN 'true' THEN true WHEN 'false' THEN false ELSE {{row}}satellites <> 0
    END
    AND CASE WHEN {{row}}extra IS NOT NULL THEN {{row}}extra->>'clock' IS NULL
        ELSE {{row}}ts BETWEEN {{row}}received_at - interval '{{oldest}} seconds'
            AND {{row}}received_at + interval '{{tolerance}} seconds'
    END,
    false)"""
# json_extract raises an error for text that is not JSON.
_SQLITE: Final = f"""coalesce(
    {_ON_THE_GLOBE}
    AND CASE WHEN json_valid({{row}}extra) THEN
        CASE json_extract({{row}}extra, '$.fix') WHEN 1 THEN 1 WHEN 0 THEN 0
            ELSE {{row}}satellites <> 0 END
        AND json_extract({{row}}extra, '$.clock') IS NULL
    ELSE
        {{row}}satellites <> 0
        AND {{row}}ts >= strftime('%Y-%m-%dT%H:%M:%fZ', {{row}}received_at, '-{{oldest}} seconds')
        AND {{row}}ts <= strftime('%Y-%m-%dT%H:%M:%fZ', {{row}}received_at, '{{tolerance}} seconds')
    END,
    0)"""


def postgresql_place(clocks: ClockRule = DEFAULT_CLOCKS, row: str = "") -> str:
    """Return the condition for PostgreSQL that a row is a place; it is never NULL.

    :param clocks: the rule for the times of rows without ``extra``.
    :param row: the prefix of the row's columns, such as ``l.``.
    """
    return _filled(_POSTGRESQL, clocks, row)


def sqlite_place(clocks: ClockRule = DEFAULT_CLOCKS, row: str = "") -> str:
    """Return the condition for SQLite; see :func:`postgresql_place`."""
    return _filled(_SQLITE, clocks, row)


def _filled(condition: str, clocks: ClockRule, row: str) -> str:
    return condition.format(row=row, oldest=clocks.oldest, tolerance=clocks.clock_tolerance)
