"""Frames of Codec 8 with a fifth group of elements in each record, with their content."""

from __future__ import annotations

from tests.unit.vendors.teltonika.golden import Golden
from tracker.vendors.teltonika.avl import CODEC_8_FIVE_GROUPS, Record

#: The fifth group of each record is empty. The coordinates are not those of the capture.
NO_ELEMENTS = Golden(
    "capture-8-five-groups",
    bytes.fromhex(
        "00000000 00000158 08 0B"
        "0000015D4B4DC07A 00 0F147940 209A8EC0 020E 0000 12 0000 00 00 00 00 00 00 00"
        "0000015D4B4CD5E8 00 0F147940 209A8EC0 020E 0000 12 0000 00 00 00 00 00 00 00"
        "0000015D4B4BEB88 00 0F147940 209A8EC0 020E 0000 13 0000 00 00 00 00 00 00 00"
        "0000015D4B4B0128 00 0F147940 209A8EC0 020E 0000 12 0000 00 00 00 00 00 00 00"
        "0000015D4B4A16C8 00 0F147940 209A8EC0 020F 0000 11 0000 00 00 00 00 00 00 00"
        "0000015D4B492C68 00 0F147940 209A8EC0 020F 0000 11 0000 00 00 00 00 00 00 00"
        "0000015D4B484208 00 0F147940 209A8EC0 020F 0000 12 0000 00 00 00 00 00 00 00"
        "0000015D4B4757A8 00 0F147940 209A8EC0 020F 0000 0F 0000 00 00 00 00 00 00 00"
        "0000015D4B466D48 00 0F147940 209A8EC0 020F 0000 10 0000 00 00 00 00 00 00 00"
        "0000015D4B4582E8 00 0F147940 209A8EC0 020F 0000 11 0000 00 00 00 00 00 00 00"
        "0000015D4B449888 00 0F147940 209A8EC0 020F 0000 11 0000 00 00 00 00 00 00 00"
        "0B 00003EB0"
    ),
    CODEC_8_FIVE_GROUPS,
    tuple(
        Record(timestamp, 0, 253_000_000, 547_000_000, altitude, 0, satellites, 0, 0)
        for timestamp, altitude, satellites in (
            (1_500_206_973_050, 526, 18),
            (1_500_206_913_000, 526, 18),
            (1_500_206_853_000, 526, 19),
            (1_500_206_793_000, 526, 18),
            (1_500_206_733_000, 527, 17),
            (1_500_206_673_000, 527, 17),
            (1_500_206_613_000, 527, 18),
            (1_500_206_553_000, 527, 15),
            (1_500_206_493_000, 527, 16),
            (1_500_206_433_000, 527, 17),
            (1_500_206_373_000, 527, 17),
        )
    ),
)

WIDE = bytes.fromhex("00112233445566778899AABBCCDDEEFF")

#: The first record has elements in its first and fifth group, the second one has none.
WIDE_ELEMENTS = Golden(
    "made-8-five-groups",
    bytes.fromhex(
        "00000000 00000067 08 02"
        "0000018E4204E1C0 01 DD33ACC0 EB5FE4F8 0019 010E 0B 0040"
        "CB 04 02 EF01 F001 00 00 00"
        "02 CB 00112233445566778899AABBCCDDEEFF CC 00000000000000000000000000000000"
        "0000018E4204E5A8 00 DD33ACC0 EB5FE4F8 0019 010E 0B 0000 00 00 00 00 00 00 00"
        "02 0000B3A5"
    ),
    CODEC_8_FIVE_GROUPS,
    (
        Record(
            timestamp=1_710_504_600_000,
            priority=1,
            longitude=-583_816_000,
            latitude=-346_037_000,
            altitude=25,
            angle=270,
            satellites=11,
            speed=64,
            event=203,
            elements=((239, 1, 1), (240, 1, 1), (203, 16, WIDE), (204, 16, bytes(16))),
        ),
        Record(
            timestamp=1_710_504_601_000,
            priority=0,
            longitude=-583_816_000,
            latitude=-346_037_000,
            altitude=25,
            angle=270,
            satellites=11,
            speed=0,
            event=0,
        ),
    ),
)

GOLDEN_FIVE_GROUPS = (NO_ELEMENTS, WIDE_ELEMENTS)
