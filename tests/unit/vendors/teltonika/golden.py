"""Frames with their content field by field.

``doc`` in a name: an example of the Teltonika wiki, "Codec"; ``capture``: sent by a
device; ``made``: written for a case that the others lack. The expected fields were read from
the bytes by hand.
"""

from __future__ import annotations

from attrs import field, frozen

from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, Codec, Record

#: The device in the examples of the documentation, and its login.
IMEI = "356307042441013"
LOGIN = bytes.fromhex("000F 333536333037303432343431303133")


@frozen(eq=False)
class Golden:
    """A frame and its content."""

    name: str
    frame: bytes = field(repr=False)
    codec: Codec = field(repr=False)
    records: tuple[Record, ...] = field(repr=False)

    @property
    def data(self) -> bytes:
        """Data of the frame: codec id to second count."""
        return self.frame[8:-4]


FIVE_ELEMENTS = Golden(
    "doc-8-five-elements",
    bytes.fromhex(
        "00000000 00000036 08 01"
        "0000016B40D8EA30 01 00000000 00000000 0000 0000 00 0000"
        "01 05 02 1503 0101 01 425E0F 01 F10000601A 01 4E0000000000000000"
        "01 0000C7CF"
    ),
    CODEC_8,
    (
        Record(
            timestamp=1_560_161_086_000,
            priority=1,
            longitude=0,
            latitude=0,
            altitude=0,
            angle=0,
            satellites=0,
            speed=0,
            event=1,
            elements=((21, 1, 3), (1, 1, 1), (66, 2, 24_079), (241, 4, 24_602), (78, 8, 0)),
        ),
    ),
)

NARROW_ELEMENTS = Golden(
    "doc-8-narrow-elements",
    bytes.fromhex(
        "00000000 00000028 08 01"
        "0000016B40D9AD80 01 00000000 00000000 0000 0000 00 0000"
        "01 03 02 1503 0101 01 425E10 00 00"
        "01 0000F22A"
    ),
    CODEC_8,
    (
        Record(
            timestamp=1_560_161_136_000,
            priority=1,
            longitude=0,
            latitude=0,
            altitude=0,
            angle=0,
            satellites=0,
            speed=0,
            event=1,
            elements=((21, 1, 3), (1, 1, 1), (66, 2, 24_080)),
        ),
    ),
)

TWO_RECORDS = Golden(
    "doc-8-two-records",
    bytes.fromhex(
        "00000000 00000043 08 02"
        "0000016B40D57B48 01 00000000 00000000 0000 0000 00 0000"
        "01 01 01 0100 00 00 00"
        "0000016B40D5C198 01 00000000 00000000 0000 0000 00 0000"
        "01 01 01 0101 00 00 00"
        "02 0000252C"
    ),
    CODEC_8,
    (
        Record(1_560_160_861_000, 1, 0, 0, 0, 0, 0, 0, 1, ((1, 1, 0),)),
        Record(1_560_160_879_000, 1, 0, 0, 0, 0, 0, 0, 1, ((1, 1, 1),)),
    ),
)

DRIVING = Golden(
    "capture-8-driving",
    bytes.fromhex(
        "00000000 0000004C 08 01"
        "0000016818D50058 00 09C28D9F 1CB3757A 00BE 00C6 0F 0053"
        "00 0F 06 F001 1503 C800 0101 1D00 FC00"
        "07 423799 180053 CDF80D CE426F 430F88 190BB8 560BB8"
        "02 F100005AA1 10002887E0 00"
        "01 0000EE8D"
    ),
    CODEC_8,
    (
        Record(
            timestamp=1_546_604_839_000,
            priority=0,
            longitude=163_745_183,
            latitude=481_523_066,
            altitude=190,
            angle=198,
            satellites=15,
            speed=83,
            event=0,
            elements=(
                (240, 1, 1),
                (21, 1, 3),
                (200, 1, 0),
                (1, 1, 1),
                (29, 1, 0),
                (252, 1, 0),
                (66, 2, 14_233),
                (24, 2, 83),
                (205, 2, 63_501),
                (206, 2, 17_007),
                (67, 2, 3_976),
                (25, 2, 3_000),
                (86, 2, 3_000),
                (241, 4, 23_201),
                (16, 4, 2_656_224),
            ),
        ),
    ),
)

BELOW_THE_SEA = Golden(
    "capture-8-below-the-sea",
    bytes.fromhex(
        "00000000 00000035 08 01"
        "0000014F8E016420 00 2141BBAF 0F4E96A7 FFFA 0000 12 0000"
        "00 06 02 0100 4703 02 42669C 920000 02 C700000000 9100000000 00"
        "01 00002DF3"
    ),
    CODEC_8,
    (
        Record(
            timestamp=1_441_196_500_000,
            priority=0,
            longitude=557_956_015,
            latitude=256_808_615,
            altitude=-6,
            angle=0,
            satellites=18,
            speed=0,
            event=0,
            elements=(
                (1, 1, 0),
                (71, 1, 3),
                (66, 2, 26_268),
                (146, 2, 0),
                (199, 4, 0),
                (145, 4, 0),
            ),
        ),
    ),
)

