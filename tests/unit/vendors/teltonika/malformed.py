"""Frames of one record in which one thing is wrong, each in another way.

All but ``BAD_CRC`` carry the right checksum for their bytes, so that nothing but
the intended check can find the fault.
"""

from __future__ import annotations

from typing import Final

_PLACE: Final = "0000016B40D9AD80 01 00000000 00000000 0000 0000 00 0000"
_ELEMENTS: Final = "02 1503 0101 01 425E10 00 00"


def _frame(head: str, total: str, tail: str) -> bytes:
    return bytes.fromhex(f"00000000 {head} {_PLACE} 01 {total} {_ELEMENTS} {tail}")


#: The last bit of the checksum is wrong: F22A is due.
BAD_CRC: Final = _frame("00000028 08 01", "03", "01 0000F22B")
#: One record at the start, two at the end.
COUNTS_DIFFER: Final = _frame("00000028 08 01", "03", "02 0000F36A")
UNKNOWN_CODEC: Final = _frame("00000028 55 01", "03", "01 00009A94")
#: Two records announced twice, one there.
RECORD_MISSING: Final = _frame("00000028 08 02", "03", "02 00004771")
#: Four elements announced, three in the groups.
TOTAL_DIFFERS: Final = _frame("00000028 08 01", "04", "01 0000B521")
#: A zero between the record and the second count.
STRAY_BYTE: Final = _frame("00000029 08 01", "03", "00 01 00008FB3")
#: An envelope with nothing in it: unusual, and legal.
NO_RECORDS: Final = bytes.fromhex("00000000 00000003 08 00 00 0000C281")

#: Published as examples, with a checksum that does not fit them → what is due.
PUBLISHED_WITH_BAD_CRC: Final = {
    "000000000000000D 0C010D0000000501598493ED01 000018B2": 0x32CB,
    "0000000000000010 0E0111000000080352093081452468 01 000032AC": 0x635E,
    "000000000000001C 0D01050000001056E924222347455420444154414F524445520D0A01 00004990": 0x4715,
}
