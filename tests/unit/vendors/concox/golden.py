"""Frames from protocol documents and public captures, with what they contain.

Sources: GT06 protocol 1.8, Concox protocol 3.1 and JM-VL03 protocol 1.1.2 (documents), and the
public test frames of Traccar's GT06 decoder (captures). All checksums are recomputed.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

IMEI = "123456789012345"


@frozen
class Golden:
    """A frame of a device, its number and its serial."""

    name: str
    hex: str
    number: int
    serial: int
    payload: dict[str, Any] = field(factory=dict)
    """Fields of the payload of its entry; empty for a frame without an entry."""
    attributes: dict[str, Any] = field(factory=dict)
    """All attributes of the entry, but for number and message."""
    extra: dict[str, Any] = field(factory=dict)
    answer: str = ""
    """The server's answer."""
    message: Any = None
    """The attribute ``message``."""

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)


def _bytes(base64: str) -> dict[str, str]:
    return {"__buffer_b64": base64}


def _place(
    time: str,
    latitude: float,
    longitude: float,
    *,
    speed: int = 0,
    course: int,
    satellites: int,
    event: int = 0,
) -> dict[str, Any]:
    return {
        "timestamp": time,
        "latitude": latitude,
        "longitude": longitude,
        "speed": speed,
        "angle": course,
        "satellites": satellites,
        "event": event,
    }


def _cell(mcc: int, mnc: int, lac: int, cell_id: int) -> dict[str, int]:
    return {"mcc": mcc, "mnc": mnc, "lac": lac, "cell_id": cell_id}


def _state(
    information: int, voltage: int, signal: int, alarm: int, language: int
) -> dict[str, int]:
    return _information(information) | {
        "voltage_level": voltage,
        "gsm_signal": signal,
        "alarm": alarm,
        "language": language,
    }


