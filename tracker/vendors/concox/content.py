"""Contents of frames, by their protocol number.

The same number has other contents on devices of other makers. A content is laid out only if its
length, and what can be checked of its values, agree with the layout; else its bytes are kept as
they are. Bytes after a layout are kept, too.

Sources: GT06 protocol 1.8, Concox protocol 3.1 and JM-VL03 protocol 1.1.2 for the numbers that
they describe; for 0x19, 0x24, 0x2C, 0x2E, 0x31, 0x32, 0xA5 and the wide cells of 0x16 and 0x22 the
public frames in the tests of Traccar, and how its decoder reads them. ``docs/concox.rst`` has a
line for each number.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from tracker.vendors.concox import messages, places
from tracker.vendors.concox.fields import GSM_CELL, IMEI_BYTES, LTE_CELL
from tracker.vendors.concox.frames import Frame
from tracker.vendors.concox.readings import Mismatch, Reader, Reading

LOGIN: Final = 0x01
HEARTBEAT: Final = 0x13
STRING: Final = 0x15
LONG_STRING: Final = 0x21
POSITION: Final = 0x22
VOLTAGE_HEARTBEAT: Final = 0x23
ALARM: Final = 0x26
COMMAND: Final = 0x80
TIME: Final = 0x8A
INFORMATION: Final = 0x94
TRANSPARENT: Final = 0x9B

#: Their answers keep the connection alive.
HEARTBEATS: Final = frozenset((HEARTBEAT, VOLTAGE_HEARTBEAT))
#: May be sent again until they are answered.
ALARMS: Final = frozenset((0x16, 0x19, ALARM, 0x27, 0x32, 0xA4, 0xA5))
#: Texts of the device, among them its answers to commands.
STRINGS: Final = frozenset((STRING, LONG_STRING))

#: Numbers that never have a date or coordinates at their start, so that an IMEI there is their own.
_WITHOUT_DATE: Final = STRINGS | {INFORMATION, TRANSPARENT}

#: Commands, the answers to 0x2A with an address, and 0x2A, which only an address would answer.
_OF_SERVER: Final = frozenset((0x17, 0x2A, COMMAND, 0x81, 0x82, 0x97))

_BOTH: Final[Mapping[int, Reader]] = {
    0x10: places.read_gps_only,
    0x12: places.read_gps_cell,
    HEARTBEAT: messages.read_heartbeat,
    STRING: messages.read_string,
    0x16: places.read_plain_alarm,
    0x18: messages.read_cells(2, 3),
    0x19: places.read_cell_alarm(GSM_CELL),
    LONG_STRING: messages.read_long_string,
    POSITION: places.read_position(GSM_CELL),
    VOLTAGE_HEARTBEAT: messages.read_voltage_heartbeat,
    0x24: messages.read_cells(2, 3),
    ALARM: places.read_mileage_alarm,
    0x27: places.read_fence_alarm(GSM_CELL),
    0x28: messages.read_cells(2, 3),
    0x2C: messages.read_access_points,
    0x2E: messages.read_cells(2, 3),
    TRANSPARENT: messages.read_transparent,
    0xA0: places.read_position(LTE_CELL),
    0xA1: messages.read_cells(4, 8),
    0xA4: places.read_fence_alarm(LTE_CELL),
    0xA5: places.read_cell_alarm(LTE_CELL),
}
#: False (short frame) or True (extended frame) → protocol number → reader of the content. The
#: numbers that are missing have no layout.
READERS: Final[Mapping[bool, Mapping[int, Reader]]] = {
    False: {
        **_BOTH,
        0x31: places.read_sl4x_position,
        0x32: places.read_sl4x_alarm,
        INFORMATION: messages.read_short_information,
    },
    True: {**_BOTH, INFORMATION: messages.read_information},
}


def read_content(frame: Frame, imei: bytes = b"") -> Reading | None:
    """Return the fields of a frame; None if its number has no layout that it agrees with.

    :param imei: the IMEI of the device in packed digits, if it is known. Some devices send it
        where others have the date; such a content has no layout.
    """
    reader = READERS[frame.extended].get(frame.number)
    if reader is None:
        return None
    if imei and frame.number not in _WITHOUT_DATE and imei in frame.content[: IMEI_BYTES + 1]:
        return None
    try:
        return reader(frame.content)
    except (struct.error, IndexError, Mismatch):
        return None


def is_acknowledged(frame: Frame) -> bool:
    """Return True if the server acknowledges a frame that is neither login nor heartbeat.

    Alarms are, and numbers without a layout: a device may send them again until then. Frames with
    a number that the server itself sends are not, nor are frames without content, which are
    acknowledgements themselves.
    """
    number = frame.number
    if number in ALARMS:
        return True
    known = number in READERS[False] or number in READERS[True]
    return not known and number not in _OF_SERVER and len(frame.content) > 0
