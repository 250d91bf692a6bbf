"""A captured frame of Codec 7 with its content field by field."""

from __future__ import annotations

from typing import Final

from tracker.vendors.teltonika.codec7 import Codec7Record

FRAME: Final = bytes.fromhex(
    "00000000 00000055 07 04"
    "50AA1432 02 01 F001"
    "50AA17F3 03 1F 42332A4C 4193D68C 008D 00 02 09 01 F001"
    "50AA1B6A 03 1F 423383F5 4193624F 009D 00 00 0A 01 F001"
    "50AA1C23 0F C0 1A 0000552B 04 0164 F400 DD00 F001 01 43100C 01 0500000005"
    "04 00006846"
)
DATA: Final = FRAME[8:-4]

RECORDS: Final = (
    Codec7Record(timestamp=1_447_191_346_000, priority=1, elements=((240, 1, 1),)),
    Codec7Record(
        timestamp=1_447_192_307_000,
        priority=1,
        latitude=44.791306,
        longitude=18.479759,
        altitude=141,
        angle=0,
        speed=2,
        satellites=9,
        elements=((240, 1, 1),),
    ),
    Codec7Record(
        timestamp=1_447_193_194_000,
        priority=1,
        latitude=44.878864,
        longitude=18.423002,
        altitude=157,
        angle=0,
        speed=0,
        satellites=10,
        elements=((240, 1, 1),),
    ),
    Codec7Record(
        timestamp=1_447_193_379_000,
        priority=1,
        gsm_signal=26,
        operator=21_803,
        elements=(
            *((1, 1, 100), (244, 1, 0), (221, 1, 0), (240, 1, 1)),
            (67, 2, 4_108),
            (5, 4, 5),
        ),
    ),
)
