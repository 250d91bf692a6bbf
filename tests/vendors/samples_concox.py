"""Samples of the GT06 protocol."""

from __future__ import annotations

from typing import Final

from tests.vendors.samples import Samples
from tracker.vendors.concox.frames import Frame, encode_frame

_IMEI: Final = "123456789012345"
_POSITION: Final = bytes.fromhex("0F0C1D023305C9027AC8180C46586000140001CC00287D001F71000000")
_RECORD: Final = encode_frame(Frame(0x22, _POSITION, 8))
#: Offset of the server flag in a command, and its bytes.
_FLAG: Final = slice(5, 9)


def _answer(command: bytes) -> bytes:
    content = command[_FLAG] + b"\1" + b"DYD=Success!"
    return encode_frame(Frame(0x21, content, 9, extended=True))


SAMPLES: Final = Samples(
    device_id=_IMEI,
    login=bytes.fromhex("78780D01012345678901234500018CDD0D0A"),
    record=_RECORD,
    entries=1,
    # Sent again from the device's flash: with the flag of a re-upload, and another serial.
    repetition=encode_frame(Frame(0x22, _POSITION[:-1] + b"\1", 9)),
    never_repeated=_RECORD,
    fence=bytes.fromhex("78780A134401040001000508450D0A"),
    fence_reply=bytes.fromhex("787805130005AFD50D0A"),
    bad=_RECORD[:20] + bytes((_RECORD[20] ^ 1,)) + _RECORD[21:],
    command=b"DYD#",
    answer=_answer,
    wrong_ids=("", "x", _IMEI[:-1], f"{_IMEI}0", f"{_IMEI}\n", "12345678901234A"),
)
