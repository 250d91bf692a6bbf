"""Frames in the ASCII encoding, with what they say.

The first are examples of the manufacturer's @Track documents, the others were captured from devices
and published in the tests of open-source servers.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class Golden(NamedTuple):
    """A frame and its entries."""

    data: bytes
    device_id: str
    count_number: str
    entries: tuple[dict[str, Any], ...]
    """For each entry the fields of the payload and the attributes that identify it; ``fix`` is
    that of the field ``extra``."""


FRI_GV300: Final = Golden(
    b"+RESP:GTFRI,060100,135790246811220,,,00,1,1,4.3,92,70.0,121.354335,31.222073,20090214013254,"
    b"0460,0000,18d8,6141,00,2000.0,12345:12:34,,,80,210100,,,,20090214093254,11F0$",
    "135790246811220",
    "11F0",
    (
        {
            "timestamp": "2009-02-14T01:32:54.000Z",
            "latitude": 31.222073,
            "longitude": 121.354335,
            "altitude": 70,
            "angle": 92,
            "speed": 4,
            "satellites": None,
            "fix": True,
            "attributes": {
                "report": "GTFRI",
                "event_name": "periodic",
                "version": "060100",
                "model": "GV300",
                "send_time": "20090214093254",
                "count": "11F0",
                "report_id": 0,
                "report_type": 0,
                "accuracy": 1.0,
                "speed_kmh": 4.3,
                "mcc": 460,
                "mnc": 0,
                "lac": 0x18D8,
                "cell_id": 0x6141,
                "mileage": 2000.0,
                "hour_meter": "12345:12:34",
                "battery": 80,
                "device_status": "210100",
                "state": "21",
                "ignition": True,
                "moving": False,
                "inputs": 1,
                "outputs": 0,
            },
        },
    ),
)

FRI_TWO_POSITIONS: Final = Golden(
    b"+RESP:GTFRI,020102,135790246811220,,0,0,2,1,4.3,92,70.0,121.354335,31.222073,20090214013254,"
    b"0460,0000,18d8,6141,00,0,4.3,92,70.0,121.354335,31.222073,20090101000000,0460,0000,18d8,6141,"
    b"00,,20090214093254,11F0$",
    "135790246811220",
    "11F0",
    (
        {"timestamp": "2009-02-14T01:32:54.000Z", "fix": True, "attributes": {"part": 1}},
        {
            "timestamp": "2009-02-14T09:32:54.000Z",
            "latitude": 31.222073,
            "fix": False,
            "attributes": {"part": 2, "accuracy": 0.0, "last_fix": "2009-01-01T00:00:00.000Z"},
        },
    ),
)

FRI_SOUTH_WEST: Final = Golden(
    b"+RESP:GTFRI,2C0204,867162020003125,GL300W,0,0,2,1,1.7,205,2867.0,-78.481127,-0.206828,"
    b"20160215210433,0740,0000,7596,5891C,0.0,1,1.7,205,2867.0,-78.481127,-0.206828,20160215210503,"
    b"0740,0000,7596,5891C,0.0,88,20160215210506,1E78$",
    "867162020003125",
    "1E78",
    (
        {
            "timestamp": "2016-02-15T21:04:33.000Z",
            "latitude": -0.206828,
            "longitude": -78.481127,
            "altitude": 2867,
            "fix": True,
            "attributes": {"model": "GL300W", "device_name": "GL300W", "cell_id": 0x5891C},
        },
        {
            "timestamp": "2016-02-15T21:05:03.000Z",
            "latitude": -0.206828,
            "longitude": -78.481127,
            "fix": True,
            "attributes": {"mileage": 0.0, "battery": 88},
        },
    ),
)

FRI_APPEND_MASK: Final = Golden(
    b"+BUFF:GTFRI,8020040200,866314060249032,,12194,10,1,3,0.0,0,20.1,-71.596533,-33.524718,"
    b"20230926200338,0730,0001,772A,052B253E,02,0,0.0,,,,,0,420000,,,,20230926200340,1549$",
    "866314060249032",
    "1549",
    (
        {
            "timestamp": "2023-09-26T20:03:38.000Z",
            "latitude": -33.524718,
            "longitude": -71.596533,
            "satellites": None,
            "fix": True,
            "attributes": {
                "model": "GV58LAU",
                "external_power": 12194,
                "report_id": 1,
                "report_type": 0,
                "gnss_trigger": 0,
                "mileage": 0.0,
                "battery": 0,
                "state": "42",
                "moving": True,
            },
        },
    ),
)

IGN_STALE: Final = Golden(
    b"+RESP:GTIGN,060228,862894020180553,,9860,0,0.2,189,420.0,-63.158195,-17.800608,"
    b"20160309022951,0736,0003,6AD4,3471,00,,881.2,20160308222956,129A$",
    "862894020180553",
    "129A",
    (
        {
            "timestamp": "2016-03-08T22:29:56.000Z",
            "latitude": -17.800608,
            "longitude": -63.158195,
            "fix": False,
            "attributes": {
                "event_name": "ignition_on",
                "duration": 9860,
                "last_fix": "2016-03-09T02:29:51.000Z",
                "mileage": 881.2,
            },
        },
    ),
)

IGF_BUFFERED: Final = Golden(
    b"+BUFF:GTIGF,060228,862894020180553,,1958,0,0.0,240,390.3,-63.089213,-17.764712,"
    b"20160309122854,0736,0003,6AB8,5A23,00,,936.8,20160309082858,1368$",
    "862894020180553",
    "1368",
    (
        {
            "latitude": -17.764712,
            "longitude": -63.089213,
            "fix": False,
            "attributes": {"event_name": "ignition_off", "duration": 1958, "mileage": 936.8},
        },
    ),
)

SOS_EXTRA_TIME: Final = Golden(
    b"+RESP:GTSOS,DF0200,868487004358800,cv100,,00,1,1,0.0,0,138.0,114.015465,22.537372,"
    b"20210714115224,0460,0001,25F8,061A7D02,,,20210714195224,20210714195224,03A6$",
    "868487004358800",
    "03A6",
    (
        {
            "timestamp": "2021-07-14T11:52:24.000Z",
            "latitude": 22.537372,
            "longitude": 114.015465,
            "priority": 2,
            "fix": True,
            "attributes": {
                "device_name": "cv100",
                "report_id": 0,
                "report_type": 0,
                "local_time": "20210714195224",
            },
        },
    ),
)

ERI_THERMOMETER: Final = Golden(
    b"+RESP:GTERI,060502,861074023620928,,00000002,27822,10,1,1,0.0,84,2870.9,-78.531796,"
    b"-0.277329,20170825045344,,,,,,0.0,01138:30:24,,,83,220104,2,1,28FF2776A2150308,1,FFAD,0,"
    b"20170825045348,A88C$",
    "861074023620928",
    "A88C",
    (
        {
            "timestamp": "2017-08-25T04:53:44.000Z",
            "latitude": -0.277329,
            "longitude": -78.531796,
            "altitude": 2871,
            "angle": 84,
            "fix": True,
            "attributes": {
                "eri_mask": "00000002",
                "external_power": 27822,
                "mileage": 0.0,
                "hour_meter": "01138:30:24",
                "battery": 83,
                "device_status": "220104",
                "inputs": 1,
                "outputs": 4,
                "uart_device": 2,
                "one_wire_1_id": "28FF2776A2150308",
                "one_wire_1_temperature": -5.1875,
            },
        },
    ),
)

FRI_CELL_ONLY: Final = Golden(
    b"+RESP:GTFRI,210102,354524044925825,,1,1,1,,,,,,,,310,410,51bc,ca1dae6,10800,1,"
    b"20170318214333,0002$",
    "354524044925825",
    "0002",
    (
        {
            "timestamp": "2017-03-18T21:43:33.000Z",
            "latitude": None,
            "longitude": None,
            "fix": None,
            "attributes": {
                "mcc": 310,
                "mnc": 410,
                "lac": 0x51BC,
                "cell_id": 0xCA1DAE6,
                "battery": 1,
                "message": "GTFRI,210102,354524044925825,,1,1,1,,,,,,,,310,410,51bc,ca1dae6,10800,"
                "1,20170318214333,0002",
            },
        },
    ),
)

STT: Final = Golden(
    b"+RESP:GTSTT,1A0401,860599000508846,,41,0,0.0,84,107.5,-76.657998,39.497203,20150623160622,"
    b"0310,0260,B435,3B81,,20150623160622,0F54$",
    "860599000508846",
    "0F54",
    (
        {
            "latitude": 39.497203,
            "longitude": -76.657998,
            "fix": False,
            "attributes": {"state": "41", "moving": False, "altitude_m": 107.5},
        },
    ),
)

DOG: Final = Golden(
    b"+RESP:GTDOG,020102,135790246811220,,0,0,1,1,4.3,92,70.0,121.354335,31.222073,20090214013254,"
    b"0460,0000,18d8,6141,00,2000.0,20090214093254,11F0$",
    "135790246811220",
    "11F0",
    ({"fix": True, "attributes": {"event_name": "watchdog", "report_id": 0, "mileage": 2000.0}},),
)

RTL: Final = Golden(
    b"+RESP:GTRTL,DF0200,868487004353181,cv100,,00,1,0,0.0,0,102.2,114.015295,22.537250,"
    b"20210608063942,0460,0001,25F8,061A7D02,,0.0,20210608143939,32CF$",
    "868487004353181",
    "32CF",
    ({"longitude": 114.015295, "fix": False, "attributes": {"mileage": 0.0}},),
)

NMR_MEID: Final = Golden(
    b"+RESP:GTNMR,210102,A10000499AEF9B,,0,0,1,9,0.0,0,288.0,-76.902364,39.578828,20161101134145,"
    b",,,,00,73,20161101134145,009F$",
    "A10000499AEF9B",
    "009F",
    (
        {
            "latitude": 39.578828,
            "fix": True,
            "attributes": {"accuracy": 9.0, "report_type": 0, "battery": 73},
        },
    ),
)

FRI_VIN: Final = Golden(
    b"+RESP:GTFRI,1F0101,135790246811220,1G1JC5444R7252367,,,00,2,1,4.3,92,70.0,121.354335,"
    b"31.222073,20090214013254,0460,0000,18d8,6141,00,0,4.3,92,70.0,121.354335,31.222073,"
    b"20090101000000,0460,0000,18d8,6141,00,2000.0,12345:12:34,,,80,210100,,,50,20090214093254,"
    b"11F0$",
    "135790246811220",
    "11F0",
    (
        {"fix": True, "attributes": {"vin": "1G1JC5444R7252367", "model": "GV500"}},
        {"fix": False, "attributes": {"fuel_level": 50, "mileage": 2000.0, "battery": 80}},
    ),
)

HEARTBEAT: Final = Golden(
    b"+ACK:GTHBD,1A0102,135790246811220,,20100214093254,11F0$", "135790246811220", "11F0", ()
)

TRI_OLDEST: Final = Golden(
    b"+RESP:GTTRI,862370030005908,1,0,99,1,0.0,354,18.5,18.821100,-34.084002,20170607152024,0655,"
    b"0001,00DD,1CAE,00,0103010100,20170607172115,3E7D$",
    "862370030005908",
    "3E7D",
    (
        {
            "timestamp": "2017-06-07T15:20:24.000Z",
            "latitude": -34.084002,
            "longitude": 18.8211,
            "angle": 354,
            "fix": True,
            "attributes": {
                "mcc": 655,
                "mnc": 1,
                "lac": 0xDD,
                "cell_id": 0x1CAE,
                "raw": "1,0,99,1,0.0,354,18.5,18.821100,-34.084002,20170607152024,0655,0001,00DD,"
                "1CAE,00,0103010100",
            },
        },
    ),
)

COMMAND_ANSWER: Final = Golden(
    b"+ACK:GTRTO,1A0102,135790246811220,,GPS,000B,20100310172830,11F0$",
    "135790246811220",
    "11F0",
    (
        {
            "latitude": None,
            "fix": None,
            "attributes": {
                "report": "GTRTO",
                "event_name": "command_answer",
                "serial": "000B",
                "message": "GTRTO,1A0102,135790246811220,,GPS,000B,20100310172830,11F0",
            },
        },
    ),
)

INF: Final = Golden(
    b"+RESP:GTINF,1A0800,860599000773978,GL300,41,89701016426133851978,17,0,1,26.6,,3.90,1,1,0,0,0,"
    b"20161003184043,69,1,44,,,20161004040811,022C$",
    "860599000773978",
    "022C",
    (
        {
            "timestamp": "2016-10-04T04:08:11.000Z",
            "latitude": None,
            "fix": None,
            "attributes": {
                "report": "GTINF",
                "event_name": "device_information",
                "state": "41",
                "iccid": "89701016426133851978",
                "csq_rssi": 17,
                "csq_ber": 0,
                "external_supply": 1,
                "mileage": 26.6,
                "battery_voltage": 3.9,
                "charging": 1,
                "led": 1,
                "last_fix": "2016-10-03T18:40:43.000Z",
                "battery": 69,
            },
        },
    ),
)

GOLDEN: Final = (
    *(FRI_GV300, FRI_TWO_POSITIONS, FRI_SOUTH_WEST, FRI_APPEND_MASK, IGN_STALE, IGF_BUFFERED),
    *(SOS_EXTRA_TIME, ERI_THERMOMETER, FRI_CELL_ONLY, STT, DOG, RTL, NMR_MEID, FRI_VIN),
    *(HEARTBEAT, TRI_OLDEST, COMMAND_ANSWER, INF),
)
#: Names of :data:`GOLDEN`, for test IDs.
IDS: Final = tuple(golden.data[:11].decode() + f"-{golden.count_number}" for golden in GOLDEN)
