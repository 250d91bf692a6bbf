"""Measure the way from the bytes of simulated devices to stream entries, for each vendor.

Each vendor's dialect takes the frames out of a buffer and handles them, as ingest does. Columns:
  records   records in a frame
  bytes     bytes of a frame
  µs        microseconds per record
  limit µs  microseconds that Python needs for the JSON text of the record's payload alone
  ratio     µs divided by the limit

The limit is measured in the same run, so that ratios of different machines can be compared. Each
figure is the best of several rounds, because other load only makes a round slower.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Final

from bench.common import Column, Report, parser
from tracker.admin.vendors import tools
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.position import Entry
from tracker.simulator.fleet import HOME, simulated_imei
from tracker.simulator.track import Track
from tracker.simulator.vehicle import Vehicle
from tracker.vendors.concox.commands import Flags
from tracker.vendors.concox.dialect import ConcoxDialect
from tracker.vendors.concox.settings import ConcoxSettings
from tracker.vendors.dialect import Append, AppendDetached, Dialect
from tracker.vendors.queclink.dialect import QueclinkDialect
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.simulation import Simulation
from tracker.vendors.teltonika.dialect import TeltonikaDialect
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.tools import simulation_of

_NOW: Final = 1_790_000_000.0
_ROUNDS: Final = 5
_FRAMES: Final = 200
_RECORDS: Final = (1, 10)

#: Vendor → factory of a dialect for one device.
DIALECTS: Final[Mapping[str, Callable[[], Dialect[Any]]]] = MappingProxyType(
    {
        "concox": lambda: ConcoxDialect(Limits(), ConcoxSettings(), Flags(0), lambda: None),
        "queclink": lambda: QueclinkDialect(Limits(), QueclinkSettings(), lambda: None),
        "teltonika": lambda: TeltonikaDialect(Limits(), Layouts(), lambda: None),
    }
)


def conversation(simulation: Simulation, records: int) -> tuple[bytes, list[bytes]]:
    """Return what a device sends first, and its packets."""
    random = Random(1)  # noqa: S311 - a vehicle, not a secret
    device = simulation.device(simulated_imei(1), simulation.codecs[0], random, _NOW)
    vehicle = Vehicle(random, Track(random, HOME), 1.0, 1.0)
    vehicle.begin(_NOW)
    login, now = device.connected(), _NOW
    packets = []
    for _ in range(_FRAMES):
        made = []
        for _ in range(records):
            now += 1
            made.append(device.record(vehicle.advance(now)))
        packets.append(device.packet(made, False))
    return login, packets


def handle(dialect: Dialect[Any], data: bytes) -> Sequence[Entry]:
    """Return the entries that a dialect makes of a frame."""
    outcome = dialect.next_frame(bytearray(data))
    if not isinstance(outcome, Decoded):
        raise ValueError(f"not a frame: {outcome}")
    steps = dialect.handle(outcome.value, _NOW)
    return [
        entry
        for step in steps
        if isinstance(step, Append | AppendDetached)
        for entry in step.entries
    ]


def best(once: Callable[[], object], seconds: float) -> float:
    """Return the seconds of the fastest call.

    :param seconds: approximate duration of one round.
    """
    fastest = float("inf")
    for _ in range(_ROUNDS):
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            once()
            fastest = min(fastest, time.perf_counter() - start)
    return fastest


def main() -> None:
    """Measure all vendors."""
    given = parser(__doc__).parse_args()
    columns = [
        *(Column("vendor", "vendor"), Column("records", "records"), Column("bytes", "bytes")),
        Column("µs", "microseconds", ".2f"),
        Column("limit µs", "limit_microseconds", ".2f"),
        Column("ratio", "ratio", ".2f"),
    ]
    seconds = 0.01 if given.quick else 0.2
    encode = json.JSONEncoder(separators=(",", ":")).encode
    with Report("dialects", given, columns, rounds=_ROUNDS) as report:
        for vendor, simulation in tools(simulation_of).items():
            for records in _RECORDS:
                if records > simulation.max_records:
                    continue
                login, packets = conversation(simulation, records)
                dialect = DIALECTS[vendor]()
                if login:
                    handle(dialect, login)
                entries = [entry for data in packets for entry in handle(dialect, data)]
                payloads = [json.loads(entry.payload) for entry in entries]
                per = 1_000_000 / len(entries)
                taken = per * best(lambda: [handle(dialect, data) for data in packets], seconds)  # noqa: B023
                limit = per * best(lambda: [encode(payload) for payload in payloads], seconds)  # noqa: B023
                report.add(
                    {
                        "vendor": vendor,
                        "records": records,
                        "bytes": len(packets[0]),
                        "microseconds": round(taken, 3),
                        "limit_microseconds": round(limit, 3),
                        "ratio": round(taken / limit, 3),
                    }
                )


if __name__ == "__main__":
    main()
