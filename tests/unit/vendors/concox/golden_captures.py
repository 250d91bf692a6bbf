"""Captured frames of numbers that the documents only name, and of contents without a layout.

Source: the public test frames of Traccar's GT06 decoder.
"""

from __future__ import annotations

from tests.unit.vendors.concox.goldenframe import (
    Golden,
    base64,
    cell,
    information,
    place,
    state,
)

CAPTURED = [
    # Captures of numbers that the documents above only name.
    Golden(
        "position 0x31 of the SL4X family",
        "78782a31180613012b39cc0274c4dc050d7cd000180002d4000ac3c70dbdc4150100000000000002a6000e"
        "a40b0d0a",
        0x31,
        14,
        place("2024-06-19T01:43:57.000Z", -22.89278, -47.0944444, course=0, satellites=12)
        | {"altitude": 678},
        cell(724, 10, 0xC3C7, 0x0DBDC415) | {"acc": 1, "upload_mode": 0, "mileage": 0},
        {"fix": True, "serial": 14},
    ),
    Golden(
        "alarm 0x32 of the SL4X family",
        "7878293218061301261ccd0274c4ad050d7c960018000a02d4000ac3c70dbdc40b46f004210202af0017"
        "84290d0a",
        0x32,
        23,
        place(
            "2024-06-19T01:38:28.000Z", -22.8927539, -47.0944122, course=0, satellites=13, event=33
        )
        | {"altitude": 687},
        cell(724, 10, 0xC3C7, 0x0DBDC40B)
        | information(0x46)
        | {"voltage_code": 240, "gsm_signal": 4, "alarm": 33, "language": 2},
        {"fix": True, "serial": 23},
        answer="787805320017c5a10d0a",
    ),
    Golden(
        "alarm 0x32 of the SL4X family without altitude",
        "78782732180214123324ca0162bdf0041f45d900190b0a02d4000bc5270000ec025206040202005e07e10d0a",
        0x32,
        0x5E,
        place(
            "2024-02-20T18:51:36.000Z", -12.91576, -38.4213117, course=267, satellites=10, event=2
        ),
        cell(724, 11, 0xC527, 0xEC02) | state(0x52, 6, 4, 2, 2) | {"event_name": "power_cut"},
        {"fix": True, "serial": 0x5E},
        answer="78780532005e1a640d0a",
    ),
    Golden(
        "alarm 0xA4",
        "78782da41a0509160203cf05be31f80c306530001c0010012ed000007ef40000000006428b0742050413"
        "02ff0009389c0d0a",
        0xA4,
        9,
        place(
            "2026-05-09T22:02:03.000Z", 53.5281733, -113.6101244, course=0, satellites=15, event=19
        ),
        cell(302, 208, 0x7EF4, 0x06428B07)
        | state(0x42, 5, 4, 0x13, 2)
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
        place(
            "2017-12-12T02:40:27.000Z", 22.5769878, 113.9168933, course=156, satellites=6, event=17
        ),
        cell(460, 1, 0x260E, 0x0615F801)
        | state(0x2C, 5, 4, 0x11, 2)
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
        cell(460, 1, 0x25FC, 0x0618C102)
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
        attributes=cell(302, 208, 0x75DF, 0x00986615)
        | state(0x02, 5, 4, 0x13, 0)
        | {"event_name": "tamper"},
        extra={"kind": "message", "serial": 25},
        answer="787805a5001929a30d0a",
        message=base64("AS7QAAB13wAAAAAAmGYVAgUEEwA="),
    ),
    Golden(
        "alarm 0x19",
        "78781219028f0a29e10036f12003040102000875dc0d0a",
        0x19,
        8,
        attributes=cell(655, 10, 0x29E1, 0x36F1) | state(0x20, 3, 4, 1, 2) | {"event_name": "sos"},
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
        cell(310, 4, 0xCB8A, 0xB177)
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
        cell(405, 39, 0x1784, 0x5AB6)
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
        place("2014-01-09T03:35:14.000Z", -34.3043767, -58.9752783, course=0, satellites=8),
        {"trailing": base64("AAI=")},
        {"fix": True, "serial": 0x72},
    ),
    Golden(
        "alarm 0x16 with a wide cell",
        "787826161709130f3a2dcc02c55f2a089f9af9005c210901360481fe066d9b03413e420102035f92fe0d0a",
        0x16,
        0x035F,
        place(
            "2023-09-19T15:58:45.000Z", 25.8274367, -80.3764583, course=33, satellites=12, event=1
        ),
        {"acc_flag": 0}
        | cell(310, 4, 0x81FE, 0x066D9B03)
        | state(0x41, 62, 66, 1, 2)
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
        message=base64(""),
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
