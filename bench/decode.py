"""Measure the conversion of the data of a frame to stream entries, in microseconds per record.

The decoder "general" handles all records. The decoder "compiled" is that of ingestion: it uses
compiled layouts of the device's last records, and the general decoder for others.

Columns:
  elements  IO elements of a record
  layouts   number of different sets of elements among which the records of a device alternate
  µs of N   microseconds per record in packets of N records

Each figure is the best of several rounds, because other load only makes a round slower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from bench.common import Column, Report, numbers, parser
from bench.frames import ELEMENTS, MAX_ELEMENTS, ignore_repeated_id, packet, stream_entries
from tracker.outcomes import Rejected
from tracker.position import Entry
from tracker.simulator.fleet import simulated_imei
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.reader import EntryReader

Decoder = Callable[[bytes, str], Sequence[Entry]]
"""Function of the data of a frame and a device ID that returns stream entries."""


def _general() -> Decoder:
    return stream_entries


def _compiled() -> Decoder:
    reader = EntryReader(Layouts(), 255)

    def decode(data: bytes, device_id: str) -> Sequence[Entry]:
        reading = reader.read(device_id, data, 0.0, ignore_repeated_id)
        if isinstance(reading, Rejected):
            raise ValueError(reading.reason)
        return reading.entries

    return decode


#: Name → factory of a decoder for one device.
DECODERS: Final[Mapping[str, Callable[[], Decoder]]] = MappingProxyType(
    {"general": _general, "compiled": _compiled}
)

_ROUNDS: Final = 5
#: Number of different packets; repeating one packet would favour caches.
_PACKETS: Final = 50


def microseconds(
    decode: Decoder, elements: int, layouts: int, records: int, seconds: float
) -> float:
    """Return the microseconds per record.

    :param seconds: approximate duration of one round.
    """
    packets = [packet(n * records, records, elements, layouts) for n in range(_PACKETS)]
    device_id = simulated_imei(1)

    def once() -> float:
        start = time.perf_counter()
        for data in packets:
            decode(data, device_id)
        return time.perf_counter() - start

    once()  # the decoder learns the layouts
    repeats = max(1, int(seconds / once()))
    best = min(sum(once() for _ in range(repeats)) for _ in range(_ROUNDS))
    return best / (repeats * _PACKETS * records) * 1_000_000


def options() -> argparse.Namespace:
    """Parse the command line."""
    made = parser(__doc__)
    names = ",".join(DECODERS)
    made.add_argument("--decoders", metavar="NAME,…", default=names, help=f"[{names}]")
    made.add_argument(
        "--elements", type=numbers, metavar="N,…", help=f"elements of a record [0,5,{ELEMENTS},40]"
    )
    made.add_argument(
        "--layouts",
        type=numbers,
        metavar="N,…",
        help=f"layouts of up to {ELEMENTS} elements [1,3,8]",
    )
    made.add_argument(
        "--records", type=numbers, metavar="N,…", help="records in a packet [1,10,30]"
    )
    given = made.parse_args()
    quick = given.quick
    given.decoders = given.decoders.split(",")
    given.elements = given.elements or ([ELEMENTS] if quick else [0, 5, ELEMENTS, 40])
    given.layouts = given.layouts or ([1] if quick else [1, 3, 8])
    given.records = given.records or ([10] if quick else [1, 10, 30])
    if not set(given.decoders) <= set(DECODERS):
        made.error(f"--decoders: choose from {names}")
    if max(given.elements) > MAX_ELEMENTS:
        made.error(f"--elements: the maximum is {MAX_ELEMENTS}")
    if not 0 < min(given.records) <= max(given.records) <= 255:
        made.error("--records: choose from 1 to 255")
    if not 0 < min(given.layouts) <= max(given.layouts) <= ELEMENTS:
        made.error(f"--layouts: choose from 1 to {ELEMENTS}")
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
