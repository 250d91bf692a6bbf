"""Measure how much an attack delays the ACKs of other devices.

One `twistd tracker ingest` serves TCP and UDP with its default limits and a Redis with an
append-only file. Devices send packets of records at even intervals; a latency starts at the due
time of a packet. Phases without and with one attack alternate. The figures are those of all
phases of one kind, therefore a slow period of the machine affects both kinds.

Ingest has a core of its own. All other processes share the remaining cores, where attackers have
the lowest priority. The figures therefore show how ingest divides its time among its peers, not
how the kernel divides the cores.

    python bench/neighbours.py --checkout ../before

On a machine with other load, give all processes but the attackers a real-time priority:

    chrt --rr 1 python bench/neighbours.py

Columns:
  p50, p99            ACK latencies without the attack, in milliseconds
  att. p50, att. p99  ACK latencies during the attack, in milliseconds
  x p50, x p99        ratio of the two
  sent/s              frames, datagrams or connections per second of the attackers
  ingest %            CPU of ingest during the attack
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path
from statistics import mean
from typing import Any, Final

from attrs import define, field

from bench.attacks import ATTACKS, Attacker, Target
from bench.common import (
    ROOT,
    Column,
    Report,
    parser,
    percentile,
    raise_file_limit,
    redis_pid,
    running_redis,
)
from bench.devices import DeviceProcess, Phase
from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon

_INGEST: Final = "ingest"
_CONNECTIONS: Final = 5
_RECORDS: Final = 10
#: Packets per second of all devices together.
_RATE: Final = 500.0

_COLUMNS: Final = (
    Column("attack             ", "attack"),
    *(Column("p50", "quiet_p50_ms", ".2f"), Column("p99", "quiet_p99_ms", ".2f")),
    *(Column("att. p50", "attack_p50_ms", ".2f"), Column("att. p99", "attack_p99_ms", ".2f")),
    *(Column("x p50", "p50_ratio", ".2f"), Column("x p99", "p99_ratio", ".2f")),
    *(Column("sent/s", "sent_per_second", ",.0f"), Column("ingest %", "ingest_percent", ".0f")),
)


@define
class Measurements:
    """Measurements of all phases of one kind."""

    latencies: list[float] = field(factory=list)
    seconds: float = 0.0
    cpu: float = 0.0
    rates: list[float] = field(factory=list)

    def add(self, phase: Phase, rate: float) -> None:
        """Add the measurements of one phase."""
        self.latencies += phase.latencies
        self.latencies.sort()
        self.seconds += phase.window.seconds
        self.cpu += phase.window.cpu[_INGEST]
        self.rates.append(rate)

    def latency(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        return percentile(self.latencies, percent) * 1000


def measure(attack: str, given: argparse.Namespace, cpus: tuple[set[int], set[int]]) -> Any:
    """Measure one attack, with new servers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tracker-bench-")))
        redis = stack.enter_context(running_redis(folder / "redis", "everysec"))
        target = Target(free_port(), free_port())
        daemon = Daemon(
            *(folder, "ingest", "ingest", "--redis", redis.url),
            *("--listen", f"teltonika=tcp:{target.tcp}:interface=127.0.0.1"),
            *("--listen", f"teltonika=udp:{target.udp}:interface=127.0.0.1"),
            variables={"PYTHONPATH": str(given.checkout.resolve())},
        )
        stack.callback(daemon.kill)
        daemon.start()
        own, rest = cpus
        _pin(daemon.pid, own)
        _pin(redis_pid(redis), rest)
        os.sched_setaffinity(0, rest)  # inherited by the processes that are started from here
        watched = {_INGEST: daemon.pid}
        devices = stack.enter_context(DeviceProcess(target.tcp, _CONNECTIONS, _RECORDS, 1, watched))
        quiet, attacked = Measurements(), Measurements()
        for _ in range(given.rounds):
            _measure_phase(quiet, devices, redis, given, None)
            _measure_phase(attacked, devices, redis, given, Attacker(attack, target, rest))
    return result(attack, quiet, attacked)


def _measure_phase(
    measurements: Measurements,
    devices: DeviceProcess,
    redis: RedisServer,
    given: argparse.Namespace,
    attacker: Attacker | None,
) -> None:
    with attacker or nullcontext():
        phase = devices.paced(_RATE, given.warm_up, given.seconds)
    measurements.add(phase, 0.0 if attacker is None else attacker.rate)
    redis.client.flushall()


def _pin(pid: int, cpus: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def result(attack: str, quiet: Measurements, attacked: Measurements) -> dict[str, Any]:
    """Return the figures of one attack."""
    return {
        "attack": attack,
        "packets": len(attacked.latencies),
        "quiet_p50_ms": round(quiet.latency(50), 3),
        "quiet_p99_ms": round(quiet.latency(99), 3),
        "attack_p50_ms": round(attacked.latency(50), 3),
        "attack_p99_ms": round(attacked.latency(99), 3),
        "attack_max_ms": round(attacked.latency(100), 3),
        "p50_ratio": round(attacked.latency(50) / quiet.latency(50), 3),
        "p99_ratio": round(attacked.latency(99) / quiet.latency(99), 3),
        "sent_per_second": round(mean(attacked.rates), 1),
        "ingest_percent": round(attacked.cpu / attacked.seconds * 100, 1),
    }


def options() -> argparse.Namespace:
    """Parse the command line."""
    made = parser(__doc__)
    made.add_argument("--attacks", metavar="NAME;…", help=f"[all: {'; '.join(ATTACKS)}]")
    made.add_argument(
        "--checkout", type=Path, default=ROOT, help="folder of the checkout to measure [this one]"
    )
    made.add_argument("--rounds", type=int, help="pairs of phases [3]")
    made.add_argument("--seconds", type=float, help="duration of each phase [4]")
    made.add_argument("--warm-up", type=float, help="seconds before each phase [0.5]")
    given = made.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    given.seconds = given.seconds or (0.5 if given.quick else 4.0)
    given.warm_up = (0.2 if given.quick else 0.5) if given.warm_up is None else given.warm_up
    given.attacks = list(ATTACKS) if given.attacks is None else given.attacks.split(";")
    if unknown := set(given.attacks) - set(ATTACKS):
        made.error(f"--attacks: unknown attack {min(unknown)!r}")
    if not (given.checkout / "tracker" / "__init__.py").is_file():
        made.error(f"--checkout: {given.checkout} is not a checkout of Tracker")
    return given


def main() -> None:
    """Measure each attack."""
    given = options()
    raise_file_limit()
    cores = sorted(os.sched_getaffinity(0))
    cpus = {cores[0]}, set(cores[1:]) or set(cores)
    kept = {name: getattr(given, name) for name in ("rounds", "seconds", "warm_up")}
    report = Report("neighbours", given, _COLUMNS, packets_per_second=_RATE, **kept)
    with report:
        for attack in given.attacks:
            report.add(measure(attack, given, cpus))


if __name__ == "__main__":
    main()
