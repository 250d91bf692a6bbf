"""One round: the stage, the actors, the faults, and the account."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import frozen

from tests.chaos.devices import Heard, TcpDevice, UdpDevice
from tests.chaos.faults import Injector
from tests.chaos.judge import BEHIND, STREAM, Judge, Verdict, some
from tests.chaos.orders import ControlSender, Operator, Poisoner, habits, unix
from tests.chaos.plane import Double, Plane, Real
from tests.chaos.reacting import Reacting
from tests.chaos.stage import INSTANCES, Stage, Variant
from tests.chaos.stores import Cluster
from tests.waiting import wait_for

#: Seconds after the last fault within which everything must be finished.
DRAIN: Final = 120.0


@frozen
class Load:
    """The load of a round."""

    tcp_devices: int = 14
    udp_devices: int = 4
    gap: float = 0.8
    """Seconds between two faults, on average."""
    order_pause: float = 0.25
    row_pause: float = 0.8


class Round:
    """Everything that exists for one round.

    :param seconds: how long faults are made.
    :param say: is given each line for people.
    """

    def __init__(
        self,
        folder: Path,
        variant: Variant,
        seed: str,
        seconds: float,
        load: Load,
        reacting: Reacting,
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._variant = variant
        self._seed = seed
        self._seconds = seconds
        self._load = load
        self._reacting = reacting
        self._say = say
        self._heard = Heard()

    def run(self) -> Verdict:
        """Run the round; remove everything at its end, also after a failure."""
        with ExitStack() as stack:
            began = time.monotonic()
            stage = Stage(self._folder, self._variant, stack)
            plane = self._plane(stage, stack)
            link = stage.wiring.link("bridge-directus", plane.port)
            plane.door = stage.wiring.link("operator-directus", plane.port)
            stage.start(f"http://127.0.0.1:{link.port}", plane.token_file, plane.secret_file)
            self._say(f"ready after {time.monotonic() - began:.1f} s")
            return self._attack(stage, plane, stack)

    def _plane(self, stage: Stage, stack: ExitStack) -> Plane:
        if self._variant.directus:
            real = Real(self._folder, stage.wiring.link)
            stack.callback(real.close)
            real.start(stage.wiring.links["webhook"])
            stage.servers["directus"] = real.server
            return real
        double = Double(self._folder, self._reacting, lambda: stage.wiring.links["webhook"])
        stack.callback(double.close)
        return double

    def _attack(self, stage: Stage, plane: Plane, stack: ExitStack) -> Verdict:
        seed, load = self._seed, self._load
        ids = [f"9{number:014}" for number in range(load.tcp_devices)]
        habit = habits(ids, Random(f"{seed} habits"))
        tls = stage.wiring.tls.client() if stage.wiring.tls is not None else None
        doors = {name: stage.wiring.links[f"devices-{name}"] for name in INSTANCES}
        tcp = [TcpDevice(one, f"{seed} {one}", self._heard, doors, tls, habit[one]) for one in ids]
        ports = [proxy.port for proxy in stage.wiring.datagrams.values()]
        udp = [
            UdpDevice(f"8{number:014}", f"{seed} udp {number}", self._heard, ports)
            for number in range(load.udp_devices)
        ]
        devices: list[TcpDevice | UdpDevice] = [*tcp, *udp]
        sender = ControlSender(stage, self._reacting.reactor, f"{seed} orders", habit)
        stack.callback(self._reacting.cancel)
        self._reacting.start(*(one.run() for one in devices), sender.run(load.order_pause))
        operator = Operator(plane, f"{seed} rows", ids, load.row_pause)
        stack.callback(operator.close)
        poisoner = Poisoner(stage, f"{seed} poison")
        stack.callback(poisoner.close)
        wait_for(lambda: self._heard.acknowledged, "a first acknowledgement")

        injector = Injector(stage, f"{seed} faults", load.gap, self._say)
        began = time.monotonic()
        injector.run(self._seconds)

        healed = time.monotonic()
        for device in devices:
            device.recording = False
        sender.sending = False
        operator.close()
        poisoner.close()
        judge = Judge(stage, self._heard)
        verdict = judge.verdict
        try:
            wait_for(lambda: not sender.under_way, "all commands are sent", timeout=60)
            self._drain(stage, plane, devices)
            self._settle(stage, tcp, verdict)
        except AssertionError as error:
            verdict.wrong.append(str(error))
        self._say(f"the longest pause began at {self._heard.pause_began - began:.1f} s")
        verdict.counts["drained after"] = round(time.monotonic() - healed, 1)
        for name in stage.daemons:
            injector.faults.note_memory(name)
        judge.records(stage.store.client().xinfo_stream(STREAM)["entries-added"])
        judge.messages()
        judge.dead_letters(poisoner.tried, poisoner.appended)
        judge.commands({**sender.orders, **operator.orders}, plane.rows())
        judge.links()
        judge.processes(dict(injector.faults.peaks), injector.faults.died)
        verdict.wrong += sender.wrong + operator.wrong + injector.failures + self._reacting.failures
        self._reacting.failures.clear()
        if isinstance(stage.store, Cluster):
            verdict.counts["failovers"] = {
                "planned": stage.store.excuses.planned,
                "unplanned": len(stage.store.excuses.promotions),
                "excused": verdict.excused,
            }
        verdict.counts["unsure"] = sender.unsure + operator.unsure
        verdict.counts["faults"] = dict(sorted(injector.made.items()))
        verdict.counts["targets"] = dict(sorted(injector.targets.items()))
        return verdict

    def _drain(self, stage: Stage, plane: Plane, devices: list[TcpDevice | UdpDevice]) -> None:
        """Wait until nothing is under way."""
        began = time.monotonic()

        def within(what: str, condition: Callable[[], object]) -> None:
            wait_for(condition, what, timeout=max(1.0, began + DRAIN - time.monotonic()))
            self._say(f"{what}: after {time.monotonic() - began:.1f} s")

        if isinstance(stage.store, Cluster):
            within("the servers are whole", stage.store.is_whole)
        within("all roles are ready", stage.are_ready)
        within("devices have delivered all", lambda: not any(len(one.flash) for one in devices))
        redis = stage.store.client()

        def unfinished() -> str:
            groups = {group["name"]: group for group in redis.xinfo_groups(STREAM)}
            group = groups[b"processor"]
            return "" if group["lag"] == group["pending"] == 0 else f"{group}"

        within("all is processed", lambda: not unfinished())

        def queued() -> list[str]:
            streams = [f"commands:outbound:{name}" for name in INSTANCES]
            return [one for one in streams if redis.xlen(one)] + (
                ["commands:waiting"] if redis.exists("commands:waiting") else []
            )

        within("no command is queued", lambda: not queued())

        def open_rows() -> list[str]:
            return [
                key
                for key, row in plane.rows().items()
                if row["status"] in ("pending", "queued", "delivered")
                and not stage.store.excuses.cover(unix(row["date_created"]), BEHIND)
            ]

        within("all rows are final", lambda: not open_rows())

        def untold() -> int:
            group = redis.xinfo_groups("commands:responses")[0]
            # Redis does not know the lag of a group that was created between two entries.
            return 1 if group["lag"] is None else int(group["lag"]) + int(group["pending"])

        within("all responses are in Directus", lambda: not untold())

    @staticmethod
    def _settle(stage: Stage, tcp: list[TcpDevice], verdict: Verdict) -> None:
        """Wait until the device registry says where the devices are, and heartbeats who lives."""

        def differences() -> set[Any]:
            found = {
                device.decode(): owner.decode()
                for device, owner in stage.store.client().hgetall("connections:registry").items()
            }
            connected = {one.device_id: one.connected_to for one in tcp}
            living = stage.store.client().keys("instance:heartbeat:*")
            alive = {key.decode().rpartition(":")[2] for key in living}
            return set(found.items()) ^ set(connected.items()) | alive ^ set(INSTANCES)

        try:
            wait_for(lambda: not differences(), "registry and heartbeats are right", timeout=60)
        except AssertionError as error:
            verdict.wrong.append(f"{error}: {some(map(str, differences()))}")


def summary(counts: dict[str, Any]) -> str:
    """The counts of a round in lines."""
    lines = []
    for name, value in counts.items():
        shown = (
            ", ".join(f"{key} {number}" for key, number in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        lines.append(f"  {name}: {shown}")
    return "\n".join(lines)


def total(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of several rounds together."""
    result: dict[str, Any] = {}
    for counts in rounds:
        for name, value in counts.items():
            if isinstance(value, dict):
                merged = result.setdefault(name, Counter())
                if name == "MiB":
                    result[name] = Counter(
                        {key: max(merged[key], value.get(key, 0)) for key in merged | value}
                    )
                else:
                    merged.update(value)
            elif name in ("longest pause", "drained after"):
                result[name] = max(result.get(name, 0), value)
            else:
                result[name] = result.get(name, 0) + value
    return result
