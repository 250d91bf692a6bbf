"""A simulated fleet outside of the machine, and the pauses between its acknowledgements."""

from __future__ import annotations

import json
import time
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

from tests.system.processes import Simulation
from tests.waiting import wait_for

DEVICES: Final = 60
#: Seconds between two records of a device. A device sends each record at once.
INTERVAL: Final = 0.5


class Fleet(Simulation):
    """Runs until it is parked, and measures the pauses of its devices."""

    def __init__(self, folder: Path, host: str) -> None:
        name = "fleet"
        arguments = ("--devices", str(DEVICES), "--interval", str(INTERVAL))
        super().__init__(folder, 5027, *arguments, name=name, host=host)
        self.pauses = Pauses(folder / f"{name}.jsonl")

    def wait_until_silent(self, seconds: float = 3.0) -> None:
        """Wait until no record has been acknowledged for that time."""
        wait_for(lambda: self.pauses.silence() >= seconds, "acknowledgements stop", timeout=60)

    def kill(self) -> int:
        """See OwnProcess."""
        status = super().kill()
        self.pauses.end()
        return status


class Pauses:
    """Times without an acknowledgement for each device, from the journal of the fleet."""

    _POLL: Final = 0.02  # seconds; also the accuracy of the figures

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._acknowledged: dict[str, float] = {}  # device → time of the last acknowledgement
        self._longest = 0.0
        self._last = time.monotonic()
        self._lock = Lock()
        self._ending = Event()
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Start a new measurement; current pauses count from now."""
        now = time.monotonic()
        with self._lock:
            self._acknowledged = dict.fromkeys(self._acknowledged, now)
            self._longest = 0.0

    def longest(self) -> float:
        """Return the seconds of the longest pause since :meth:`begin`, including current ones."""
        now = time.monotonic()
        with self._lock:
            return max(self._longest, *(now - last for last in self._acknowledged.values()))

    def silence(self) -> float:
        """Return the seconds since the last acknowledgement of any device."""
        return time.monotonic() - self._last

    def end(self) -> None:
        """Stop following the journal."""
        self._ending.set()
        self._thread.join()

    def _follow(self) -> None:
        with self._journal.open() as journal:
            unfinished = ""
            while not self._ending.wait(self._POLL):
                lines = (unfinished + journal.read()).split("\n")
                unfinished = lines.pop()
                with self._lock:
                    self._note([json.loads(line)["device_id"] for line in lines])

    def _note(self, devices: list[str]) -> None:
        now = time.monotonic()
        for device in devices:
            self._longest = max(self._longest, now - self._acknowledged.get(device, now))
            self._acknowledged[device] = self._last = now
