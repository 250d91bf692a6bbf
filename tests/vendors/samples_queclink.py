"""Samples of the @Track protocol, in its ASCII encoding."""

from __future__ import annotations

from typing import Final

from tests.vendors.samples import Samples
from tracker.vendors.queclink.encoding import (
    Place,
    Sender,
    encode_answer,
    encode_fri,
    encode_report,
)

_DEVICE: Final = "A10000499AEF9B"
_TIME: Final = 1_710_504_600
_SENDER: Final = Sender(_DEVICE, 0x11F0, _TIME)
_PLACES: Final = [Place(_TIME + second, 2.35, 48.85, speed=36.5) for second in range(3)]
_RECORD: Final = encode_fri(_SENDER, _PLACES)


def _answer(command: bytes) -> bytes:
    made = encode_answer(command, _SENDER)
    assert made is not None
    return made


SAMPLES: Final = Samples(
    device_id=_DEVICE,
    record=_RECORD,
    entries=3,
    ack=b"+SACK:11F0$",
    repetition=encode_fri(_SENDER, _PLACES, buffered=True),
    never_repeated=encode_report("GTCSQ", _SENDER._replace(count_number=7), ("21", "0")),
    bad=_RECORD.replace(_DEVICE.encode(), b"A10000499AEF9x"),
    command=b"GTRTO=gv300,1,,,,,,",
    answer=_answer,
    datagram=_RECORD,
    datagram_ack=b"+SACK:11F0$",
    same_ids=(_DEVICE.lower(),),
    wrong_ids=("", "x", "1" * 13, "1" * 16, "A10000499AEF9B\n", "G10000499AEF9B"),
)
