"""Conversion of ASCII frames to positions and stream entries.

A record without a fix, and a message, has the send time: that of its event. The device's clock may
run in a time zone of its own, which only the settings know. The payload of a report is the same
however often, and under whichever header, the device sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from tracker.position import (
    MAX_TIMESTAMP_MS,
    MESSAGE,
    Entry,
    Position,
    has_fix,
    iso_milliseconds,
    truncation,
)
from tracker.vendors.queclink.extended import extended_attributes
from tracker.vendors.queclink.groups import (
    Group,
    milliseconds,
    read_empty_group,
    read_groups,
)
from tracker.vendors.queclink.layouts import (
    EVENT_NAMES,
    LAST_FIX,
    NUMBER,
    after_groups,
    before_groups,
    group_index,
    message_attributes,
)
from tracker.vendors.queclink.models import MODELS, device_type
from tracker.vendors.queclink.text import ACKNOWLEDGEMENT, ASCII, BUFFERED, RESPONSE, TextFrame

#: Attribute with the fields between name and tail, if one of them has no name.
RAW: Final = "raw"
#: Attribute with the number of a position in its report, from 1, if the report has several.
PART: Final = "part"

#: Notices about a report.
MISSING: Final = "report announces more positions than it has"
TOO_MANY: Final = "report has more positions than --records: the last ones are not read"

_PANIC: Final = 2
_SOS: Final = "GTSOS"
_EXTRAS: Final[Mapping[tuple[str, bool | None], str]] = {
    (header, fix): "".join(
        (
            f'{{"header":"{header}","buffered":{"true" if header == BUFFERED else "false"}',
            "" if fix is None else f',"fix":{"true" if fix else "false"}',
            "}",
        )
    )
    for header in (RESPONSE, BUFFERED, ACKNOWLEDGEMENT)
    for fix in (None, False, True)
}


class Records(NamedTuple):
    """The entries of a frame."""

    entries: list[Entry]
    """In the order of the frame; none for a heartbeat."""
    notice: str = ""
    """An oddity of the frame, in one line; empty without one."""
    is_truncated: bool = False
    """True if the frame is a message that was too long to be stored whole."""


def text_records(
    frame: TextFrame, now: float, zone: int, *, max_records: int, message_bytes: int
) -> Records:
    """Return the entries of a frame.

    :param now: seconds since 1970 (UTC), for a frame without a valid time.
    :param zone: offset of the devices' clocks from UTC, in seconds.
    :param max_records: maximum number of positions of a frame; further ones are not read.
    :param message_bytes: limit in bytes of a message; a longer one is truncated, and its length
        and SHA-256 are added.
    """
    if frame.is_heartbeat:
        return Records([])
    sent = milliseconds(frame.send_time) if frame.send_time else None
    if sent is not None and not 0 <= sent - zone * 1000 <= MAX_TIMESTAMP_MS:
        sent = None
    event_ms = int(now * 1000) if sent is None else sent - zone * 1000
    groups = read_groups(frame, max_records)
    if not any(group.longitude is not None for group in groups):
        return _message(frame, event_ms, message_bytes)
    before, after, is_complete = _report_attributes(frame, groups)
    announced = before.pop(NUMBER, len(groups))
    base, priority = _base(frame), _PANIC if frame.report == _SOS else 0
    entries = []
    for number, group in enumerate(groups, 1):
        attributes = {**base, **before}
        if len(groups) > 1:
            attributes[PART] = number
        attributes.update(_group_attributes(group))
        if number == len(groups):
            attributes.update(after)
            if not is_complete:
                attributes[RAW] = ",".join(frame.body)
        fix = has_fix(group.latitude, group.longitude, None, group.accuracy != 0)
        timestamp_ms = group.time_ms if fix and group.time_ms is not None else event_ms
        if not fix and group.time_ms is not None:
            attributes[LAST_FIX] = iso_milliseconds(group.time_ms)
        made = Position(
            device_id=frame.device_id,
            timestamp=iso_milliseconds(timestamp_ms),
            latitude=group.latitude,
            longitude=group.longitude,
            altitude=_rounded(group.altitude),
            angle=_rounded(group.azimuth),
            speed=_rounded(group.speed),
            satellites=group.satellites,
            priority=priority,
            event=0,
            attributes=attributes,
        )
        entries.append(made.to_entry(ASCII, _EXTRAS[frame.header, fix]))
    if len(frame.places) > max_records:
        return Records(entries, TOO_MANY)
    return Records(entries, MISSING if announced > len(groups) else "")


def _base(frame: TextFrame) -> dict[str, Any]:
    """Return the attributes of the head and the tail, which all reports have."""
    attributes: dict[str, Any] = {"report": frame.report}
    name = EVENT_NAMES.get(frame.report)
    if frame.header == ACKNOWLEDGEMENT:
        name = "command_answer"
    kind = device_type(frame.version)
    for key, value in (
        ("event_name", name),
        ("version", frame.version),
        ("model", MODELS.get(kind)),
        ("vin", frame.vin),
        ("device_name", frame.name),
        ("send_time", frame.send_time),
        ("count", frame.count_number),
    ):
        if value:
            attributes[key] = value
    return attributes


def _report_attributes(
    frame: TextFrame, groups: list[Group]
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return the attributes before and after the groups, and False if a field has no name."""
    body = frame.body
    first, rest = body[: groups[0].start], body[groups[-1].end :]
    before = before_groups(frame.report, first)
    is_complete = before is not None or not any(first)
    before = before or {}
    after: dict[str, Any] | None
    if frame.report == "GTERI":
        after, has_names = extended_attributes(frame.version, before.get("eri_mask", ""), rest)
        is_complete = is_complete and has_names
    else:
        after = after_groups(frame, rest)
        is_complete = is_complete and (after is not None or not any(rest))
    is_complete = is_complete and all(group.is_complete for group in groups)
    # Fields between two groups belong to neither.
    is_complete = is_complete and all(one.end == other.start for one, other in pairwise(groups))
    return before, after or {}, is_complete


def _group_attributes(group: Group) -> dict[str, Any]:
    attributes = dict(group.attributes)
    if group.accuracy is not None:
        attributes["accuracy"] = group.accuracy
    # The payload's own fields are integers.
    for name, value in (("speed_kmh", group.speed), ("altitude_m", group.altitude)):
        if value is not None and not value.is_integer():
            attributes[name] = value
    return attributes


def _message(frame: TextFrame, timestamp_ms: int, message_bytes: int) -> Records:
    """Return the entry of a frame without a place."""
    attributes = _base(frame)
    index = group_index(frame.report, frame.body)
    group = None if index is None else read_empty_group(frame, index)
    if group is not None:
        before, after, _ = _report_attributes(frame, [group])
        before.pop(NUMBER, None)
        attributes |= {**before, **group.attributes, **after}
    else:
        attributes |= message_attributes(frame)
    # Without the header, which differs between a report and its repetition.
    text = frame.text.partition(":")[2]
    content = text.encode("utf-8", errors="replace")
    is_truncated = len(content) > message_bytes
    if is_truncated:
        attributes |= truncation(content)
        text = content[:message_bytes].decode("utf-8", errors="ignore")
    attributes[MESSAGE] = text
    made = Position.without_place(
        frame.device_id, timestamp_ms, attributes, priority=_PANIC if frame.report == _SOS else 0
    )
    entry = made.to_entry(ASCII, _EXTRAS[frame.header, None])
    return Records([entry], is_truncated=is_truncated)


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
