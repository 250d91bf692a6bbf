"""Frames from protocol documents and public captures, with what they contain.

Sources: GT06 protocol 1.8, Concox protocol 3.1 and JM-VL03 protocol 1.1.2 (documents), and the
public test frames of Traccar's GT06 decoder (captures). All checksums are recomputed.
"""

from __future__ import annotations

from tests.unit.vendors.concox.golden_captures import CAPTURED
from tests.unit.vendors.concox.goldenframe import (
    IMEI,
    Golden,
    base64,
    cell,
    information,
    place,
    state,
)

__all__ = ["IMEI", "Golden"]

LOGIN = Golden(
    "login",
    "78780D01012345678901234500018CDD0D0A",
    0x01,
    1,
    answer="787805010001D9DC0D0A",
)
ZONED_LOGIN = Golden(
    "login with model and zone",
    "78781101075253367890024270003201000512790D0A",
    0x01,
    5,
    answer="7878050100059FF80D0A",
)
HEARTBEAT = Golden(
    "heartbeat",
    "78780A134401040001000508450D0A",
    0x13,
    5,
    attributes=state(0x44, 1, 4, 0, 1),
    extra={"kind": "status", "serial": 5},
    message=base64("RAEEAAE="),
    answer="787805130005AFD50D0A",
)
POSITION_12 = Golden(
    "position 0x12",
    "78781F120B081D112E10CF027AC7EB0C46584900148F01CC00287D001FB8000380810D0A",
    0x12,
    3,
    place("2011-08-29T17:46:16.000Z", 23.1116683, 114.409285, course=143, satellites=15),
    cell(460, 0, 0x287D, 0x1FB8),
    {"fix": True, "serial": 3},
)
POSITION_22 = Golden(
    "position 0x22 north-east",
    "787822220F0C1D023305C9027AC8180C46586000140001CC00287D001F71000001000820860D0A",
    0x22,
    8,
    place("2015-12-29T02:51:05.000Z", 23.1116933, 114.4092978, course=0, satellites=9),
    cell(460, 0, 0x287D, 0x1F71) | {"acc": 0, "upload_mode": 0},
    {"fix": True, "buffered": True, "serial": 8},
)
STORED_22 = Golden(
    "position 0x22 stored, without fix",
    "7878222218030F0C0500C00396665A0794737E00080002DA01123400ABCD0008010103218C0D0A",
    0x22,
    0x0103,
    place("2024-03-15T12:05:00.000Z", -33.4379167, -70.64967, course=0, satellites=0),
    cell(730, 1, 0x1234, 0xABCD) | {"acc": 0, "upload_mode": 8},
    {"fix": False, "buffered": True, "serial": 0x0103},
)
ALARM_16 = Golden(
    "alarm 0x16 SOS",
    "787825160B0B0F0E241DCF027AC8870C4657E60014020901CC00287D001F726506040101003656A40D0A",
    0x16,
    0x36,
    place("2011-11-15T14:36:29.000Z", 23.1117550, 114.40923, course=2, satellites=15, event=1),
    cell(460, 0, 0x287D, 0x1F72) | state(0x65, 6, 4, 1, 1) | {"event_name": "sos"},
    {"fix": True, "serial": 0x36},
    "78780516003695700D0A",
)
LBS_28 = Golden(
    "cells 0x28",
    "78783B2810010D02020201CC00287D001F713E287D001F7231287D001E232D287D001F4018"
    "000000000000000000000000000000000000FF00020005B14B0D0A",
    0x28,
    5,
    {"timestamp": "2016-01-13T02:02:02.000Z"},
    cell(460, 0, 0x287D, 0x1F71)
    | {
        "rssi": 62,
        "neighbours": [
            {"lac": 0x287D, "cell_id": 0x1F72, "rssi": 49},
            {"lac": 0x287D, "cell_id": 0x1E23, "rssi": 45},
            {"lac": 0x287D, "cell_id": 0x1F40, "rssi": 24},
        ],
        "timing_advance": 255,
        "language": 2,
    },
    {"kind": "message", "serial": 5},
    message=base64("EAENAgICAcwAKH0AH3E+KH0AH3IxKH0AHiMtKH0AH0AYAAAAAAAAAAAAAAAAAAAAAAAA/wAC"),
)
ANSWER_15 = Golden(
    "answer 0x15",
    "78781815100001A9584459442D53756363657373210002001891770D0A".replace("442D", "443D"),
    0x15,
    0x18,
    attributes={"server_flag": 0x1A958, "language": 2},
    extra={"kind": "message", "serial": 0x18},
    message="DYD=Success!",
)
TIME = Golden("time request", "7878058A000688290D0A", 0x8A, 6)