NEWEST_FIRST = Golden(
    "capture-8-newest-first-without-fix",
    bytes.fromhex(
        "00000000 000000E7 08 03"
        "0000018293D62060 00 0DE1F6A6 2159767E 0000 0000 00 0000"
        "00 0B 07 4504 F000 5004 1500 C801 EF00 4F63 03 423200 430003 440000"
        "01 F100006019 00"
        "0000018291B0C790 00 0DE1F6A6 2159767E 006E 0144 07 0000"
        "EF 12 07 4503 F000 5005 1505 C800 EF00 4F02"
        "07 B5000E B6000B 423324 180000 CE00DC 430011 440000"
        "04 C700000007 F100006019 CD0003C777 6300EA4E2E 00"
        "0000018291AFF0B8 00 0DE1F91F 21597405 006F 00F6 13 0008"
        "00 12 07 4503 F001 5005 1504 C800 EF01 4F02"
        "07 B50009 B60005 4236C1 180008 CE00DC 43003F 440000"
        "04 C700000003 F100006019 CD0003C777 6300EA4E27 00"
        "03 0000A48D"
    ),
    CODEC_8,
    (
        Record(
            timestamp=1_660_337_660_000,
            priority=0,
            longitude=232_912_550,
            latitude=559_511_166,
            altitude=0,
            angle=0,
            satellites=0,
            speed=0,
            event=0,
            elements=(
                *((69, 1, 4), (240, 1, 0), (80, 1, 4), (21, 1, 0)),
                *((200, 1, 1), (239, 1, 0), (79, 1, 99)),
                *((66, 2, 12_800), (67, 2, 3), (68, 2, 0)),
                (241, 4, 24_601),
            ),
        ),
        Record(
            timestamp=1_660_301_658_000,
            priority=0,
            longitude=232_912_550,
            latitude=559_511_166,
            altitude=110,
            angle=324,
            satellites=7,
            speed=0,
            event=239,
            elements=(
                *((69, 1, 3), (240, 1, 0), (80, 1, 5), (21, 1, 5)),
                *((200, 1, 0), (239, 1, 0), (79, 1, 2)),
                *((181, 2, 14), (182, 2, 11), (66, 2, 13_092), (24, 2, 0)),
                *((206, 2, 220), (67, 2, 17), (68, 2, 0)),
                *((199, 4, 7), (241, 4, 24_601), (205, 4, 247_671), (99, 4, 15_355_438)),
            ),
        ),
        Record(
            timestamp=1_660_301_603_000,
            priority=0,
            longitude=232_913_183,
            latitude=559_510_533,
            altitude=111,
            angle=246,
            satellites=19,
            speed=8,
            event=0,
            elements=(
                *((69, 1, 3), (240, 1, 1), (80, 1, 5), (21, 1, 4)),
                *((200, 1, 0), (239, 1, 1), (79, 1, 2)),
                *((181, 2, 9), (182, 2, 5), (66, 2, 14_017), (24, 2, 8)),
                *((206, 2, 220), (67, 2, 63), (68, 2, 0)),
                *((199, 4, 3), (241, 4, 24_601), (205, 4, 247_671), (99, 4, 15_355_431)),
            ),
        ),
    ),
)

SOUTH_WEST = Golden(
    "made-8-south-west",
    bytes.fromhex(
        "00000000 0000004D 08 02"
        "0000018E41FBBA00 00 DD33ACC0 EB5FE4F8 0019 010E 0B 0040"
        "00 03 02 EF01 F001 01 423200 00 00"
        "0000018E42004DE0 00 DD33ACC0 EB5FE4F8 0019 0000 00 0000"
        "EF 03 02 EF00 F000 01 423142 00 00"
        "02 0000AA43"
    ),
    CODEC_8,
    (
        Record(
            timestamp=1_710_504_000_000,
            priority=0,
            longitude=-583_816_000,
            latitude=-346_037_000,
            altitude=25,
            angle=270,
            satellites=11,
            speed=64,
            event=0,
            elements=((239, 1, 1), (240, 1, 1), (66, 2, 12_800)),
        ),
        Record(
            timestamp=1_710_504_300_000,
            priority=0,
            longitude=-583_816_000,
            latitude=-346_037_000,
            altitude=25,
            angle=0,
            satellites=0,
            speed=0,
            event=239,
            elements=((239, 1, 0), (240, 1, 0), (66, 2, 12_610)),
        ),
    ),
)

