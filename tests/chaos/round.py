"""One round: the site, the devices and senders, the faults, and the account."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import frozen

from tests.chaos.devices import DeviceJournal, TcpDevice, UdpDevice
from tests.chaos.faults import Injector
from tests.chaos.judge import FOLLOWING_SECONDS, STREAM, Judge, Verdict, some
from tests.chaos.orders import ControlSender, MalformedAppender, Operator, reactions, unix
from tests.chaos.plane import DirectusInProcess, Plane, RealDirectus
from tests.chaos.reactorthread import ReactorThread
from tests.chaos.stage import INSTANCES, Stage, Variant
from tests.chaos.stores import Cluster
from tests.waiting import wait_for
from tracker.keys import checkpoint
from tracker.log.entries import entry_order
from tracker.simulator.fleet import simulated_imei

#: Seconds after the last fault within which all records and commands must be processed.
DRAIN_TIMEOUT: Final = 120.0


@frozen
class Load:
    """Load of a round."""

    tcp_devices: int = 14
    udp_devices: int = 4
    gap: float = 0.8
    """Average seconds between two faults."""
    order_pause: float = 0.25
    """Average seconds between two commands by control ports."""
    row_pause: float = 0.8
    """Average seconds between two posts of rows in Directus."""


class Round:
    """A round of faults.

    :param seconds: duration of the faults.
    :param report: called with each line of the report.
    """

    def __init__(
        self,
        folder: Path,
        variant: Variant,
        seed: str,
        seconds: float,
        load: Load,
        reactor_thread: ReactorThread,
        report: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._variant = variant
        self._seed = seed
        self._seconds = seconds
        self._load = load
        self._reactor_thread = reactor_thread
        self._report = report
        self._journal = DeviceJournal()

    def run(self) -> Verdict:
        """Run the round; stop all processes at its end, also after a failure."""
        with ExitStack() as stack:
            began = time.monotonic()
            stage = Stage(self._folder, self._variant, stack)
            plane = self._plane(stage, stack)
            link = stage.wiring.link("bridge-directus", plane.port)
            plane.proxy = stage.wiring.link("operator-directus", plane.port)
            stage.start(f"http://127.0.0.1:{link.port}", plane.token_file, plane.secret_file)
            self._report(f"ready after {time.monotonic() - began:.1f} s")
            return self._attack(stage, plane, stack)

    def _plane(self, stage: Stage, stack: ExitStack) -> Plane:
        if self._variant.directus:
            real = RealDirectus(self._folder, stage.wiring.link)
            stack.callback(real.close)
            real.start(stage.wiring.links["webhook"])
            stage.servers["directus"] = real.server
            return real
        double = DirectusInProcess(
            self._folder, self._reactor_thread, lambda: stage.wiring.links["webhook"]
        )
        stack.callback(double.close)
        return double

    def _attack(self, stage: Stage, plane: Plane, stack: ExitStack) -> Verdict:
        seed, load = self._seed, self._load
        ids = [simulated_imei(number) for number in range(load.tcp_devices)]
        reaction = reactions(ids, Random(f"{seed} reactions"))
        tls = stage.wiring.tls.client() if stage.wiring.tls is not None else None
        proxies = {name: stage.wiring.links[f"devices-{name}"] for name in INSTANCES}
        tcp = [
            TcpDevice(one, f"{seed} {one}", self._journal, proxies, tls, reaction[one])
            for one in ids
        ]
        ports = [proxy.port for proxy in stage.wiring.datagrams.values()]
        udp = [
            UdpDevice(simulated_imei(number), f"{seed} udp {number}", self._journal, ports)
            for number in range(load.tcp_devices, load.tcp_devices + load.udp_devices)
        ]
        devices: list[TcpDevice | UdpDevice] = [*tcp, *udp]
        sender = ControlSender(stage, self._reactor_thread.reactor, f"{seed} orders", reaction)
        stack.callback(self._reactor_thread.cancel)
        self._reactor_thread.start(*(one.run() for one in devices), sender.run(load.order_pause))
        operator = Operator(plane, f"{seed} rows", ids, load.row_pause)
        stack.callback(operator.close)
        malformed_appender = MalformedAppender(stage, f"{seed} poison")
        stack.callback(malformed_appender.close)
        wait_for(lambda: self._journal.acknowledged, "a first acknowledgement")

        injector = Injector(stage, f"{seed} faults", load.gap, self._report)
        began = time.monotonic()
        injector.run(self._seconds)

        healed = time.monotonic()
        for device in devices:
            device.recording = False
        sender.sending = False
        operator.close()
        malformed_appender.close()
        judge = Judge(stage, self._journal)
        verdict = judge.verdict
        try:
            wait_for(lambda: not sender.in_progress, "all commands are sent", timeout=60)
            self._drain(stage, plane, devices)
            self._settle(stage, tcp, verdict)
        except AssertionError as error:
            verdict.problems.append(str(error))
        self._report(f"the longest pause began at {self._journal.pause_began - began:.1f} s")
        verdict.counts["drained after"] = round(time.monotonic() - healed, 1)
        for name in stage.daemons:
            injector.faults.note_memory(name)
        judge.records(stage.store.client().xinfo_stream(STREAM)["entries-added"])
        judge.messages()
        judge.dead_letters(malformed_appender.tried, malformed_appender.appended)
        judge.commands({**sender.orders, **operator.orders}, plane.rows())
        judge.links()
        judge.processes(dict(injector.faults.peaks), injector.faults.unexpected_ends)
        verdict.problems += (
            sender.problems + operator.problems + injector.failures + self._reactor_thread.failures
        )
        self._reactor_thread.failures.clear()
        if isinstance(stage.store, Cluster):
            verdict.counts["failovers"] = {
                "planned": stage.store.failovers.planned,
                "unplanned": len(stage.store.failovers.promotions),
                "explained": verdict.explained,
            }
        verdict.counts["unconfirmed"] = sender.unconfirmed + operator.unconfirmed
        verdict.counts["faults"] = dict(sorted(injector.made.items()))
        verdict.counts["targets"] = dict(sorted(injector.targets.items()))
        return verdict

    def _drain(self, stage: Stage, plane: Plane, devices: list[TcpDevice | UdpDevice]) -> None:
        """Wait until all records and commands are processed."""
        began = time.monotonic()

        def within(what: str, condition: Callable[[], object]) -> None:
            wait_for(condition, what, timeout=max(1.0, began + DRAIN_TIMEOUT - time.monotonic()))
            self._report(f"{what}: after {time.monotonic() - began:.1f} s")

        if isinstance(stage.store, Cluster):
            within("master and replica are in sync", stage.store.is_in_sync)
        within("all roles are ready", stage.are_ready)
        within(
            "devices have delivered all records", lambda: not any(len(one.flash) for one in devices)
        )
        redis = stage.store.client()

        def unfinished() -> str:
            groups = {group["name"]: group for group in redis.xinfo_groups(STREAM)}
            group = groups[b"processor"]
            return "" if group["lag"] == group["pending"] == 0 else f"{group}"

        within("all entries are processed", lambda: not unfinished())

        def is_checkpoint_complete() -> bool:
            (run, *others) = redis.zrange(checkpoint(STREAM), 0, -1)
            reached = run.decode().rpartition(":")[2]
            last = redis.xinfo_stream(STREAM)["last-generated-id"].decode()
            return not others and entry_order(reached) >= entry_order(last)

        within("no entry was skipped", is_checkpoint_complete)

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
                and not stage.store.failovers.may_have_lost(
                    unix(row["date_created"]), FOLLOWING_SECONDS
                )
            ]

        within("all rows are final", lambda: not open_rows())

        def unwritten() -> int:
            group = redis.xinfo_groups("commands:responses")[0]
            # The lag of a group that was created between two entries is unknown.
            return 1 if group["lag"] is None else int(group["lag"]) + int(group["pending"])

        within("all responses are in Directus", lambda: not unwritten())

    @staticmethod
    def _settle(stage: Stage, tcp: list[TcpDevice], verdict: Verdict) -> None:
        """Wait until device registry and heartbeats match the connections and instances."""

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
            wait_for(lambda: not differences(), "registry and heartbeats are correct", timeout=60)
        except AssertionError as error:
            verdict.problems.append(f"{error}: {some(map(str, differences()))}")


def summary(counts: dict[str, Any]) -> str:
    """Return the counts of a round as lines."""
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
    """Return the sum (for some, the maximum) of the counts of several rounds."""
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
