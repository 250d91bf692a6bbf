"""Samples of the @Track protocol, in both of its encodings."""

from __future__ import annotations

from typing import Final

from tests.unit.vendors.queclink.hexencoding import encode_hex_answer, encode_hex_fri
from tests.vendors.samples import Samples
from tracker.vendors.queclink.commands import written_serial
from tracker.vendors.queclink.encoding import (
    Place,
    Sender,
    encode_answer,
    encode_fri,
    encode_report,
)

_DEVICE: Final = "A10000499AEF9B"
_SETTINGS: Final = {"password_file": {"*": "gv300"}}
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
    command=b"GTRTO=,1,,,,,,",
    answer=_answer,
    datagram=_RECORD,
    datagram_ack=b"+SACK:11F0$",
    same_ids=(_DEVICE.lower(),),
    settings=_SETTINGS,
    wrong_ids=("", "x", "1" * 13, "1" * 16, "A10000499AEF9B\n", "G10000499AEF9B"),
)

_HEX_SENDER: Final = Sender("865084030003675", 0x19E1, _TIME, version="450102")
_HEX_RECORD: Final = encode_hex_fri(_HEX_SENDER, _PLACES)
#: Number of GTRTO among the commands.
_RTO: Final = 16

OTHERS: Final = {
    "hex": Samples(
        device_id=_HEX_SENDER.device_id,
        record=_HEX_RECORD,
        entries=3,
        ack=b"+SACK:19E1$",
        repetition=encode_hex_fri(_HEX_SENDER, _PLACES, buffered=True),
        never_repeated=encode_hex_fri(_HEX_SENDER._replace(count_number=7), _PLACES[:1]),
        bad=_HEX_RECORD[:40] + bytes((_HEX_RECORD[40] ^ 1,)) + _HEX_RECORD[41:],
        command=b"GTRTO=,1,,,,,,",
        answer=lambda command: encode_hex_answer(_HEX_SENDER, _RTO, written_serial(command)),
        datagram=_HEX_RECORD,
        datagram_ack=b"+SACK:19E1$",
        settings=_SETTINGS,
        wrong_ids=("", "x", "1" * 13, "1" * 16),
    )
}
