"""A command on its own pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tests.system.processes import BIN, environment

#: Control sequences, which set colours and move the cursor: ECMA-48, 5.4.
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

#: Maximum number of seconds without output.
MAX_SILENCE = 120


class Terminal:
    """Runs a command, and reads its output until an expected pattern."""

    def __init__(
        self, *arguments: str, columns: int = 100, env: Mapping[str, str] | None = None
    ) -> None:
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            [shutil.which(arguments[0], path=f"{BIN}:{os.environ['PATH']}") or "", *arguments[1:]],
            stdin=terminal, stdout=terminal, stderr=terminal,
            env={**environment(TERM="xterm-256color"), **(env or {})},
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(terminal)
        self.shown = ""

    def read_until(self, pattern: str) -> str:
        """Read until the output contains the pattern; return the whole output."""
        while not re.search(pattern, self.shown):
            assert self._read(), self.shown
        return self.shown

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._controller, keys.encode())

    def interrupt(self) -> int:
        """Press Ctrl-C until the command ends; return its exit code.

        Python misses a signal that arrives just before it blocks in the read of a line.
        """
        while self._process.poll() is None:
            with suppress(OSError):  # it has ended meanwhile
                self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        return self.end()

    def end(self, timeout: float = 30) -> int:
        """Read the rest of the output; return the exit code."""
        while self._read():
            pass
        os.close(self._controller)
        return self._process.wait(timeout)

    def kill(self) -> None:
        """Kill the command."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self.end()

    def _read(self) -> bool:
        readable, _, _ = select.select([self._controller], [], [], MAX_SILENCE)
        assert readable, f"no output for {MAX_SILENCE} s after: {self.shown}"
        try:
            data = os.read(self._controller, 65_536)
        except OSError:  # all its processes have ended
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


def on_terminal(*arguments: str, **options: object) -> tuple[int, str]:
    """Run a command to its end; return its exit code and output."""
    terminal = Terminal(*arguments, **options)  # type: ignore[arg-type]
    return terminal.end(), terminal.shown


def widths(shown: str) -> Sequence[int]:
    """Return the number of columns of each line, without control sequences."""
    return [len(ESCAPE.sub("", line)) for line in shown.splitlines()]
