"""Microseconds a record from the data of a frame (its checksum checked) to stream entries.

"general" is the decoder that reads all there is; "compiled" is what ingestion uses: it
remembers how a device's last records were laid out, and falls back to the general one.
"elements" counts the IO elements of a record, "layouts" the different sets of them that
a device's records have in turn. One column for each number of records in a packet. Each
figure is the best of several rounds: what else the machine does can only make a round
slower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from bench.common import Column, Report, numbers, parser
from bench.frames import ELEMENTS, MAX_ELEMENTS, imei, nothing, packet, stream_entries
from tracker.outcomes import Rejected
from tracker.position import Entry
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.reader import EntryReader

Decoder = Callable[[bytes, str], Sequence[Entry]]
"""The data of a frame and the device's id → stream entries."""


def _general() -> Decoder:
    return stream_entries


def _compiled() -> Decoder:
    reader = EntryReader(Layouts(), 255)

    def decode(data: bytes, device_id: str) -> Sequence[Entry]:
        reading = reader.read(device_id, data, 0.0, nothing)
        if isinstance(reading, Rejected):
            raise ValueError(reading.reason)
        return reading.entries

    return decode


#: Name → what makes a decoder for one device.
DECODERS: Final[Mapping[str, Callable[[], Decoder]]] = MappingProxyType(
    {"general": _general, "compiled": _compiled}
)

_ROUNDS: Final = 5
#: Different packets, so that nothing is quicker for having been seen just before.
_PACKETS: Final = 50


def microseconds(
    decode: Decoder, elements: int, layouts: int, records: int, seconds: float
) -> float:
    """What one record costs.

    :param seconds: of one round, about.
    """
    packets = [packet(n * records, records, elements, layouts) for n in range(_PACKETS)]
    device_id = imei(1)

    def once() -> float:
        start = time.perf_counter()
        for data in packets:
            decode(data, device_id)
        return time.perf_counter() - start

    once()  # what a decoder learns, it has learnt now
    repeats = max(1, int(seconds / once()))
    best = min(sum(once() for _ in range(repeats)) for _ in range(_ROUNDS))
    return best / (repeats * _PACKETS * records) * 1_000_000


def options() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    names = ",".join(DECODERS)
    made.add_argument("--decoders", metavar="NAME,…", default=names, help=f"[{names}]")
    made.add_argument(
        "--elements", type=numbers, metavar="N,…", help=f"of a record [0,5,{ELEMENTS},40]"
    )
    made.add_argument(
        "--layouts", type=numbers, metavar="N,…", help=f"of {ELEMENTS} elements and less [1,3,8]"
    )
    made.add_argument("--records", type=numbers, metavar="N,…", help="in a packet [1,10,30]")
    given = made.parse_args()
    quick = given.quick
    given.decoders = given.decoders.split(",")
    given.elements = given.elements or ([ELEMENTS] if quick else [0, 5, ELEMENTS, 40])
    given.layouts = given.layouts or ([1] if quick else [1, 3, 8])
    given.records = given.records or ([10] if quick else [1, 10, 30])
    if not set(given.decoders) <= set(DECODERS):
        made.error(f"--decoders: there are {names}")
    if max(given.elements) > MAX_ELEMENTS:
        made.error(f"--elements: up to {MAX_ELEMENTS}")
    if not 0 < min(given.records) <= max(given.records) <= 255:
        made.error("--records: 1 to 255 in a packet")
    if not 0 < min(given.layouts) <= max(given.layouts) <= ELEMENTS:
        made.error(f"--layouts: 1 to {ELEMENTS}")
    return given


def main() -> None:
    """Measure all combinations."""
    given = options()
    columns = [
        *(Column("decoder", "decoder"), Column("elements", "elements")),
        Column("layouts", "layouts"),
        *(Column(f"µs of {n}", f"microseconds_in_{n}", ".2f") for n in given.records),
    ]
    seconds = 0.01 if given.quick else 0.1
    shapes = [(elements, 1) for elements in given.elements]
    shapes += [(ELEMENTS, layouts) for layouts in given.layouts if layouts > 1]
    with Report("decode", given, columns, rounds=_ROUNDS) as report:
        for name in given.decoders:
            for elements, layouts in shapes:
                figures = {
                    f"microseconds_in_{records}": round(
                        microseconds(DECODERS[name](), elements, layouts, records, seconds), 3
                    )
                    for records in given.records
                }
                shape = {"elements": elements, "layouts": layouts}
                report.add({"decoder": name, **shape, **figures})


if __name__ == "__main__":
    main()
