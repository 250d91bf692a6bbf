"""Frames of one record, each with one mistake.

All but ``BAD_CRC`` have the correct checksum of their bytes, so that only the intended check can
find the mistake.
"""

from __future__ import annotations

from typing import Final

_HEAD: Final = "0000016B40D9AD80 01 00000000 00000000 0000 0000 00 0000"
_ELEMENTS: Final = "02 1503 0101 01 425E10 00 00"


def _frame(head: str, total: str, tail: str) -> bytes:
    return bytes.fromhex(f"00000000 {head} {_HEAD} 01 {total} {_ELEMENTS} {tail}")


#: The last bit of the checksum is wrong: F22A is correct.
BAD_CRC: Final = _frame("00000028 08 01", "03", "01 0000F22B")
#: The first count of records is 1, the second is 2.
COUNTS_DIFFER: Final = _frame("00000028 08 01", "03", "02 0000F36A")
UNKNOWN_CODEC: Final = _frame("00000028 55 01", "03", "01 00009A94")
#: Both counts are 2, but the frame has one record.
RECORD_MISSING: Final = _frame("00000028 08 02", "03", "02 00004771")
#: The total of elements is 4, but the groups have three.
TOTAL_DIFFERS: Final = _frame("00000028 08 01", "04", "01 0000B521")
#: A byte precedes the second count. A zero byte would be a fifth group of elements.
STRAY_BYTE: Final = _frame("00000029 08 01", "03", "FF 01 00007FF2")
#: A frame without records, which is unusual but legal.
NO_RECORDS: Final = bytes.fromhex("00000000 00000003 08 00 00 0000C281")

#: Published examples with a wrong checksum → the correct checksum.
PUBLISHED_WITH_BAD_CRC: Final = {
    "000000000000000D 0C010D0000000501598493ED01 000018B2": 0x32CB,
    "0000000000000010 0E0111000000080352093081452468 01 000032AC": 0x635E,
    "000000000000001C 0D01050000001056E924222347455420444154414F524445520D0A01 00004990": 0x4715,
}
