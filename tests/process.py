"""Process of a server or a daemon, which a test can kill, suspend and restart."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

_END_TIMEOUT = 60  # seconds


class OwnProcess:
    """A process that the tests start; a subclass defines how."""

    def __init__(self) -> None:
        self.disturbed = False
        """True if a test has read its process ID, ended or suspended it."""
        self._process: subprocess.Popen[bytes] | None = None

    def _launch(self, log: Path, *command: str | Path, **options: Any) -> None:
        """Start the program, and append its output to a file."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, **options)

    @property
    def started(self) -> bool:
        """True if it was started and not ended since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process ID."""
        assert self._process is not None
        self.disturbed = True
        return self._process.pid

    def kill(self) -> int:
        """Kill it with SIGKILL, and return its exit code."""
        return self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Shut it down with SIGTERM, and return its exit code."""
        return self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Suspend it with SIGSTOP, which makes it hang."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it with SIGCONT."""
        self._send(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the exit; return the exit code, or 0 if it does not run."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._send(number)
            self._send(signal.SIGCONT)
        exit_code = self._process.wait(_END_TIMEOUT)
        self._process = None
        return exit_code

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the process, and to its child processes if it has any."""
        assert self._process is not None
        self.disturbed = True
        self._process.send_signal(number)
