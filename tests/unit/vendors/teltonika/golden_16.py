"""Frames of Codec 16 with their content field by field."""

from __future__ import annotations

from tests.unit.vendors.teltonika.golden import Golden
from tracker.vendors.teltonika.avl import CODEC_16, Record

ON_CHANGE = Golden(
    "doc-16-on-change",
    bytes.fromhex(
        "00000000 0000005F 10 02"
        "0000016BDBC78330 00 00000000 00000000 0000 0000 00 0000"
        "000B 05 04 02 000100 000300 02 000B0027 0042563A 00 00"
        "0000016BDBC78718 00 00000000 00000000 0000 0000 00 0000"
        "000B 05 04 02 000100 000300 02 000B0026 0042563A 00 00"
        "02 00005FB3"
    ),
    CODEC_16,
    (
        Record(
            timestamp=1_562_760_414_000,
            priority=0,
            longitude=0,
            latitude=0,
            altitude=0,
            angle=0,
            satellites=0,
            speed=0,
            event=11,
            elements=((1, 1, 0), (3, 1, 0), (11, 2, 39), (66, 2, 22_074)),
            generation=5,
        ),
        Record(
            timestamp=1_562_760_415_000,
            priority=0,
            longitude=0,
            latitude=0,
            altitude=0,
            angle=0,
            satellites=0,
            speed=0,
            event=11,
            elements=((1, 1, 0), (3, 1, 0), (11, 2, 38), (66, 2, 22_074)),
            generation=5,
        ),
    ),
)

WIDE_IDS = Golden(
    "capture-16-wide-ids",
    bytes.fromhex(
        "00000000 0000009F 10 01"
        "00000164D8554018 00 D5E3B744 EC11C762 023B 011A 06 0000"
        "0000 07 20"
        "0A 010000 010500 010600 010D00 010E00 010F00 011600 011700 011800 011F00"
        "13 01010000 01070000 01080000 01090000 010A0000 010B0000 010C0000"
        "01100000 01110000 01120000 01130000 01140000 01150000"
        "01190000 011A0000 011B0000 011C0000 011D0000 011E0000"
        "03 010200000000 010300000000 010400000000 00"
        "01 00000D3B"
    ),
    CODEC_16,
    (
        Record(
            timestamp=1_532_637_823_000,
            priority=0,
            longitude=-706_496_700,
            latitude=-334_379_166,
            altitude=571,
            angle=282,
            satellites=6,
            speed=0,
            event=0,
            elements=(
                *((256, 1, 0), (261, 1, 0), (262, 1, 0), (269, 1, 0), (270, 1, 0)),
                *((271, 1, 0), (278, 1, 0), (279, 1, 0), (280, 1, 0), (287, 1, 0)),
                *((257, 2, 0), (263, 2, 0), (264, 2, 0), (265, 2, 0), (266, 2, 0)),
                *((267, 2, 0), (268, 2, 0), (272, 2, 0), (273, 2, 0), (274, 2, 0)),
                *((275, 2, 0), (276, 2, 0), (277, 2, 0), (281, 2, 0), (282, 2, 0)),
                *((283, 2, 0), (284, 2, 0), (285, 2, 0), (286, 2, 0)),
                *((258, 4, 0), (259, 4, 0), (260, 4, 0)),
            ),
            generation=7,
        ),
    ),
)

GOLDEN_16 = (ON_CHANGE, WIDE_IDS)
