"""Faults of each kind at each part, and the injector that chooses them at random."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

from attrs import frozen

from tests.chaos.stage import Stage
from tests.chaos.stores import Cluster
from tests.chaos.wiring import DatagramFaults
from tests.proxy import Pace, Proxy
from tests.system.processes import Daemon
from tests.waiting import wait_for

#: Maximum duration of a fault, in seconds.
MAX_FAULT_SECONDS: Final = 8.0
#: Seconds within which a server has to start. Directus starts slowly on a busy machine.
SERVER_START_TIMEOUT: Final = 150.0
_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
)


@frozen
class Fault:
    """A kind of fault at a target.

    :param run: begins the fault, waits for the given seconds, and heals it.
    """

    kind: str
    target: str
    run: Callable[[float], None]
    weight: float = 1.0
    also: frozenset[str] = frozenset()
    """Other targets that must not have a fault at the same time."""

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


class Faults:
    """All faults of a stage.

    :param wait: waits for the given seconds, or until the end of the round.
    """

    def __init__(self, stage: Stage, wait: Callable[[float], object]) -> None:
        self.unexpected_ends: list[str] = []
        """Unexpected ends of roles, and wrong exit codes after SIGTERM."""
        self.peaks: Counter[str] = Counter()
        """Role → the peak memory of its processes before they were killed, in bytes."""
        self._stage = stage
        self._wait = wait

    def all(self) -> list[Fault]:
        """Return a fault of each kind for each target."""
        stage = self._stage
        found = []
        for name, daemon in stage.daemons.items():
            found += [
                Fault("kill", name, self._of(self._kill, name, daemon), 3),
                Fault("hang", name, self._of(self._hang, daemon), 2),
                Fault("restart", name, self._of(self._restart, name, daemon), 1),
            ]
        for name, server in stage.servers.items():
            # After a failover, a new replica takes ten seconds, during which writes are refused.
            # Directus takes ten seconds to start. More faults of these would leave no time for
            # others.
            share = 0.2 if name.startswith(("redis-", "sentinel-", "directus")) else 1.0
            found += [
                Fault("kill", name, self._of(self._kill_server, server), 6 * share),
                Fault("hang", name, self._of(self._hang_server, server), 4 * share),
                Fault("restart", name, self._of(self._restart_server, server), 3 * share),
            ]
        for name, link in stage.wiring.links.items():
            found += self._of_link(name, link)
            role = name.partition("-")[0]
            if role in stage.daemons:
                run = self._of(self._kill_stalled, role, stage.daemons[role], link)
                found.append(Fault("kill in a stall", role, run, 2, frozenset({name})))
        if isinstance(stage.store, Cluster):
            also = frozenset(
                one for one in stage.wiring.links if one.startswith(("redis-", "sentinel-"))
            )
            found.append(
                Fault("planned failover", "redis-a", stage.store.fail_over, 10, also | {"redis-b"})
            )
        for name in stage.wiring.datagrams:
            run = self._of(self._disturb_datagrams, name)
            found.append(Fault("datagram faults", f"datagrams-{name}", run, 2))
        return found

    def _of_link(self, name: str, link: Proxy) -> Iterator[Fault]:
        healing: list[tuple[str, Callable[[], object]]] = [
            ("stall", link.stall),
            ("deaf", lambda: link.stall(deaf=True)),
            ("refuse", link.refuse),
            ("slow", lambda: link.set_pace(Pace(2000, 0.05))),
            ("trickle", lambda: link.set_pace(Pace(3, 0.01))),
        ]
        if name.endswith("directus"):
            healing.append(("error 503", lambda: link.reply(_UNAVAILABLE)))
        for kind, begin in healing:
            yield Fault(kind, name, self._of(self._healed, link, begin), 0.6)
        for kind, act in (
            ("cut", link.cut),
            ("half-close up", lambda: link.half_close(up=True)),
            ("half-close down", lambda: link.half_close(up=False)),
        ):
            yield Fault(kind, name, self._of(self._once, act), 0.6)

    @staticmethod
    def _of(function: Callable[..., None], *arguments: Any) -> Callable[[float], None]:
        return lambda seconds: function(seconds, *arguments)

    def _healed(self, seconds: float, link: Proxy, begin: Callable[[], object]) -> None:
        begin()
        self._wait(seconds)
        link.heal()

    def _once(self, seconds: float, act: Callable[[], object]) -> None:
        act()
        self._wait(seconds / 4)

    def _disturb_datagrams(self, seconds: float, name: str) -> None:
        self._stage.wiring.datagrams[name].faults = DatagramFaults(0.4, 0.3, 0.3)
        self._wait(seconds)
        self._stage.wiring.datagrams[name].faults = DatagramFaults()

    def _kill(self, seconds: float, name: str, daemon: Daemon) -> None:
        self.note_memory(name)
        if self._ended_by_itself(name, daemon):
            return
        daemon.kill()
        self._wait(seconds / 2)
        daemon.start(ready=False)

    def _kill_stalled(self, seconds: float, name: str, daemon: Daemon, link: Proxy) -> None:
        """Kill a role that waits for a reply, so that its requests are lost as well."""
        link.stall()
        try:
            self._wait(seconds / 2)
            self.note_memory(name)
            if not self._ended_by_itself(name, daemon):
                daemon.kill()
                link.cut()
                daemon.start(ready=False)
            self._wait(seconds / 4)
        finally:
            link.heal()

    def _restart(self, seconds: float, name: str, daemon: Daemon) -> None:
        self.note_memory(name)
        if self._ended_by_itself(name, daemon):
            return
        # SIGTERM kills a process that has not yet installed its handlers.
        allowed = (0,) if daemon.readyz()[0] else (0, -signal.SIGTERM)
        if (code := daemon.stop()) not in allowed:
            self.unexpected_ends.append(f"{name}: exit code {code} after SIGTERM")
        self._wait(seconds / 4)
        daemon.start(ready=False)

    def _ended_by_itself(self, name: str, daemon: Daemon) -> bool:
        try:
            return not daemon.running
        except AssertionError:
            self.unexpected_ends.append(f"{name}: unexpected end")
            daemon.start(ready=False)
            return True

    def note_memory(self, name: str) -> None:
        """Record the peak memory of a role before its process ends."""
        self.peaks[name] = max(self.peaks[name], self._stage.peak(name))

    def _hang(self, seconds: float, daemon: Daemon) -> None:
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            self._wait(seconds)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)

    def _kill_server(self, seconds: float, server: Any) -> None:
        server.kill()
        self._wait(seconds / 2)
        server.start(wait=False)
        wait_for(server.is_up, "the server is up", timeout=SERVER_START_TIMEOUT)

    def _hang_server(self, seconds: float, server: Any) -> None:
        server.suspend()
        try:
            self._wait(seconds)
        finally:
            server.resume()

    def _restart_server(self, _: float, server: Any) -> None:
        server.stop()
        server.start(wait=False)
        wait_for(server.is_up, "the server is up", timeout=SERVER_START_TIMEOUT)


class Injector:
    """Injects several faults at a time; their choice depends only on the seed.

    :param gap: average seconds between the beginnings of two faults.
    :param report: called with a line for each fault.
    """

    def __init__(self, stage: Stage, seed: str, gap: float, report: Callable[[str], None]) -> None:
        self.made: Counter[str] = Counter()
        """Kind → number of faults."""
        self.targets: Counter[str] = Counter()
        self.failures: list[str] = []
        """Faults that could not be injected or healed."""
        self._over = threading.Event()
        self.faults = Faults(stage, self._over.wait)
        self._random = Random(seed)
        self._gap = gap
        self._report = report
        self._busy: set[str] = set()
        self._threads: list[threading.Thread] = []

    def run(self, seconds: float) -> None:
        """Inject faults for ``seconds``; return when all of them are healed."""
        faults = self.faults.all()
        weights = [fault.weight for fault in faults]
        began = time.monotonic()
        try:
            while (left := began + seconds - time.monotonic()) > 0:
                (fault,) = self._random.choices(faults, weights)
                length = self._random.uniform(0.3, MAX_FAULT_SECONDS)
                gap = self._random.uniform(0, 2 * self._gap)
                if not self._busy & {fault.target, *fault.also}:
                    self._begin(fault, min(length, left), time.monotonic() - began)
                    self._over.wait(min(gap, left))
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(SERVER_START_TIMEOUT + 40)
        if any(thread.is_alive() for thread in self._threads):
            self.failures.append("a fault did not end in time")

    def _begin(self, fault: Fault, seconds: float, at: float) -> None:
        self._report(f"{at:6.1f} s  {fault} for {seconds:.1f} s")
        self.made[fault.kind] += 1
        self.targets[fault.target] += 1
        self._busy |= {fault.target, *fault.also}
        thread = threading.Thread(target=self._make, args=(fault, seconds), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _make(self, fault: Fault, seconds: float) -> None:
        with self._reported(fault):
            fault.run(seconds)
        self._busy -= {fault.target, *fault.also}

    @contextmanager
    def _reported(self, fault: Fault) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the round fails with it
            self.failures.append(f"{fault}: {error!r}")