DOCUMENTED = [
    LOGIN,
    ZONED_LOGIN,
    HEARTBEAT,
    Golden(
        "second heartbeat",
        "78780A134004040001000FDCEE0D0A",
        0x13,
        15,
        attributes=state(0x40, 4, 4, 0, 1),
        extra={"kind": "status", "serial": 15},
        message=base64("QAQEAAE="),
        answer="78780513000F008F0D0A",
    ),
    POSITION_12,
    Golden(
        "position 0x12 with ACC bits",
        "78781f120f0a140e150bc505e51e780293a9e800540000f601006e0055da00035f240d0a",
        0x12,
        3,
        place("2015-10-20T14:21:11.000Z", 54.9453467, 24.0176222, course=0, satellites=5),
        {"acc_flag": 0} | cell(246, 1, 0x6E, 0x55DA),
        {"fix": True, "serial": 3},
    ),
    POSITION_22,
    Golden(
        "position 0x22 south-west",
        "787822220e0914160f07c9021a362805090a7800d8b802d402c30e00a98a0105010213f4bb0d0a",
        0x22,
        531,
        place("2014-09-20T22:15:07.000Z", -19.5956844, -46.9325467, course=184, satellites=9),
        {"acc_flag": 1} | cell(724, 2, 0xC30E, 0xA98A) | {"acc": 1, "upload_mode": 5},
        {"fix": True, "buffered": True, "serial": 531},
    ),
    Golden(
        "position 0x22 with a wide cell",
        "78782f221709130f3a32cc02c55f2a089f9afc005c2101360481fe066d9b03000000000025d400000000"
        "0020002d036049d70d0a",
        0x22,
        0x0360,
        place("2023-09-19T15:58:50.000Z", 25.8274367, -80.37646, course=33, satellites=12),
        {"acc_flag": 0}
        | cell(310, 4, 0x81FE, 0x066D9B03)
        | {"acc": 0, "upload_mode": 0, "trailing": base64("AAAl1AAAAAAAIAAt")},
        {"fix": True, "serial": 0x0360},
    ),
    Golden(
        "position 0x22 without fix and coordinates",
        "78782322110c070f1b0270000000000000000000040081360104cb8a00bef3000000000523030d0a",
        0x22,
        5,
        place("2017-12-07T15:27:02.000Z", 0.0, 0.0, course=0, satellites=0),
        cell(310, 260, 0xCB8A, 0xBEF3) | {"acc": 0, "upload_mode": 0},
        {"fix": False, "serial": 5},
    ),
    Golden(
        "position 0x22 with a speed",
        "7878222218030F0C0000C80396665A0794737E40191A02DA01123400ABCD01000001020C480D0A",
        0x22,
        0x0102,
        place(
            "2024-03-15T12:00:00.000Z",
            -33.4379167,
            -70.64967,
            speed=64,
            course=282,
            satellites=8,
        ),
        cell(730, 1, 0x1234, 0xABCD) | {"acc": 1, "upload_mode": 0},
        {"fix": True, "serial": 0x0102},
    ),
    STORED_22,
    ALARM_16,
    Golden(
        "alarm 0x26 without fix",
        "7878252612030C063816C3026C10540C38C9700144030901CC002866000EEE0C06040302000DA2DB0D0A",
        0x26,
        13,
        place(
            "2018-03-12T06:56:22.000Z",
            22.5758333,
            113.9156533,
            speed=1,
            course=3,
            satellites=3,
            event=3,
        ),
        {"acc_flag": 0}
        | cell(460, 0, 0x2866, 0x0EEE)
        | state(0x0C, 6, 4, 3, 2)
        | {"event_name": "vibration"},
        {"fix": False, "serial": 13},
        "78780526000D9C8E0D0A",
    ),
    Golden(
        "alarm 0x27 with a fence",
        "78782727110c0b0e170f850450059107f461ae001c7e0a81360104cb8a00bef32806030c02ff000316b10d0a",
        0x27,
        3,
        place(
            "2017-12-11T14:23:15.000Z",
            40.196205,
            -74.14239,
            course=126,
            satellites=5,
            event=12,
        ),
        cell(310, 260, 0xCB8A, 0xBEF3)
        | state(0x28, 6, 3, 12, 2)
        | {"fence": 255, "event_name": "power_on"},
        {"fix": True, "serial": 3},
        "7878052700032F2C0D0A",
    ),
    LBS_28,
    ANSWER_15,
    Golden(
        "answer 0x21 in UTF-16",
        "797900262100000000020043006f006d006d0061006e00640020006500720072006f0072002100236e850d0a",
        0x21,
        0x23,
        attributes={"server_flag": 0, "encoding": 2},
        extra={"kind": "message", "serial": 0x23},
        message="Command error!",
    ),
    TIME,
    Golden(
        "information 0x94 identities",
        "79790020940A035985708053908307060104900402788950301217070401538F0003E8210D0A",
        0x94,
        3,
        attributes={
            "information": 10,
            "imei": "359857080539083",
            "imsi": "706010490040278",
            "iccid": "8950301217070401538",
        },
        extra={"kind": "message", "serial": 3},
        message=base64("A1mFcIBTkIMHBgEEkAQCeIlQMBIXBwQBU48="),
    ),
    Golden(
        "information 0x94 voltage",
        "79790008940000ed0289d6860d0a",
        0x94,
        0x0289,
        attributes={"information": 0, "external_voltage": 2.37},
        extra={"kind": "message", "serial": 0x0289},
        message=base64("AO0="),
    ),
    Golden(
        "information 0x94 door",
        "7979000794050000c9b63e0d0a",
        0x94,
        0xC9,
        attributes={"information": 5, "door_open": 0, "door_trigger": 0, "input_level": 0},
        extra={"kind": "message", "serial": 0xC9},
        message=base64("AA=="),
    ),
    Golden(
        "position 0xA0",
        "78782aa015041007350eca027ac8a20c4658be00140081cc00000000287d0000000002ea5e01000400"
        "0009dffc0d0a",
        0xA0,
        9,
        place("2021-04-16T07:53:14.000Z", 23.11177, 114.4093500, course=0, satellites=10),
        cell(460, 0, 0x287D, 0x02EA5E01) | {"acc": 0, "upload_mode": 4},
        {"fix": True, "serial": 9},
    ),
    Golden(
        "heartbeat 0x23",
        "78780B23C00122040001000818720D0A",
        0x23,
        8,
        attributes=information(0xC0) | {"external_voltage": 2.9, "gsm_signal": 4, "language": 1},
        extra={"kind": "status", "serial": 8},
        message=base64("wAEiBAAB"),
        answer="787805230008F29E0D0A",
    ),
    Golden(
        "transparent data 0x9B with stop bytes inside",
        "7979000E9B0332382E33A1E60D0A0289BE490D0A",
        0x9B,
        0x0289,
        attributes={"transparent_type": 3},
        extra={"kind": "message", "serial": 0x0289},
        message=base64("MjguM6HmDQo="),
    ),
]
GOLDEN = [*DOCUMENTED, *CAPTURED]
