"""The process of a server or a daemon, which a test may kill, suspend and start again."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

_END_TIMEOUT = 60  # seconds


class OwnProcess:
    """A process that the tests have started; a subclass says how."""

    def __init__(self) -> None:
        self.disturbed = False
        """Whether a test has had its process id or ended or suspended it."""
        self._process: subprocess.Popen[bytes] | None = None

    def _launch(self, log: Path, *command: str | Path, **options: Any) -> None:
        """Start the program with its output appended to a file."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, **options)

    @property
    def started(self) -> bool:
        """Whether a test has started it, and not ended it since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        self.disturbed = True
        return self._process.pid

    def kill(self) -> int:
        """End it as ``kill -9`` does, and return its exit status."""
        return self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Shut it down with SIGTERM, and return its exit status."""
        return self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Make it hang (SIGSTOP)."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it after :meth:`suspend`."""
        self._send(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; return 0 if it does not run."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._send(number)
            self._send(signal.SIGCONT)
        status = self._process.wait(_END_TIMEOUT)
        self._process = None
        return status

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the process, and to its children where there are any."""
        assert self._process is not None
        self.disturbed = True
        self._process.send_signal(number)
