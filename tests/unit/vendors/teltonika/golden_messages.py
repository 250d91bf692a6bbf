"""Frames of commands and messages with their content; names have the prefixes of ``golden``."""

from __future__ import annotations

from attrs import field, frozen

from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    Messages,
)


@frozen(eq=False)
class GoldenMessage:
    """A frame and its messages."""

    name: str
    frame: bytes = field(repr=False)
    messages: Messages = field(repr=False)

    @property
    def message(self) -> Message:
        """The message of a frame that has one."""
        (message,) = self.messages.parts
        return message

    @property
    def data(self) -> bytes:
        """Data of the frame: codec id to second quantity."""
        return self.frame[8:-4]


def alone(message: Message) -> Messages:
    """Return the messages of a frame with one message."""
    return Messages(message.codec, (message,))


def _golden(
    name: str,
    frame: str,
    codec_id: int,
    type_: int,
    content: bytes,
    timestamp: int | None = None,
    imei: str | None = None,
) -> GoldenMessage:
    message = Message(MESSAGE_CODECS[codec_id], type_, content, timestamp, imei)
    return GoldenMessage(name, bytes.fromhex(frame), alone(message))


COMMAND_12 = _golden(
    "doc-12-command",
    "00000000 0000000F 0C 01 05 00000007 676574696E666F 01 00004312",
    *(0x0C, COMMAND, b"getinfo"),
)
ANSWER_12 = _golden(
    "doc-12-answer",
    "00000000 00000090 0C 01 06 00000088"
    "494E493A323031392F372F323220373A3232205254433A323031392F372F323220373A3533205253543A32"
    "204552523A312053523A302042523A302043463A302046473A3020464C3A302054553A302F302055543A30"
    "20534D533A30204E4F4750533A303A3330204750533A31205341543A302052533A332052463A3635205346"
    "3A31204D443A30"
    "01 0000C78F",
    0x0C,
    RESPONSE,
    b"INI:2019/7/22 7:22 RTC:2019/7/22 7:53 RST:2 ERR:1 SR:0 BR:0 CF:0 FG:0 FL:0 TU:0/0 UT:0"
    b" SMS:0 NOGPS:0:30 GPS:1 SAT:0 RS:3 RF:65 SF:1 MD:0",
)
INPUTS_12 = _golden(
    "doc-12-inputs",
    "00000000 00000037 0C 01 06 0000002F"
    "4449313A31204449323A30204449333A302041494E313A302041494E323A313639323420444F313A302044"
    "4F323A31"
    "01 000066E3",
    *(0x0C, RESPONSE, b"DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:16924 DO1:0 DO2:1"),
)
OUTPUTS_12 = _golden(
    "capture-12-command",
    "00000000 00000014 0C 01 05 0000000C 7365746469676F7574203131 01 0000BED5",
    *(0x0C, COMMAND, b"setdigout 11"),
)
SERIAL_13 = _golden(
    "capture-13",
    "00000000 00000024 0D 01 06 0000001C 642B3AD1"
    "4754534C7C367C317C307C31323734393838347C317C0D0A"
    "01 0000EC11",
    *(0x0D, RESPONSE, b"GTSL|6|1|0|12749884|1|\r\n", 1_680_554_705),
)
ODD_TIME_13 = _golden(
    "doc-13-with-half-of-a-time",
    "00000000 00000013 0D 01 06 0000000B 0A81C320 676574696E666F 01 00001D6B",
    *(0x0D, RESPONSE, b"getinfo", 0x0A81C320),
)
#: The time has eight bytes, in milliseconds.
LONG_TIME_13 = _golden(
    "doc-13-with-a-time-of-8-bytes",
    "00000000 00000017 0D 01 05 0000000F 0000016C0A81C320 676574696E666F 01 00006855",
    *(0x0D, COMMAND, b"getinfo", 1_563_544_372_000),
)
COMMAND_14 = _golden(
    "doc-14-command",
    "00000000 00000016 0E 01 05 0000000E 0352093081452251 676574766572 01 0000D2C1",
    *(0x0E, COMMAND, b"getver", None, "352093081452251"),
)
ANSWER_14 = _golden(
    "doc-14-answer",
    "00000000 000000AB 0E 01 06 000000A3 0352093081452251"
    "5665723A30332E31382E31345F3034204750533A41584E5F352E31305F333333332048773A464D42313230"
    "204D6F643A313520494D45493A33353230393330383134353232353120496E69743A323031382D31312D32"
    "3220373A313320557074696D653A3137323334204D41433A363042444430303136323631205350433A3128"
    "30292041584C3A30204F42443A3020424C3A312E362042543A34"
    "01 00007AAE",
    0x0E,
    RESPONSE,
    b"Ver:03.18.14_04 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 IMEI:352093081452251"
    b" Init:2018-11-22 7:13 Uptime:17234 MAC:60BDD0016261 SPC:1(0) AXL:0 OBD:0 BL:1.6 BT:4",
    None,
    "352093081452251",
)
REFUSAL_14 = _golden(
    "made-14-refusal",
    "00000000 00000010 0E 01 11 00000008 0352093081452468 01 0000635E",
    *(0x0E, NACK, b"", None, "352093081452468"),
)
SERIAL_15 = _golden(
    "doc-15",
    "00000000 0000001B 0F 01 0B 00000013 654B65A4 0123456789123456 48656C6C6F210A 01 000093D6",
    *(0x0F, 0x0B, b"Hello!\n", 1_699_440_036, "123456789123456"),
)
#: An answer in two parts.
TWO_PARTS_12 = GoldenMessage(
    "made-12-two-parts",
    bytes.fromhex(
        "00000000 00000017 0C 02 06 00000005 7061727431 06 00000005 7061727432 02 0000814B"
    ),
    Messages(
        MESSAGE_CODECS[0x0C],
        tuple(Message(MESSAGE_CODECS[0x0C], RESPONSE, text) for text in (b"part1", b"part2")),
    ),
)

#: Frames with one message.
GOLDEN_MESSAGES = (
    COMMAND_12,
    ANSWER_12,
    INPUTS_12,
    OUTPUTS_12,
    SERIAL_13,
    ODD_TIME_13,
    LONG_TIME_13,
    COMMAND_14,
    ANSWER_14,
    REFUSAL_14,
    SERIAL_15,
)
