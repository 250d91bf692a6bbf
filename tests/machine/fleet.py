"""A simulated fleet outside of the machine, and how long its devices have to wait."""

from __future__ import annotations

import json
import time
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

from tests.system.processes import Simulation
from tests.waiting import wait_for

DEVICES: Final = 60
#: Seconds between two records of a device, each of which it sends at once.
INTERVAL: Final = 0.5


class Fleet(Simulation):
    """Runs until it is parked, and watches what its devices are told meanwhile."""

    def __init__(self, folder: Path, host: str) -> None:
        name = "fleet"
        arguments = ("--devices", str(DEVICES), "--interval", str(INTERVAL))
        super().__init__(folder, 5027, *arguments, name=name, host=host)
        self.pauses = Pauses(folder / f"{name}.jsonl")

    def wait_until_silent(self, seconds: float = 3.0) -> None:
        """Wait until nothing has been acknowledged for so long."""
        wait_for(lambda: self.pauses.silence() >= seconds, "no more acknowledgements", timeout=60)

    def kill(self) -> int:
        """See OwnProcess."""
        status = super().kill()
        self.pauses.end()
        return status


class Pauses:
    """How long each device goes without an acknowledgement, as its journal shows."""

    _POLL: Final = 0.02  # seconds, so the figures are as exact as that

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._heard: dict[str, float] = {}
        self._longest = 0.0
        self._last = time.monotonic()
        self._lock = Lock()
        self._ending = Event()
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Forget what was; pauses that go on count from now."""
        now = time.monotonic()
        with self._lock:
            self._heard = dict.fromkeys(self._heard, now)
            self._longest = 0.0

    def longest(self) -> float:
        """Seconds of the longest pause of any device since :meth:`begin`, or that goes on."""
        now = time.monotonic()
        with self._lock:
            return max(self._longest, *(now - heard for heard in self._heard.values()))

    def silence(self) -> float:
        """Seconds since any device was told anything."""
        return time.monotonic() - self._last

    def end(self) -> None:
        """Follow the journal no more."""
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
            self._longest = max(self._longest, now - self._heard.get(device, now))
            self._heard[device] = self._last = now
