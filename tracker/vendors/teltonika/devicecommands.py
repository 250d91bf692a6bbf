"""The text commands of a simulated device: execution and answers.

The answers are in the style of an FMB120. Commands are case-sensitive.
Source: Teltonika wiki, "FMB SMS/GPRS Commands" with the page of each command; "Codec",
chapter "Codec for communication over GPRS messages", for answers to getinfo, getver and
getio. The answer to an unknown command is not documented; :data:`UNKNOWN` is made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

from attrs import define, field

from tracker.outcomes import Decoded
from tracker.vendors.simulation import Moment
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    Message,
    decode_messages,
    encode_message,
)

#: Maximum length of the data in a frame that a device accepts, in bytes.
MAX_COMMAND_BYTES: Final = 4096

#: Answer to a command that is unknown or has invalid arguments.
UNKNOWN: Final = "Unknown command or invalid format"

#: Ids of the codecs that carry commands.
_COMMAND_CODECS: Final = frozenset(
    codec_id for codec_id, codec in MESSAGE_CODECS.items() if codec.name in ("12", "14")
)


@define
class CommandInterpreter:
    """Interpreter of a device's commands, with the parameters and outputs that they set."""

    imei: str
    started: float
    """Time of the last start, in UNIX seconds."""
    restarts: int = 0
    parameters: dict[str, str] = field(factory=dict)
    outputs: list[str] = field(factory=lambda: ["0", "0"])

    def execute(self, text: str, moment: Moment) -> str | None:
        """Execute one command.

        :return: the answer; None if the device restarts instead.
        """
        name, _, arguments = text.rstrip("\r\n").partition(" ")
        if name not in _COMMANDS:
            return UNKNOWN
        pattern, handler = _COMMANDS[name]
        matched = pattern.fullmatch(arguments)
        return UNKNOWN if matched is None else handler(self, moment, matched)


def maybe_command(data: bytes) -> Message | None:
    """Return the command in the data of a frame, or None if the data is anything else."""
    if data[0] not in _COMMAND_CODECS:
        return None
    decoded = decode_messages(data)
    if not isinstance(decoded, Decoded) or not decoded.value.parts:
        return None
    command = decoded.value.parts[0]  # the server sends one in a frame
    return command if command.type == COMMAND else None


def answer_frame(command: Message, imei: str, type_: int, text: str = "") -> bytes:
    """Return the frame with which device ``imei`` answers a command, in the command's codec.

    :param type_: RESPONSE or NACK.
    """
    own_imei = imei if command.codec.addressed else None
    return encode_frame(
        encode_message(Message(command.codec, type_, text.encode("utf-8"), imei=own_imei))
    )


_Handler: TypeAlias = Callable[[CommandInterpreter, Moment, re.Match[str]], str | None]


def _getinfo(interpreter: CommandInterpreter, moment: Moment, _: re.Match[str]) -> str:
    started, now = _utc(interpreter.started), _utc(moment.time)
    return (
        f"INI:{_date(started)} {_hour(started)} RTC:{_date(now)} {_hour(now)} "
        f"RST:{interpreter.restarts} ERR:0 SR:0 BR:0 CF:0 FG:0 FL:0 TU:0/0 UT:0 SMS:0 NOGPS:0:0 "
        f"GPS:1 SAT:{moment.satellites} RS:3 RF:65 SF:1 MD:0"
    )


def _getver(interpreter: CommandInterpreter, moment: Moment, _: re.Match[str]) -> str:
    started = _utc(interpreter.started)
    return (
        f"Ver:03.28.07_00 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 IMEI:{interpreter.imei} "
        f"Init:{started:%Y-%m-%d} {_hour(started)} Uptime:{moment.time - interpreter.started:.0f} "
        "MAC:000000000000 SPC:1(0) AXL:0 OBD:0 BL:1.6 BT:4"
    )


def _getgps(_: CommandInterpreter, moment: Moment, __: re.Match[str]) -> str:
    fix, now = moment.fix, _utc(moment.time)
    return (
        f"GPS:1 Sat:{moment.satellites} Lat:{fix.latitude:.7f} Long:{fix.longitude:.7f} "
        f"Alt:{fix.altitude} Speed:{fix.speed} Dir:{fix.angle} "
        f"Date:{_date(now)} Time:{now:%H:%M:%S}"
    )


def _getio(interpreter: CommandInterpreter, _: Moment, __: re.Match[str]) -> str:
    first, second = interpreter.outputs
    return f"DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:0 DO1:{first} DO2:{second}"


def _setdigout(interpreter: CommandInterpreter, _: Moment, matched: re.Match[str]) -> str:
    # The timeout is part of the answer only: the outputs of a simulated device control nothing.
    answers = []
    for number, state in enumerate(matched["states"]):
        if state == "?":
            answers.append(f"DOUT{number + 1}:IGNORED")
            continue
        interpreter.outputs[number] = state
        seconds = matched[f"seconds{number + 1}"]
        timeout = "INFINITY" if seconds in (None, "?") else f"{seconds}s"
        answers.append(f"DOUT{number + 1}:{state} Timeout:{timeout}")
    return " ".join(answers)


def _setparam(interpreter: CommandInterpreter, _: Moment, matched: re.Match[str]) -> str:
    interpreter.parameters[matched["id"]] = matched["value"]
    return f"New value {matched['id']}:{matched['value']};"


def _getparam(interpreter: CommandInterpreter, _: Moment, matched: re.Match[str]) -> str:
    return f"Param ID:{matched['id']} Val:{interpreter.parameters.get(matched['id'], '0')}"


def _cpureset(interpreter: CommandInterpreter, moment: Moment, _: re.Match[str]) -> None:
    interpreter.restarts += 1
    interpreter.started = moment.time
    interpreter.outputs = ["0", "0"]


def _utc(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC)


def _date(time: datetime) -> str:
    return f"{time.year}/{time.month}/{time.day}"


def _hour(time: datetime) -> str:
    return f"{time.hour}:{time.minute}"


_NO_ARGUMENTS: Final = re.compile("")
_OUTPUTS: Final = re.compile(
    r"(?P<states>[01?]{1,2})(?: (?P<seconds1>[0-9]+|\?))?(?: (?P<seconds2>[0-9]+|\?))?"
)

#: First word of a command → pattern of its arguments, and its handler.
_COMMANDS: Final[dict[str, tuple[re.Pattern[str], _Handler]]] = {
    "getinfo": (_NO_ARGUMENTS, _getinfo),
    "getver": (_NO_ARGUMENTS, _getver),
    "getgps": (_NO_ARGUMENTS, _getgps),
    "getio": (_NO_ARGUMENTS, _getio),
    "setdigout": (_OUTPUTS, _setdigout),
    "setparam": (re.compile(r"(?P<id>[0-9]+):(?P<value>.*)"), _setparam),
    "getparam": (re.compile(r"(?P<id>[0-9]+)"), _getparam),
    "cpureset": (_NO_ARGUMENTS, _cpureset),
}