SMALLEST = Golden(
    "made-8-smallest",
    bytes.fromhex(
        "00000000 00000021 08 01"
        "0000018E4204E1C0 00 DD33ACC0 EB5FE4F8 0019 0000 00 0000"
        "00 00 00 00 00 00"
        "01 0000B01E"
    ),
    CODEC_8,
    (Record(1_710_504_600_000, 0, -583_816_000, -346_037_000, 25, 0, 0, 0, 0),),
)

EXTENDED = Golden(
    "doc-8e-all-widths",
    bytes.fromhex(
        "00000000 0000004A 8E 01"
        "0000016B412CEE00 01 00000000 00000000 0000 0000 00 0000"
        "0001 0005 0001 000101 0001 0011001D 0001 0010015E2C88"
        "0002 000B000000003544C87A 000E000000001DD7E06A 0000"
        "01 00002994"
    ),
    CODEC_8E,
    (
        Record(
            timestamp=1_560_166_592_000,
            priority=1,
            longitude=0,
            latitude=0,
            altitude=0,
            angle=0,
            satellites=0,
            speed=0,
            event=1,
            elements=(
                (1, 1, 1),
                (17, 2, 29),
                (16, 4, 22_949_000),
                (11, 8, 893_700_218),
                (14, 8, 500_686_954),
            ),
        ),
    ),
)

#: Two beacons: 45 bytes that Tracker does not interpret.
BEACONS = bytes.fromhex(
    "1121 3102030405060708090A0B0C0D0E0F10 4545010ABC21 2102030405060708090A0B0C0D0E0F10 020B010AAD"
)

BEACON_DATA = Golden(
    "doc-8e-beacon-data",
    bytes.fromhex(
        "00000000 000000A9 8E 02"
        "0000017357633410 00 0F0DC39B 2095964A 00AC 00F8 0B 0000"
        "0000 000B 0005 00F001 001504 00C800 004501 007156"
        "0005 00B50005 00B60004 00180000 00430FE0 0044011B"
        "0001 00F10000601B 0000 0000"
        "0000017357633BE1 00 0F0DC39B 2095964A 00AC 00F8 0B 0000"
        "0181 0001 0000 0000 0000 0000 0001 0181 002D"
    )
    + BEACONS
    + bytes.fromhex("02 0000BF30"),
    CODEC_8E,
    (
        Record(
            timestamp=1_594_898_986_000,
            priority=0,
            longitude=252_560_283,
            latitude=546_674_250,
            altitude=172,
            angle=248,
            satellites=11,
            speed=0,
            event=0,
            elements=(
                *((240, 1, 1), (21, 1, 4), (200, 1, 0), (69, 1, 1), (113, 1, 86)),
                *((181, 2, 5), (182, 2, 4), (24, 2, 0), (67, 2, 4_064), (68, 2, 283)),
                (241, 4, 24_603),
            ),
        ),
        Record(
            timestamp=1_594_898_988_001,
            priority=0,
            longitude=252_560_283,
            latitude=546_674_250,
            altitude=172,
            angle=248,
            satellites=11,
            speed=0,
            event=385,
            variable=((385, BEACONS),),
        ),
    ),
)

PANIC = Golden(
    "made-8e-panic",
    bytes.fromhex(
        "00000000 0000006D 8E 01"
        "0000018FD2EBBAD2 02 0F115E5E 209898FE 0070 002D 0E 0057"
        "00EC 000E 0004 00EC01 00EF01 00F001 0020F6"
        "0005 0011FF9C 00120032 001303E8 0019FB5D 00423660"
        "0002 0010015E2C88 0048FFFFFF9C 0001 004E01000B00791C1793"
        "0002 014B0000 01080006414243313233"
        "01 0000290D"
    ),
    CODEC_8E,
    (
        Record(
            timestamp=1_717_230_615_250,
            priority=2,
            longitude=252_796_510,
            latitude=546_871_550,
            altitude=112,
            angle=45,
            satellites=14,
            speed=87,
            event=236,
            elements=(
                *((236, 1, 1), (239, 1, 1), (240, 1, 1), (32, 1, 0xF6)),
                *((17, 2, 0xFF9C), (18, 2, 50), (19, 2, 1_000), (25, 2, 0xFB5D)),
                (66, 2, 13_920),
                *((16, 4, 22_949_000), (72, 4, 0xFFFFFF9C)),
                (78, 8, 0x01000B00791C1793),
            ),
            variable=((331, b""), (264, b"ABC123")),
        ),
    ),
)

GOLDEN = (
    FIVE_ELEMENTS,
    NARROW_ELEMENTS,
    TWO_RECORDS,
    DRIVING,
    BELOW_THE_SEA,
    NEWEST_FIRST,
    SOUTH_WEST,
    SMALLEST,
    EXTENDED,
    BEACON_DATA,
    PANIC,
)

#: A typical stream: a ping, the login, a ping, the smallest frame, and a ping.
STREAM = b"\xff" + LOGIN + b"\xff" + SMALLEST.frame + b"\xff"
