"""The text commands of a simulated device."""

from __future__ import annotations

import pytest

from tests.unit.simulator.bench import IMEI, NOON
from tracker.outcomes import Decoded
from tracker.vendors.simulation import Fix, Moment
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.devicecommands import (
    UNKNOWN,
    CommandInterpreter,
    answer_frame,
    maybe_command,
)
from tracker.vendors.teltonika.envelope import decode_frame
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    decode_messages,
    encode_message,
)

MOMENT = Moment(NOON * 1000 + 3_725_500, Fix(41.3275042, 19.8187, 110, 214, 43), 14)


@pytest.fixture
def interpreter() -> CommandInterpreter:
    return CommandInterpreter(IMEI, NOON)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "getinfo",
            "INI:2024/3/15 12:0 RTC:2024/3/15 13:2 RST:0 ERR:0 SR:0 BR:0 CF:0 FG:0 FL:0 TU:0/0 "
            "UT:0 SMS:0 NOGPS:0:0 GPS:1 SAT:14 RS:3 RF:65 SF:1 MD:0",
        ),
        (
            "getver",
            f"Ver:03.28.07_00 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 IMEI:{IMEI} "
            "Init:2024-03-15 12:0 Uptime:3726 MAC:000000000000 SPC:1(0) AXL:0 OBD:0 BL:1.6 BT:4",
        ),
        (
            "getgps",
            "GPS:1 Sat:14 Lat:41.3275042 Long:19.8187000 Alt:110 Speed:43 Dir:214 "
            "Date:2024/3/15 Time:13:02:05",
        ),
        ("getio", "DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:0 DO1:0 DO2:0"),
        ("setdigout 1", "DOUT1:1 Timeout:INFINITY"),
        ("setdigout 11", "DOUT1:1 Timeout:INFINITY DOUT2:1 Timeout:INFINITY"),
        ("setdigout 01 30 60", "DOUT1:0 Timeout:30s DOUT2:1 Timeout:60s"),
        ("setdigout 01 ? 60", "DOUT1:0 Timeout:INFINITY DOUT2:1 Timeout:60s"),
        ("setdigout ?1 5", "DOUT1:IGNORED DOUT2:1 Timeout:INFINITY"),
        ("setparam 2004:example.org", "New value 2004:example.org;"),
        ("setparam 2001:", "New value 2001:;"),
        ("setparam 1:a:b c;2:d", "New value 1:a:b c;2:d;"),
        ("getparam 2004", "Param ID:2004 Val:0"),
        ("getio\r\n", "DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:0 DO1:0 DO2:0"),
    ],
)
def test_simulated_device_answers_each_supported_command(
    interpreter: CommandInterpreter, text: str, answer: str
) -> None:
    assert interpreter.execute(text, MOMENT) == answer


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "fly", "GETINFO", "getinfo now", " getinfo", "getver\x00", "setdigout"),
        *("setdigout 2", "setdigout 111", "setdigout 1 soon", "setdigout 11 1 2 3"),
        *("setparam", "setparam 5", "setparam a:1", "setparam :1", "getparam", "getparam a"),
        *("getparam 1;2", "cpureset now", "getparam ١"),
    ],
)
def test_unknown_command_is_rejected_and_changes_nothing(
    interpreter: CommandInterpreter, text: str
) -> None:
    assert interpreter.execute(text, MOMENT) == UNKNOWN
    assert interpreter == CommandInterpreter(IMEI, NOON)


def test_digital_outputs_keep_their_last_state(interpreter: CommandInterpreter) -> None:
    interpreter.execute("setdigout 10", MOMENT)
    interpreter.execute("setdigout ?1", MOMENT)
    assert str(interpreter.execute("getio", MOMENT)).endswith("DO1:1 DO2:1")
    interpreter.execute("setdigout 0", MOMENT)
    assert str(interpreter.execute("getio", MOMENT)).endswith("DO1:0 DO2:1")


def test_getparam_returns_the_last_value_set(interpreter: CommandInterpreter) -> None:
    for value in ("one", "two"):
        interpreter.execute(f"setparam 2004:{value}", MOMENT)
    assert interpreter.execute("getparam 2004", MOMENT) == "Param ID:2004 Val:two"
    assert interpreter.execute("getparam 2005", MOMENT) == "Param ID:2005 Val:0"


def test_simulated_restart_keeps_only_the_parameters(interpreter: CommandInterpreter) -> None:
    interpreter.execute("setparam 2004:example.org", MOMENT)
    interpreter.execute("setdigout 11", MOMENT)
    assert interpreter.execute("cpureset", MOMENT) is None
    parameters = {"2004": "example.org"}
    assert interpreter == CommandInterpreter(IMEI, MOMENT.time, restarts=1, parameters=parameters)


# Frames.


@pytest.mark.parametrize("imei", [None, IMEI, "490154203237518"])
def test_command_is_recognized_in_codecs_12_and_14(imei: str | None) -> None:
    codec = MESSAGE_CODECS[0x0C if imei is None else 0x0E]
    command = Message(codec, COMMAND, b"getver", imei=imei)
    assert maybe_command(encode_message(command)) == command


def test_data_other_than_a_command_is_not_recognized_as_one() -> None:
    codecs = MESSAGE_CODECS
    for other in (
        Message(codecs[0x0C], RESPONSE, b"getver"),
        Message(codecs[0x0E], NACK, b"", imei=IMEI),
        Message(codecs[0x0D], COMMAND, b"getver", NOON),
        Message(codecs[0x0F], COMMAND, b"getver", NOON, IMEI),
    ):
        assert maybe_command(encode_message(other)) is None
    assert maybe_command(encode_packet(CODEC_8, [Record(0, 0, 0, 0, 0, 0, 0, 0, 0)])) is None
    data = encode_message(Message(codecs[0x0C], COMMAND, b"getver"))
    assert maybe_command(data[:-1]) is None
    assert maybe_command(data[:3]) is None


@pytest.mark.parametrize(("codec_id", "imei"), [(0x0C, None), (0x0E, IMEI)], ids=["12", "14"])
@pytest.mark.parametrize(("type_", "text"), [(RESPONSE, "Val:°"), (NACK, "")])
def test_answer_has_the_codec_of_the_command(
    codec_id: int, imei: str | None, type_: int, text: str
) -> None:
    codec = MESSAGE_CODECS[codec_id]
    addressee = "490154203237518" if codec.addressed else None
    command = Message(codec, COMMAND, b"getver", imei=addressee)
    frame = decode_frame(answer_frame(command, IMEI, type_, text), 1000)
    assert isinstance(frame, Decoded)
    decoded = decode_messages(frame.value)
    assert isinstance(decoded, Decoded)
    assert decoded.value.parts == (Message(codec, type_, text.encode(), imei=imei),)