def _information(byte: int) -> dict[str, int]:
    bits = f"{byte:08b}"
    return {
        "oil_cut": int(bits[0]),
        "gps_on": int(bits[1]),
        "alarm_state": int(bits[2:5], 2),
        "charging": int(bits[5]),
        "acc": int(bits[6]),
        "armed": int(bits[7]),
    }


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
    attributes=_state(0x44, 1, 4, 0, 1),
    extra={"kind": "status", "serial": 5},
    message=_bytes("RAEEAAE="),
    answer="787805130005AFD50D0A",
)
POSITION_12 = Golden(
    "position 0x12",
    "78781F120B081D112E10CF027AC7EB0C46584900148F01CC00287D001FB8000380810D0A",
    0x12,
    3,
    _place("2011-08-29T17:46:16.000Z", 23.1116683, 114.409285, course=143, satellites=15),
    _cell(460, 0, 0x287D, 0x1FB8),
    {"fix": True, "serial": 3},
)
POSITION_22 = Golden(
    "position 0x22 north-east",
    "787822220F0C1D023305C9027AC8180C46586000140001CC00287D001F71000001000820860D0A",
    0x22,
    8,
    _place("2015-12-29T02:51:05.000Z", 23.1116933, 114.4092978, course=0, satellites=9),
    _cell(460, 0, 0x287D, 0x1F71) | {"acc": 0, "upload_mode": 0},
    {"fix": True, "buffered": True, "serial": 8},
)
STORED_22 = Golden(
    "position 0x22 stored, without fix",
    "7878222218030F0C0500C00396665A0794737E00080002DA01123400ABCD0008010103218C0D0A",
    0x22,
    0x0103,
    _place("2024-03-15T12:05:00.000Z", -33.4379167, -70.64967, course=0, satellites=0),
    _cell(730, 1, 0x1234, 0xABCD) | {"acc": 0, "upload_mode": 8},
    {"fix": False, "buffered": True, "serial": 0x0103},
)
ALARM_16 = Golden(
    "alarm 0x16 SOS",
    "787825160B0B0F0E241DCF027AC8870C4657E60014020901CC00287D001F726506040101003656A40D0A",
    0x16,
    0x36,
    _place("2011-11-15T14:36:29.000Z", 23.1117550, 114.40923, course=2, satellites=15, event=1),
    _cell(460, 0, 0x287D, 0x1F72) | _state(0x65, 6, 4, 1, 1) | {"event_name": "sos"},
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
    _cell(460, 0, 0x287D, 0x1F71)
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
    message=_bytes("EAENAgICAcwAKH0AH3E+KH0AH3IxKH0AHiMtKH0AH0AYAAAAAAAAAAAAAAAAAAAAAAAA/wAC"),
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

GOLDEN = [
    LOGIN,
    ZONED_LOGIN,
    HEARTBEAT,
    Golden(
        "second heartbeat",
        "78780A134004040001000FDCEE0D0A",
        0x13,
        15,
        attributes=_state(0x40, 4, 4, 0, 1),
        extra={"kind": "status", "serial": 15},
        message=_bytes("QAQEAAE="),
        answer="78780513000F008F0D0A",
    ),
    POSITION_12,
    Golden(
        "position 0x12 with ACC bits",
        "78781f120f0a140e150bc505e51e780293a9e800540000f601006e0055da00035f240d0a",
        0x12,
        3,
        _place("2015-10-20T14:21:11.000Z", 54.9453467, 24.0176222, course=0, satellites=5),
        {"acc_flag": 0} | _cell(246, 1, 0x6E, 0x55DA),
        {"fix": True, "serial": 3},
    ),
    POSITION_22,
    Golden(
        "position 0x22 south-west",
        "787822220e0914160f07c9021a362805090a7800d8b802d402c30e00a98a0105010213f4bb0d0a",
        0x22,
        531,
        _place("2014-09-20T22:15:07.000Z", -19.5956844, -46.9325467, course=184, satellites=9),
        {"acc_flag": 1} | _cell(724, 2, 0xC30E, 0xA98A) | {"acc": 1, "upload_mode": 5},
        {"fix": True, "buffered": True, "serial": 531},
    ),
    Golden(
        "position 0x22 with a wide cell",
        "78782f221709130f3a32cc02c55f2a089f9afc005c2101360481fe066d9b03000000000025d400000000"
        "0020002d036049d70d0a",
        0x22,
        0x0360,
        _place("2023-09-19T15:58:50.000Z", 25.8274367, -80.37646, course=33, satellites=12),
        {"acc_flag": 0}
        | _cell(310, 4, 0x81FE, 0x066D9B03)
        | {"acc": 0, "upload_mode": 0, "trailing": _bytes("AAAl1AAAAAAAIAAt")},
        {"fix": True, "serial": 0x0360},
    ),
    Golden(
        "position 0x22 without fix and coordinates",
        "78782322110c070f1b0270000000000000000000040081360104cb8a00bef3000000000523030d0a",
        0x22,
        5,
        _place("2017-12-07T15:27:02.000Z", 0.0, 0.0, course=0, satellites=0),
        _cell(310, 260, 0xCB8A, 0xBEF3) | {"acc": 0, "upload_mode": 0},
        {"fix": False, "serial": 5},
    ),
    Golden(
        "position 0x22 with a speed",
        "7878222218030F0C0000C80396665A0794737E40191A02DA01123400ABCD01000001020C480D0A",
        0x22,
        0x0102,
        _place(
            "2024-03-15T12:00:00.000Z",
            -33.4379167,
            -70.64967,
            speed=64,
            course=282,
            satellites=8,
        ),
        _cell(730, 1, 0x1234, 0xABCD) | {"acc": 1, "upload_mode": 0},
        {"fix": True, "serial": 0x0102},
    ),
    STORED_22,
    ALARM_16,
    Golden(
        "alarm 0x26 without fix",
        "7878252612030C063816C3026C10540C38C9700144030901CC002866000EEE0C06040302000DA2DB0D0A",
        0x26,
        13,
        _place(
            "2018-03-12T06:56:22.000Z",
            22.5758333,
            113.9156533,
            speed=1,
            course=3,
            satellites=3,
            event=3,
        ),
        {"acc_flag": 0}
        | _cell(460, 0, 0x2866, 0x0EEE)
        | _state(0x0C, 6, 4, 3, 2)
        | {"event_name": "vibration"},
        {"fix": False, "serial": 13},
        "78780526000D9C8E0D0A",
    ),
    Golden(
        "alarm 0x27 with a fence",
        "78782727110c0b0e170f850450059107f461ae001c7e0a81360104cb8a00bef32806030c02ff000316b10d0a",
        0x27,
        3,
        _place(
            "2017-12-11T14:23:15.000Z",
            40.196205,
            -74.14239,
            course=126,
            satellites=5,
            event=12,
        ),
        _cell(310, 260, 0xCB8A, 0xBEF3)
        | _state(0x28, 6, 3, 12, 2)
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
        message=_bytes("A1mFcIBTkIMHBgEEkAQCeIlQMBIXBwQBU48="),
    ),
    Golden(
        "information 0x94 voltage",
        "79790008940000ed0289d6860d0a",
        0x94,
        0x0289,
        attributes={"information": 0, "external_voltage": 2.37},
        extra={"kind": "message", "serial": 0x0289},
        message=_bytes("AO0="),
    ),
    Golden(
        "information 0x94 door",
        "7979000794050000c9b63e0d0a",
        0x94,
        0xC9,
        attributes={"information": 5, "door_open": 0, "door_trigger": 0, "input_level": 0},
        extra={"kind": "message", "serial": 0xC9},
        message=_bytes("AA=="),
    ),
    Golden(
        "position 0xA0",
        "78782aa015041007350eca027ac8a20c4658be00140081cc00000000287d0000000002ea5e01000400"
        "0009dffc0d0a",
        0xA0,
        9,
        _place("2021-04-16T07:53:14.000Z", 23.11177, 114.4093500, course=0, satellites=10),
        _cell(460, 0, 0x287D, 0x02EA5E01) | {"acc": 0, "upload_mode": 4},
        {"fix": True, "serial": 9},
    ),
    Golden(
        "heartbeat 0x23",
        "78780B23C00122040001000818720D0A",
        0x23,
        8,
        attributes=_information(0xC0) | {"external_voltage": 2.9, "gsm_signal": 4, "language": 1},
        extra={"kind": "status", "serial": 8},
        message=_bytes("wAEiBAAB"),
        answer="787805230008F29E0D0A",
    ),
    Golden(
        "transparent data 0x9B with stop bytes inside",
        "7979000E9B0332382E33A1E60D0A0289BE490D0A",
        0x9B,
        0x0289,
        attributes={"transparent_type": 3},
        extra={"kind": "message", "serial": 0x0289},
        message=_bytes("MjguM6HmDQo="),
    ),
    # Captures of numbers that the documents above only name.
    Golden(
        "position 0x31 of the SL4X family",
        "78782a31180613012b39cc0274c4dc050d7cd000180002d4000ac3c70dbdc4150100000000000002a6000e"
        "a40b0d0a",
        0x31,
        14,
        _place("2024-06-19T01:43:57.000Z", -22.89278, -47.0944444, course=0, satellites=12)
        | {"altitude": 678},
        _cell(724, 10, 0xC3C7, 0x0DBDC415) | {"acc": 1, "upload_mode": 0, "mileage": 0},
        {"fix": True, "serial": 14},
    ),
    Golden(
        "alarm 0x32 of the SL4X family",
        "7878293218061301261ccd0274c4ad050d7c960018000a02d4000ac3c70dbdc40b46f004210202af0017"
        "84290d0a",
        0x32,
        23,
        _place(
            "2024-06-19T01:38:28.000Z", -22.8927539, -47.0944122, course=0, satellites=13, event=33
        )
        | {"altitude": 687},
        _cell(724, 10, 0xC3C7, 0x0DBDC40B)
        | _information(0x46)
        | {"voltage_code": 240, "gsm_signal": 4, "alarm": 33, "language": 2},
        {"fix": True, "serial": 23},
        answer="787805320017c5a10d0a",
    ),
    Golden(
        "alarm 0x32 of the SL4X family without altitude",
        "78782732180214123324ca0162bdf0041f45d900190b0a02d4000bc5270000ec025206040202005e07e10d0a",
        0x32,
        0x5E,
        _place(
            "2024-02-20T18:51:36.000Z", -12.91576, -38.4213117, course=267, satellites=10, event=2
        ),
        _cell(724, 11, 0xC527, 0xEC02) | _state(0x52, 6, 4, 2, 2) | {"event_name": "power_cut"},
        {"fix": True, "serial": 0x5E},
        answer="78780532005e1a640d0a",
    ),
    Golden(
        "alarm 0xA4",
        "78782da41a0509160203cf05be31f80c306530001c0010012ed000007ef40000000006428b0742050413"
        "02ff0009389c0d0a",
        0xA4,
        9,
        _place(
            "2026-05-09T22:02:03.000Z", 53.5281733, -113.6101244, course=0, satellites=15, event=19
        ),
        _cell(302, 208, 0x7EF4, 0x06428B07)
        | _state(0x42, 5, 4, 0x13, 2)
        | {"fence": 255, "event_name": "tamper"},
        {"fix": True, "serial": 9},
        answer="787805a4000963fe0d0a",
    ),
    Golden(
        "alarm 0xA4 with a long MNC",
        "78782ea4110c0c02281bf6026c18720c38d22800149c1181cc00010000260e000000000615f8012c0504"
        "1102ff001058fd0d0a",
        0xA4,
        16,
        _place(
            "2017-12-12T02:40:27.000Z", 22.5769878, 113.9168933, course=156, satellites=6, event=17
        ),
        _cell(460, 1, 0x260E, 0x0615F801)
        | _state(0x2C, 5, 4, 0x11, 2)
        | {"fence": 255, "event_name": "power_off"},
        {"fix": True, "serial": 16},
        answer="787805a40010eebe0d0a",
    ),
    Golden(
        "cells 0xA1",
        "78786ca1110b0413093801cc01000025fc000000000618c10201000025fc000000000618c10201000025fc"
        "000000000618c10201000025fc000000000618c10201000025fc000000000618c10201000025fc00000000"
        "0618c10201000025fc000000000618c10201ff0002000541d70d0a",
        0xA1,
        5,
        {"timestamp": "2017-11-04T19:09:56.000Z"},
        _cell(460, 1, 0x25FC, 0x0618C102)
        | {
            "rssi": 1,
            "neighbours": 6 * [{"lac": 0x25FC, "cell_id": 0x0618C102, "rssi": 1}],
            "timing_advance": 255,
            "language": 2,
        },
        {"kind": "message", "serial": 5},
    ),
    Golden(
        "alarm 0xA5",
        "787819a5012ed0000075df000000000098661502050413000019a12b0d0a",
        0xA5,
        0x19,
        attributes=_cell(302, 208, 0x75DF, 0x00986615)
        | _state(0x02, 5, 4, 0x13, 0)
        | {"event_name": "tamper"},
        extra={"kind": "message", "serial": 25},
        answer="787805a5001929a30d0a",
        message=_bytes("AS7QAAB13wAAAAAAmGYVAgUEEwA="),
    ),
    Golden(
        "alarm 0x19",
        "78781219028f0a29e10036f12003040102000875dc0d0a",
        0x19,
        8,
        attributes=_cell(655, 10, 0x29E1, 0x36F1)
        | _state(0x20, 3, 4, 1, 2)
        | {"event_name": "sos"},
        extra={"kind": "message", "serial": 8},
        answer="787805190008074a0d0a",
    ),
    Golden(
        "cells and an access point 0x2C",
        "7878412c11030b011c1f013604cb8a00b17754cb8a00bef357cb8a00b73f5fcb8900b0e25fcb8900b6655f"
        "cb8a00b74960cb8a00b178620701001801eb40393800bbbde10d0a",
        0x2C,
        0xBB,
        {"timestamp": "2017-03-11T01:28:31.000Z"},
        _cell(310, 4, 0xCB8A, 0xB177)
        | {
            "rssi": 0x54,
            "neighbours": [
                {"lac": 0xCB8A, "cell_id": 0xBEF3, "rssi": 0x57},
                {"lac": 0xCB8A, "cell_id": 0xB73F, "rssi": 0x5F},
                {"lac": 0xCB89, "cell_id": 0xB0E2, "rssi": 0x5F},
                {"lac": 0xCB89, "cell_id": 0xB665, "rssi": 0x5F},
                {"lac": 0xCB8A, "cell_id": 0xB749, "rssi": 0x60},
                {"lac": 0xCB8A, "cell_id": 0xB178, "rssi": 0x62},
            ],
            "timing_advance": 7,
            "access_points": [{"mac": "00:18:01:eb:40:39", "rssi": 0x38}],
        },
        {"kind": "message", "serial": 0xBB},
    ),
    Golden(
        "cells 0x18",
        "78783b18100c0f1201010195271784005ab63617840002fa47178400ff8f4817840019f3491784005ab54b"
        "178400ff8e4c17840019f24cff0002012287c80d0a",
        0x18,
        0x0122,
        {"timestamp": "2016-12-15T18:01:01.000Z"},
        _cell(405, 39, 0x1784, 0x5AB6)
        | {
            "rssi": 0x36,
            "neighbours": [
                {"lac": 0x1784, "cell_id": 0x02FA, "rssi": 0x47},
                {"lac": 0x1784, "cell_id": 0xFF8F, "rssi": 0x48},
                {"lac": 0x1784, "cell_id": 0x19F3, "rssi": 0x49},
                {"lac": 0x1784, "cell_id": 0x5AB5, "rssi": 0x4B},
                {"lac": 0x1784, "cell_id": 0xFF8E, "rssi": 0x4C},
                {"lac": 0x1784, "cell_id": 0x19F2, "rssi": 0x4C},
            ],
            "timing_advance": 255,
            "language": 2,
        },
        {"kind": "message", "serial": 0x0122},
    ),
    Golden(
        "position 0x10",
        "787819100e010903230ec803ae32a60653cded00180000020072feb70d0a",
        0x10,
        0x72,
        _place("2014-01-09T03:35:14.000Z", -34.3043767, -58.9752783, course=0, satellites=8),
        {"trailing": _bytes("AAI=")},
        {"fix": True, "serial": 0x72},
    ),
    Golden(
        "alarm 0x16 with a wide cell",
        "787826161709130f3a2dcc02c55f2a089f9af9005c210901360481fe066d9b03413e420102035f92fe0d0a",
        0x16,
        0x035F,
        _place(
            "2023-09-19T15:58:45.000Z", 25.8274367, -80.3764583, course=33, satellites=12, event=1
        ),
        {"acc_flag": 0}
        | _cell(310, 4, 0x81FE, 0x066D9B03)
        | _state(0x41, 62, 66, 1, 2)
        | {"event_name": "sos"},
        {"fix": True, "serial": 0x035F},
        answer="78780516035f41df0d0a",
    ),
    # Captures of contents without a layout.
    Golden(
        "position 0x12 without content",
        "787805120099abec0d0a",
        0x12,
        0x99,
        extra={"kind": "message", "serial": 0x99},
        message=_bytes(""),
    ),
    Golden(
        "cells 0x24 of another layout",
        "787831241603060c231e000194620213ee00606a3413ee0060692e00000000000000000000000000000000"
        "0000000000003a0cb70d0a",
        0x24,
        0x3A,
        attributes={},
        extra={"kind": "message", "serial": 0x3A},
    ),
    Golden(
        "0x2A, an address request",
        "78782e2a0f0c1d071139ca027ac8000c4658000014d83132353230313335333231373730373900000000"
        "000001002a6ece0d0a",
        0x2A,
        0x2A,
        attributes={},
        extra={"kind": "message", "serial": 0x2A},
    ),
]
