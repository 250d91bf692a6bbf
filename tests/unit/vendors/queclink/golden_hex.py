"""Frames in the HEX encoding, with what they say.

They are examples of the manufacturer's @Track documents (GV200, GV300CAN), or were captured from
devices and published in the tests of the open-source servers Traccar (GB100) and queclink-go (GV55,
GV75W, GV300W, GV600), and in a parser for GV58.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class HexGolden(NamedTuple):
    """A frame and its entry."""

    data: bytes
    report: str
    device_id: str
    """Empty if the frame does not name its device."""
    ack: bytes
    entry: dict[str, Any] | None
    """Fields of the payload, and ``fix`` of the field ``extra``; None for a heartbeat. Attributes
    are compared whole, except for the message."""


EVENT_GB100: Final = HexGolden(
    bytes.fromhex(
        "2B4556540C00FC1FBF005C4501010108563254030003430564312A41090100000000003F007DFF75A11A"
        "025C6A7807E1070A14041202680003189C1AC500000000000000000000000000000000000007E1070B04"
        "1134054E5C6E0D0A"
    ),
    "GTPDP",
    "865084030003675",
    b"+SACK:054E$",
    {
        "timestamp": "2017-07-11T04:17:52.000Z",
        "latitude": 39.611,
        "longitude": -9.068262,
        "altitude": 125,
        "angle": 63,
        "speed": 0,
        "satellites": 9,
        "fix": False,
        "attributes": {
            "report": "GTPDP",
            "version": "450101",
            "model": "GB100",
            "firmware_version": "0108",
            "send_time": "20170711041752",
            "count": "054E",
            "mcc": 268,
            "mnc": 3,
            "lac": 6300,
            "cell_id": 6853,
            "accuracy": 0.0,
            "battery": 100,
            "external_power": 12586,
            "state": "41",
            "moving": False,
            "trip_mileage": 0.0,
            "mileage": 0.0,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00000:00:00",
            "last_fix": "2017-07-10T20:04:18.000Z",
        },
    },
)

VGN_GB100: Final = HexGolden(
    bytes.fromhex(
        "2B4556542D00FC1FBF0063450102020956325403000343056437F8220700000200000000010000160100"
        "F2007EFF75A1F0025C6B1A07E1080108241A02680003189C1AC500000000000002100800000000000000"
        "000007E1080108241A19E24E4E0D0A"
    ),
    "EVT45",
    "865084030003675",
    b"+SACK:19E2$",
    {
        "timestamp": "2017-08-01T08:36:26.000Z",
        "latitude": 39.611162,
        "longitude": -9.068048,
        "altitude": 126,
        "angle": 242,
        "speed": 22,
        "satellites": 7,
        "fix": False,
        "attributes": {
            "report": "EVT45",
            "version": "450102",
            "model": "GB100",
            "firmware_version": "0209",
            "send_time": "20170801083626",
            "count": "19E2",
            "raw": "00000200000000",
            "mcc": 268,
            "mnc": 3,
            "lac": 6300,
            "cell_id": 6853,
            "accuracy": 0.0,
            "speed_kmh": 22.1,
            "battery": 100,
            "external_power": 14328,
            "state": "22",
            "ignition": True,
            "moving": True,
            "trip_mileage": 0.0,
            "mileage": 528.8,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00000:00:00",
            "last_fix": "2017-08-01T08:36:26.000Z",
        },
    },
)

LBC_NAMED: Final = HexGolden(
    bytes.fromhex(
        "2B5253500300FC1FFF0064450102020867623130302D446F642F442105007018217345005F0101000000"
        "01100045073C4D4101DB86BD07E106130B2B0F0460000018770013000000030000000106020F23000027"
        "14301107E106130B2B1003424EFB0D0A"
    ),
    "GTLBC",
    "",
    b"+SACK:0342$",
    {
        "timestamp": "2017-06-19T11:43:15.000Z",
        "latitude": 31.164093,
        "longitude": 121.392449,
        "altitude": 69,
        "angle": 272,
        "speed": 0,
        "satellites": 5,
        "fix": True,
        "attributes": {
            "report": "GTLBC",
            "event_name": "call",
            "version": "450102",
            "model": "GB100",
            "firmware_version": "0208",
            "device_name": "gb100-Do",
            "send_time": "20170619114316",
            "count": "0342",
            "report_id": 0,
            "report_type": 0,
            "raw": "7018217345005F",
            "mcc": 460,
            "mnc": 0,
            "lac": 6263,
            "cell_id": 19,
            "accuracy": 1.0,
            "battery": 100,
            "external_power": 12100,
            "state": "21",
            "ignition": True,
            "moving": False,
            "trip_mileage": 0.3,
            "mileage": 1.6,
            "trip_hour_meter": "00002:15:35",
            "hour_meter": "10004:48:17",
        },
    },
)

FRI_GB100: Final = HexGolden(
    bytes.fromhex(
        "2B5253500700FC1FBF005D4501020209563254030003430564377E42071001000000000000007EFF75A1"
        "51025C6A8107E10801081A2A02680003189C1AC500000000000002100700000000000000000007E10801"
        "08241019E17EBE0D0A"
    ),
    "GTFRI",
    "865084030003675",
    b"+SACK:19E1$",
    {
        "timestamp": "2017-08-01T08:36:16.000Z",
        "latitude": 39.611009,
        "longitude": -9.068207,
        "altitude": 126,
        "angle": 0,
        "speed": 0,
        "satellites": 7,
        "fix": False,
        "attributes": {
            "report": "GTFRI",
            "event_name": "periodic",
            "version": "450102",
            "model": "GB100",
            "firmware_version": "0209",
            "send_time": "20170801083616",
            "count": "19E1",
            "report_id": 1,
            "report_type": 0,
            "mcc": 268,
            "mnc": 3,
            "lac": 6300,
            "cell_id": 6853,
            "accuracy": 0.0,
            "battery": 100,
            "external_power": 14206,
            "state": "42",
            "moving": True,
            "trip_mileage": 0.0,
            "mileage": 528.7,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00000:00:00",
            "last_fix": "2017-08-01T08:26:42.000Z",
        },
    },
)

INF_NAMED: Final = HexGolden(
    bytes.fromhex(
        "2B494E4601FD7F0076676231303000000045010202090104020500004100054007E107150B061D000000"
        "3F010E02580000000000D0312A1013648935103226313921591F1200000000000302680003189C1AC300"
        "1B02680003189C1AC4000D02680003189C1AC5001207E107150B0D3704F658060D0A"
    ),
    "GTINF",
    "",
    b"+SACK:04F6$",
    {
        "timestamp": "2017-07-21T11:13:55.000Z",
        "attributes": {
            "report": "GTINF",
            "event_name": "device_information",
            "version": "450102",
            "model": "GB100",
            "firmware_version": "0209",
            "device_name": "gb100",
            "send_time": "20170721111355",
            "count": "04F6",
        },
    },
)

ACK_NAMED: Final = HexGolden(
    bytes.fromhex("2B41434B017F244501010108676231303000000000FFFF07E1070B03112D054DFE030D0A"),
    "GTSRI",
    "",
    b"+SACK:054D$",
    {
        "timestamp": "2017-07-11T03:17:45.000Z",
        "attributes": {
            "report": "GTSRI",
            "event_name": "command_answer",
            "version": "450101",
            "model": "GB100",
            "firmware_version": "0108",
            "device_name": "gb100",
            "send_time": "20170711031745",
            "count": "054D",
            "serial": "FFFF",
        },
    },
)

LGN: Final = HexGolden(
    bytes.fromhex("2B4C474E00FF0026FE110B07020106563454040D054905000007E4031911213905083ABD0D0A"),
    "GTLGN",
    "865284041305735",
    b"+SACK:0508$",
    {
        "timestamp": "2020-03-25T17:33:57.000Z",
        "attributes": {
            "report": "GTLGN",
            "version": "FE110B",
            "firmware_version": "0702",
            "send_time": "20200325173357",
            "count": "0508",
        },
    },
)

FRI_GV300CAN: Final = HexGolden(
    bytes.fromhex(
        "2B5253500700FE0FBF005D4B03050318564F5F0300520A04000100211810010100000000AF004306FB3F"
        "DE01E5D3C807E3041802093904600000550BB96900000000000000000000000000000000000007E30418"
        "02093ABBCD1D7C0D0A"
    ),
    "GTFRI",
    "867995030082104",
    b"+SACK:BBCD$",
    {
        "timestamp": "2019-04-24T02:09:57.000Z",
        "latitude": 31.839176,
        "longitude": 117.129182,
        "altitude": 67,
        "angle": 175,
        "speed": 0,
        "satellites": 8,
        "fix": True,
        "attributes": {
            "report": "GTFRI",
            "event_name": "periodic",
            "version": "4B0305",
            "firmware_version": "0318",
            "send_time": "20190424020958",
            "count": "BBCD",
            "report_id": 1,
            "report_type": 0,
            "mcc": 460,
            "mnc": 0,
            "lac": 21771,
            "cell_id": 47465,
            "accuracy": 1.0,
            "battery": 0,
            "inputs": 1,
            "outputs": 0,
            "state": "21",
            "ignition": True,
            "moving": False,
            "trip_mileage": 0.0,
            "mileage": 0.0,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00000:00:00",
        },
    },
)

IGN_GV300CAN: Final = HexGolden(
    bytes.fromhex(
        "2B4556540D00FE5FBF00644B03050318564F5F0300520A0455000000000100221900001CC70100000000"
        "00F8006906FB404901E5D43B07E3041805103A04600000550BB969000000000000000000000000000000"
        "00000007E30418051102BE1D62A20D0A"
    ),
    "GTIGN",
    "867995030082104",
    b"+SACK:BE1D$",
    {
        "timestamp": "2019-04-24T05:17:02.000Z",
        "latitude": 31.839291,
        "longitude": 117.129289,
        "altitude": 105,
        "angle": 248,
        "speed": 0,
        "satellites": 9,
        "fix": False,
        "attributes": {
            "report": "GTIGN",
            "event_name": "ignition_on",
            "version": "4B0305",
            "firmware_version": "0318",
            "send_time": "20190424051702",
            "count": "BE1D",
            "duration": 7367,
            "mcc": 460,
            "mnc": 0,
            "lac": 21771,
            "cell_id": 47465,
            "accuracy": 0.0,
            "battery": 85,
            "external_power": 0,
            "analog_1": 0,
            "inputs": 1,
            "outputs": 0,
            "state": "22",
            "ignition": True,
            "moving": True,
            "trip_mileage": 0.0,
            "mileage": 0.0,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00000:00:00",
            "last_fix": "2019-04-24T05:16:58.000Z",
        },
    },
)

ACK_GV300CAN: Final = HexGolden(
    bytes.fromhex("2B41434B02EF244B03050318564F5F0300520A0400002807E30418020918BBCA4CD10D0A"),
    "GTQSS",
    "867995030082104",
    b"+SACK:BBCA$",
    {
        "timestamp": "2019-04-24T02:09:24.000Z",
        "attributes": {
            "report": "GTQSS",
            "event_name": "command_answer",
            "version": "4B0305",
            "firmware_version": "0318",
            "send_time": "20190424020924",
            "count": "BBCA",
            "serial": "0028",
        },
    },
)

HBD_GV300CAN: Final = HexGolden(
    bytes.fromhex("2B484244EF204B03060319564F5F0300520A0407E3041A082D010455D37B0D0A"),
    "GTHBD",
    "867995030082104",
    b"+SACK:GTHBD,,0455$",
    None,
)

HBD_GV200: Final = HexGolden(
    bytes.fromhex("2B484244EB1E010C01235C1F0343231B0007DC011E092026000DE29C0D0A"),
    "GTHBD",
    "359231036735270",
    b"+SACK:GTHBD,,000D$",
    None,
)

ERI_GV58: Final = HexGolden(
    bytes.fromhex(
        "2B5253501209FE3FBF00028002007380200309020915564A58060E07630464320C00000000110C100000"
        "0400030000000001010000000110023EFCF35331FE9BB00707E904080E3324072400048632043A1C0900"
        "0000000000000000000000000000040B1E0007E904080E33271D00C2C20D0A"
    ),
    "GTERI",
    "867488061407994",
    b"+SACK:1D00$",
    {
        "timestamp": "2025-04-08T14:51:36.000Z",
        "latitude": -23.351289,
        "longitude": -51.162319,
        "altitude": 574,
        "angle": 272,
        "speed": 0,
        "satellites": 12,
        "fix": True,
        "attributes": {
            "report": "GTERI",
            "event_name": "periodic",
            "version": "8020030902",
            "firmware_version": "0915",
            "send_time": "20250408145139",
            "count": "1D00",
            "second_mask": "00028002",
            "report_id": 1,
            "report_type": 0,
            "raw": "000004000300000000",
            "mcc": 724,
            "mnc": 4,
            "lac": 34354,
            "cell_id": 70917129,
            "accuracy": 1.0,
            "battery": 100,
            "external_power": 12812,
            "analog_mode": 0,
            "inputs": 0,
            "outputs": 0,
            "state": "11",
            "ignition": False,
            "moving": False,
            "trip_mileage": 0.0,
            "mileage": 0.0,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00004:11:30",
        },
    },
)

FRI_NO_PLACE: Final = HexGolden(
    bytes.fromhex(
        "2B5253500700FE0FBF005D2F06050A060C22384E5A0B0B01000100210010010000000000000000000000"
        "0000000000000000000000000460000056782D8000000000000000000000000000000000000007E10318"
        "070723005352160D0A"
    ),
    "GTFRI",
    "123456789011111",
    b"+SACK:0053$",
    {
        "timestamp": "2017-03-24T07:07:35.000Z",
        "attributes": {
            "report": "GTFRI",
            "event_name": "periodic",
            "version": "2F0605",
            "model": "GV55",
            "firmware_version": "0A06",
            "send_time": "20170324070735",
            "count": "0053",
            "battery": 0,
            "inputs": 1,
            "outputs": 0,
            "state": "21",
            "ignition": True,
            "moving": False,
            "satellites": 0,
            "report_id": 1,
            "report_type": 0,
            "mcc": 460,
            "mnc": 0,
            "lac": 22136,
            "cell_id": 11648,
            "trip_mileage": 0.0,
            "mileage": 0.0,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00000:00:00",
        },
    },
)

BTC_CAN_DATA: Final = HexGolden(
    bytes.fromhex(
        "2B4256540703FE1FFF00B9410400040867763735000000000000000100120A010000330101170259FA72"
        "A26400FF937007E30218131D22033400202F56065E2CDC00000000000001990800000000000000000000"
        "00000000000FFFFF00000000000000000000000000000000000000000000000000000000000000000000"
        "000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        "0000000007E30218131D3898EE3AD20D0A"
    ),
    "GTBTC",
    "",
    b"+SACK:98EE$",
    {
        "timestamp": "2019-02-24T19:29:56.000Z",
        "latitude": 16.749424,
        "longitude": -93.15062,
        "altitude": 601,
        "angle": 279,
        "speed": 51,
        "satellites": 10,
        "fix": False,
        "attributes": {
            "report": "GTBTC",
            "event_name": "charging_started",
            "version": "410400",
            "model": "GV75W",
            "firmware_version": "0408",
            "device_name": "gv75",
            "send_time": "20190224192956",
            "count": "98EE",
            "mcc": 334,
            "mnc": 20,
            "lac": 12118,
            "cell_id": 106835164,
            "accuracy": 0.0,
            "speed_kmh": 51.1,
            "battery": 0,
            "external_power": 0,
            "inputs": 1,
            "outputs": 0,
            "state": "12",
            "ignition": False,
            "moving": True,
            "trip_mileage": 0.0,
            "mileage": 409.8,
            "trip_hour_meter": "00000:00:00",
            "hour_meter": "00000:00:00",
            "raw_tail": "00000FFFFF" + 160 * "0",
            "last_fix": "2019-02-24T19:29:34.000Z",
        },
    },
)

EPS_GV55: Final = HexGolden(
    bytes.fromhex(
        "2B52535004003E1FBF00560F0106060956155D0209190905582F5B0000110701010100000000AB0020F8"
        "B0603902EE332B07E20C1B00062E030207201FA4BE2900000000000059350307E20C1B00062EC5CE2C97"
        "0D0A"
    ),
    "GTEPS",
    "862193020925095",
    b"+SACK:C5CE$",
    {
        "timestamp": "2018-12-27T00:06:46.000Z",
        "latitude": 49.165099,
        "longitude": -122.658759,
        "altitude": 32,
        "angle": 171,
        "speed": 0,
        "satellites": 7,
        "fix": True,
        "attributes": {
            "report": "GTEPS",
            "version": "0F0106",
            "model": "GV55",
            "firmware_version": "0609",
            "send_time": "20181227000646",
            "count": "C5CE",
            "report_id": 0,
            "report_type": 1,
            "mcc": 302,
            "mnc": 720,
            "lac": 8100,
            "cell_id": 48681,
            "accuracy": 1.0,
            "battery": 88,
            "external_power": 12123,
            "inputs": 0,
            "outputs": 0,
            "state": "11",
            "ignition": False,
            "moving": False,
            "trip_mileage": 0.0,
            "mileage": 22837.3,
        },
    },
)

DIS_WIDE_CELL: Final = HexGolden(
    bytes.fromhex(
        "2B52535005003E1FBF00585001000207563002030139370064364C03002103110100000000007F00CAFB"
        "3FDD12029A574307E20C1A002F2F03020720EAD6003D489600000000000002B90207E20C1A0033142128"
        "F8390D0A"
    ),
    "GTDIS",
    "864802030157550",
    b"+SACK:2128$",
    {
        "timestamp": "2018-12-26T00:51:20.000Z",
        "latitude": 43.669315,
        "longitude": -79.700718,
        "altitude": 202,
        "angle": 127,
        "speed": 0,
        "satellites": 3,
        "fix": False,
        "attributes": {
            "report": "GTDIS",
            "event_name": "digital_input",
            "version": "500100",
            "model": "GV55W",
            "firmware_version": "0207",
            "send_time": "20181226005120",
            "count": "2128",
            "report_id": 1,
            "report_type": 1,
            "mcc": 302,
            "mnc": 720,
            "lac": 60118,
            "cell_id": 4016278,
            "accuracy": 0.0,
            "battery": 100,
            "external_power": 13900,
            "inputs": 3,
            "outputs": 0,
            "state": "21",
            "ignition": True,
            "moving": False,
            "trip_mileage": 0.0,
            "mileage": 697.2,
            "last_fix": "2018-12-26T00:47:47.000Z",
        },
    },
)

SPD_GV55: Final = HexGolden(
    bytes.fromhex(
        "2B52535009003E1FBF00560F0105050756155D02091127095838FF0300220A00010100250500D10093FB"
        "3E8F9002964A3E07E20C1B060225030207201CE8FCC200000002000074FF0107E20C1B060226E06722CF"
        "0D0A"
    ),
    "GTSPD",
    "862193020917399",
    b"+SACK:E067$",
    {
        "timestamp": "2018-12-27T06:02:37.000Z",
        "latitude": 43.403838,
        "longitude": -79.786096,
        "altitude": 147,
        "angle": 209,
        "speed": 38,
        "satellites": 10,
        "fix": True,
        "attributes": {
            "report": "GTSPD",
            "event_name": "speed",
            "version": "0F0105",
            "model": "GV55",
            "firmware_version": "0507",
            "send_time": "20181227060238",
            "count": "E067",
            "report_id": 0,
            "report_type": 0,
            "mcc": 302,
            "mnc": 720,
            "lac": 7400,
            "cell_id": 64706,
            "accuracy": 1.0,
            "speed_kmh": 37.5,
            "battery": 88,
            "external_power": 14591,
            "inputs": 3,
            "outputs": 0,
            "state": "22",
            "ignition": True,
            "moving": True,
            "trip_mileage": 0.2,
            "mileage": 29951.1,
        },
    },
)

IDF_GV55: Final = HexGolden(
    bytes.fromhex(
        "2B45565411003E1FBF00590F0105050756155D02091360055A37B00100220B0000004401000044080166"
        "000EF8B6480802EBD1C407E20C19002125030207202328BE4800000001000074550707E20C19002126D8"
        "E074F80D0A"
    ),
    "GTIDF",
    "862193020919965",
    b"+SACK:D8E0$",
    {
        "timestamp": "2018-12-25T00:33:38.000Z",
        "latitude": 49.009092,
        "longitude": -122.271736,
        "altitude": 14,
        "angle": 358,
        "speed": 69,
        "satellites": 11,
        "fix": False,
        "attributes": {
            "report": "GTIDF",
            "event_name": "idling_ended",
            "version": "0F0105",
            "model": "GV55",
            "firmware_version": "0507",
            "send_time": "20181225003338",
            "count": "D8E0",
            "duration": 68,
            "mcc": 302,
            "mnc": 720,
            "lac": 9000,
            "cell_id": 48712,
            "accuracy": 0.0,
            "speed_kmh": 68.8,
            "battery": 90,
            "external_power": 14256,
            "inputs": 1,
            "outputs": 0,
            "state": "22",
            "ignition": True,
            "moving": True,
            "trip_mileage": 0.1,
            "mileage": 29781.7,
            "last_fix": "2018-12-25T00:33:37.000Z",
        },
    },
)

GIR_GV55: Final = HexGolden(
    bytes.fromhex(
        "2B494E460A807D004D56155D020B4528040F02020706060403100260211957DB001B0310026021195A33"
        "001A03100260211957DC000903100260211957DD002507E20C1B0C1A18BF2617AD0D0A"
    ),
    "GTGIR",
    "862193021169404",
    b"+SACK:BF26$",
    {
        "timestamp": "2018-12-27T12:26:24.000Z",
        "attributes": {
            "report": "GTGIR",
            "version": "0F0202",
            "model": "GV55",
            "firmware_version": "0706",
            "send_time": "20181227122624",
            "count": "BF26",
        },
    },
)

ACK_GV55: Final = HexGolden(
    bytes.fromhex("2B41434B086F242F0500070656155D025808570100FFFF07E20C1B090714013430E70D0A"),
    "GTOUT",
    "862193028808871",
    b"+SACK:0134$",
    {
        "timestamp": "2018-12-27T09:07:20.000Z",
        "attributes": {
            "report": "GTOUT",
            "event_name": "command_answer",
            "version": "2F0500",
            "model": "GV55",
            "firmware_version": "0706",
            "send_time": "20181227090720",
            "count": "0134",
            "serial": "FFFF",
        },
    },
)

ERI_NO_PLACE: Final = HexGolden(
    bytes.fromhex(
        "2B52535012003EFFBF000000020070FC10010402012C5E0010531D006400000800000000000000110010"
        "000128734152050000110102FEFA010000000000000000000000000000000007B2010100000000FF0003"
        "EAEA000004DB00000000000000000007E20C1503352135D00B590D0A"
    ),
    "GTERI",
    "014494001683290",
    b"+SACK:35D0$",
    {
        "timestamp": "2018-12-21T03:53:33.000Z",
        "attributes": {
            "report": "GTERI",
            "event_name": "periodic",
            "version": "FC1001",
            "model": "GV600W",
            "firmware_version": "0402",
            "send_time": "20181221035333",
            "count": "35D0",
            "second_mask": "00000002",
            "battery": 100,
            "external_power": 0,
            "analog_mode": 2048,
            "analog_1": 0,
            "analog_2": 0,
            "inputs": 0,
            "outputs": 0,
            "state": "11",
            "ignition": False,
            "moving": False,
            "satellites": 0,
            "report_id": 1,
            "report_type": 0,
            "raw": "000128734152050000110102FEFA",
            "mcc": 255,
            "mnc": 3,
            "lac": 60138,
            "cell_id": 1243,
            "trip_mileage": 0.0,
            "mileage": 0.0,
        },
    },
)

RTL_BINARY_CELL: Final = HexGolden(
    bytes.fromhex(
        "2B4253500B003E1FBF0058DC01000105563454045D073D086400000000110C00010100000000000009F8"
        "AEC6DA02EF5D8007E4061309001F012E02D01FA40000BD4E00000000000000000007E4061309001F1FAA"
        "FE270D0A"
    ),
    "GTRTL",
    "865284049307618",
    b"+SACK:1FAA$",
    {
        "timestamp": "2020-06-19T09:00:31.000Z",
        "latitude": 49.241472,
        "longitude": -122.763558,
        "altitude": 9,
        "angle": 0,
        "speed": 0,
        "satellites": 12,
        "fix": True,
        "attributes": {
            "report": "GTRTL",
            "event_name": "requested",
            "version": "DC0100",
            "model": "GV600MG",
            "firmware_version": "0105",
            "send_time": "20200619090031",
            "count": "1FAA",
            "report_id": 0,
            "report_type": 0,
            "mcc": 302,
            "mnc": 720,
            "lac": 8100,
            "cell_id": 48462,
            "accuracy": 1.0,
            "battery": 100,
            "external_power": 0,
            "inputs": 0,
            "outputs": 0,
            "state": "11",
            "ignition": False,
            "moving": False,
            "trip_mileage": 0.0,
            "mileage": 0.0,
        },
    },
)

TOW_GV75W: Final = HexGolden(
    bytes.fromhex(
        "2B52535001003E1FBF005841040004085630020300431A026200000000160B000101000000009E08C1FA"
        "156C880130E1A607E20C1A012A0403340050762B001A39C700000000000015470207E20C1A012A05A0A3"
        "941D0D0A"
    ),
    "GTTOW",
    "864802030067262",
    b"+SACK:A0A3$",
    {
        "timestamp": "2018-12-26T01:42:04.000Z",
        "latitude": 19.98071,
        "longitude": -99.259256,
        "altitude": 2241,
        "angle": 158,
        "speed": 0,
        "satellites": 11,
        "fix": True,
        "attributes": {
            "report": "GTTOW",
            "event_name": "tow",
            "version": "410400",
            "model": "GV75W",
            "firmware_version": "0408",
            "send_time": "20181226014205",
            "count": "A0A3",
            "report_id": 0,
            "report_type": 0,
            "mcc": 334,
            "mnc": 50,
            "lac": 30251,
            "cell_id": 1718727,
            "accuracy": 1.0,
            "battery": 98,
            "external_power": 0,
            "inputs": 0,
            "outputs": 0,
            "state": "16",
            "ignition": False,
            "moving": True,
            "trip_mileage": 0.0,
            "mileage": 5447.2,
        },
    },
)

ERI_TWO_SENSORS: Final = HexGolden(
    bytes.fromhex(
        "2B42535012003E9FBF000000020078DC01000105563454045C4E4E0564347234310000110B10000228FF"
        "9D19031704BF0102004A28FFFF5FA11604B90102FFE60101000000000000A8FBE92F7902D1327507E407"
        "0D100A2B0136019A07040386EF0A00000000000000000007E4070D100A2D2B9038190D0A"
    ),
    "GTERI",
    "865284049278785",
    b"+SACK:2B90$",
    {
        "timestamp": "2020-07-13T16:10:43.000Z",
        "latitude": 47.264373,
        "longitude": -68.604039,
        "altitude": 168,
        "angle": 0,
        "speed": 0,
        "satellites": 11,
        "fix": True,
        "attributes": {
            "report": "GTERI",
            "event_name": "periodic",
            "version": "DC0100",
            "model": "GV600MG",
            "firmware_version": "0105",
            "send_time": "20200713161045",
            "count": "2B90",
            "second_mask": "00000002",
            "report_id": 1,
            "report_type": 0,
            "raw": "000228FF9D19031704BF0102004A28FFFF5FA11604B90102FFE6",
            "mcc": 310,
            "mnc": 410,
            "lac": 1796,
            "cell_id": 59174666,
            "accuracy": 1.0,
            "battery": 100,
            "external_power": 13426,
            "analog_2": 13361,
            "inputs": 0,
            "outputs": 0,
            "state": "11",
            "ignition": False,
            "moving": False,
            "trip_mileage": 0.0,
            "mileage": 0.0,
        },
    },
)

LBC_BUFFERED: Final = HexGolden(
    bytes.fromhex(
        "2B42535003003E17BF005C100300080456155D020D4C36062FD800011008007138067567719401010000"
        "0000000076023D98C802E7CF5107E301190A062F02550003EAEA04DB00000000000000000007E301190A"
        "0630EFC23DB50D0A"
    ),
    "GTLBC",
    "862193021376546",
    b"+SACK:EFC2$",
    {
        "timestamp": "2019-01-25T10:06:47.000Z",
        "latitude": 48.746321,
        "longitude": 37.59124,
        "altitude": 118,
        "angle": 0,
        "speed": 0,
        "satellites": 8,
        "fix": True,
        "attributes": {
            "report": "GTLBC",
            "event_name": "call",
            "version": "100300",
            "model": "GV55LITE",
            "firmware_version": "0804",
            "send_time": "20190125100648",
            "count": "EFC2",
            "report_id": 0,
            "report_type": 0,
            "raw": "71380675677194",
            "mcc": 255,
            "mnc": 3,
            "lac": 60138,
            "cell_id": 1243,
            "accuracy": 1.0,
            "external_power": 12248,
            "inputs": 0,
            "outputs": 1,
            "state": "10",
            "trip_mileage": 0.0,
            "mileage": 0.0,
        },
    },
)

HEX_GOLDEN: Final = (
    EVENT_GB100,
    VGN_GB100,
    LBC_NAMED,
    FRI_GB100,
    INF_NAMED,
    ACK_NAMED,
    LGN,
    FRI_GV300CAN,
    IGN_GV300CAN,
    ACK_GV300CAN,
    HBD_GV300CAN,
    HBD_GV200,
    ERI_GV58,
    FRI_NO_PLACE,
    BTC_CAN_DATA,
    EPS_GV55,
    DIS_WIDE_CELL,
    SPD_GV55,
    IDF_GV55,
    GIR_GV55,
    ACK_GV55,
    ERI_NO_PLACE,
    RTL_BINARY_CELL,
    TOW_GV75W,
    ERI_TWO_SENSORS,
    LBC_BUFFERED,
)
#: Names of :data:`HEX_GOLDEN`, for test IDs.
HEX_IDS: Final = tuple(
    f"{golden.data[:4].decode()}-{golden.report}-{index}" for index, golden in enumerate(HEX_GOLDEN)
)
