"""The checks of last positions: wrong times, and rows that need a repair."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from tracker.durations import format_duration
from tracker.observe.findings import Finding, ok, skipped, warning
from tracker.untrusted import shown
from tracker.wording import counted

#: Number of devices that the finding names.
MAX_NAMED: Final = 5
#: Seconds within which the database must reply.
ROWS_TIMEOUT: Final = 5.0
#: A query without arguments: it returns rows of the number of all devices with a recent error,
#: the ID of a device, and the kind of its error.
CLOCKS: Final = f"""
SELECT count(*) OVER (), device_id, clock_error FROM last_positions
WHERE clock_error_at > {{since}} ORDER BY clock_error_at DESC, device_id LIMIT {MAX_NAMED}
"""  # noqa: S608 - made of constants

#: Maximum number of rows in need of a repair that are counted.
MAX_WRONG: Final = 1000

OLD_SCHEMA: Final = skipped("the tables do not have this column yet")
LATE: Final = skipped(f"no reply from the database within {format_duration(ROWS_TIMEOUT)}")


def judge_clocks(rows: Sequence[tuple[int, str, str]]) -> Finding:
    """Return the finding on the devices that have sent wrong times within the last day.

    :param rows: the rows of :data:`CLOCKS`.
    """
    if not rows:
        return ok("no device has sent a wrong time within the last day")
    count = rows[0][0]
    names = ", ".join(f"{shown(device_id)} ({shown(kind)})" for _, device_id, kind in rows)
    if count > len(rows):
        names += f" and {count - len(rows):,} more"
    first = shlex.quote(shown(rows[0][1]))
    return warning(
        f"{counted(count, 'device')} sent a wrong time within the last day: {names}",
        f"tracker-admin watch {first}  # shows its times; rollover: update its firmware",
    )


def judge_wrong(rows: Sequence[tuple[int]], url: str) -> Finding:
    """Return the finding on last positions that need a repair.

    :param rows: their number, up to :data:`MAX_WRONG`.
    :param url: the URL of the sink without its password.
    """
    ((count,),) = rows
    if not count:
        return ok("all last positions are places, and no last contact is in the future")
    more = " or more" if count == MAX_WRONG else ""
    return warning(
        f"wrong last positions or contacts: {count:,}{more}, stored by an earlier version",
        f"tracker-admin repair --sink {shlex.quote(url)}",
    )
