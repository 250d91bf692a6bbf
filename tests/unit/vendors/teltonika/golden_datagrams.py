"""Datagrams with their content field by field; names have the prefixes of ``golden``."""

from __future__ import annotations

from attrs import field, frozen

from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, CODEC_16, Codec, Record


@frozen(eq=False)
class GoldenDatagram:
    """A datagram, its content and its ACK."""

    name: str
    datagram: bytes = field(repr=False)
    packet_id: int
    avl_packet_id: int
    imei: str
    codec: Codec = field(repr=False)
    record: Record = field(repr=False)
    ack: bytes = field(repr=False)

    @property
    def data(self) -> bytes:
        """Data of the datagram: codec id to second count."""
        return self.datagram[23:]


OVER_8 = GoldenDatagram(
    "doc-8",
    bytes.fromhex(
        "003D CAFE 01 05 000F 333532303933303836343033363535 08 01"
        "0000016B4F815B30 01 00000000 00000000 0000 0000 00 0000"
        "01 03 02 1503 0101 01 425DBC 00 00"
        "01"
    ),
    0xCAFE,
    5,
    "352093086403655",
    CODEC_8,
    Record(
        timestamp=1_560_407_006_000,
        priority=1,
        longitude=0,
        latitude=0,
        altitude=0,
        angle=0,
        satellites=0,
        speed=0,
        event=1,
        elements=((21, 1, 3), (1, 1, 1), (66, 2, 23_996)),
    ),
    bytes.fromhex("0005 CAFE 01 05 01"),
)

OVER_8E = GoldenDatagram(
    "doc-8e",
    bytes.fromhex(
        "005F CAFE 01 07 000F 333532303933303836343033363535 8E 01"
        "0000016B4F831C68 01 00000000 00000000 0000 0000 00 0000"
        "0001 0005 0001 000101 0001 0011009D 0001 0010015E2C88"
        "0002 000B000000003544C87A 000E000000001DD7E06A 0000"
        "01"
    ),
    0xCAFE,
    7,
    "352093086403655",
    CODEC_8E,
    Record(
        timestamp=1_560_407_121_000,
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
            (17, 2, 157),
            (16, 4, 22_949_000),
            (11, 8, 893_700_218),
            (14, 8, 500_686_954),
        ),
    ),
    bytes.fromhex("0005 CAFE 01 07 01"),
)

UNPLUGGED = GoldenDatagram(
    "capture-8e-unplugged",
    bytes.fromhex(
        "0086 CAFE 01 01 000F 333532303933303835363938323036 8E 01"
        "00000167EFA91980 02 00000000 00000000 0000 0000 00 0000"
        "00FC 0013 0008 00EF00 00F000 001505 00C800 004502 000100 007100 00FC00"
        "0009 00B50000 00B60000 00423056 00CD432A 00CE6064 00110009 0012FF22 001303D1 000F0000"
        "0002 00F1000059D9 001000000000 0000 0000"
        "01"
    ),
    0xCAFE,
    1,
    "352093085698206",
    CODEC_8E,
    Record(
        timestamp=1_545_914_096_000,
        priority=2,
        longitude=0,
        latitude=0,
        altitude=0,
        angle=0,
        satellites=0,
        speed=0,
        event=252,
        elements=(
            *((239, 1, 0), (240, 1, 0), (21, 1, 5), (200, 1, 0)),
            *((69, 1, 2), (1, 1, 0), (113, 1, 0), (252, 1, 0)),
            *((181, 2, 0), (182, 2, 0), (66, 2, 12_374), (205, 2, 17_194), (206, 2, 24_676)),
            *((17, 2, 9), (18, 2, 0xFF22), (19, 2, 977), (15, 2, 0)),
            *((241, 4, 23_001), (16, 4, 0)),
        ),
    ),
    bytes.fromhex("0005 CAFE 01 01 01"),
)

OVER_16 = GoldenDatagram(
    "doc-16-repaired",
    bytes.fromhex(
        "0048 CAFE 01 07 000F 333532303934303835323331353932 10 01"
        "0000015117E40FE8 00 00000000 00000000 0000 0000 00 0000"
        "00EF 05 05 04 000100 000300 00B400 00EF01 01 0042111A 00 00"
        "01"
    ),
    0xCAFE,
    7,
    "352094085231592",
    CODEC_16,
    Record(
        timestamp=1_447_804_801_000,
        priority=0,
        longitude=0,
        latitude=0,
        altitude=0,
        angle=0,
        satellites=0,
        speed=0,
        event=239,
        elements=((1, 1, 0), (3, 1, 0), (180, 1, 0), (239, 1, 1), (66, 2, 4_378)),
        generation=5,
    ),
    bytes.fromhex("0005 CAFE 01 07 01"),
)

#: Datagrams with a message; Teltonika documents none.
MESSAGE_12 = bytes.fromhex(
    "001F CAFE 01 05 000F 333530303030303030303030303037 0C 01 06 00000002 6869 01"
)
MESSAGE_15 = bytes.fromhex(
    "0030 CAFE 01 05 000F 333530303030303030303030303037"
    "0F 01 0B 00000013 654B65A4 0350000000000307 48656C6C6F210A 01"
)

GOLDEN_DATAGRAMS = (OVER_8, OVER_8E, UNPLUGGED, OVER_16)
