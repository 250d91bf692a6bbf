"""A terminal of the machine, in which an ordinary user types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.machine.image import USER
from tests.machine.machine import Machine
from tests.waiting import wait_for

#: The prompt of the shell, with the exit code of the previous command.
_PROMPT: Final = re.compile(r"\x1e(\d+)> $")
_SET_PROMPT: Final = r"PS2='' PS1=$'\x1e$?> '"

_CTRL_C: Final = "\x03"


class Terminal:
    """A login shell on a terminal of 80 columns, in the user's home folder.

    :param name: name of the terminal, unique on the machine.
    """

    def __init__(self, machine: Machine, folder: Path, name: str) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._at = 0  # characters of the log before the output of the current command
        self._process = machine.begin(
            self._log,
            *("systemd-run", "--quiet", "--collect", "--pty", f"--unit={name}"),
            # A session as after a login, with a folder in /run/user.
            *(f"--uid={USER}", "--property=PAMName=login", "--property=WorkingDirectory=~"),
            *("--setenv=TERM=dumb", "--setenv=VIRTUAL_ENV_DISABLE_PROMPT=1"),
            *("bash", "--login", "--noediting", "-i"),
        )
        # The shell discards what is typed before its first prompt.
        wait_for(lambda: self._text.endswith("$ "), f"{name} has a prompt")
        self._write(f"{_SET_PROMPT}\n")
        wait_for(lambda: self._exit_code is not None, f"{name} is open")

    def type(self, command: str, timeout: float = 120) -> str:
        """Type a command, wait for its end, and return its output.

        :raises AssertionError: if its exit code is not 0.
        """
        self.begin(command)
        return self.finish(timeout)

    def begin(self, command: str) -> None:
        """Type a command that keeps running."""
        before = len(self._text)
        self._write(f"{command}\n")
        lines = command.count("\n") + 1
        wait_for(lambda: self._text.count("\n", before) >= lines, f"{command!r} is typed")
        # The terminal shows what is typed.
        self._at = before + len("".join(self._text[before:].splitlines(keepends=True)[:lines]))

    def finish(self, timeout: float = 120, exit_code: int = 0) -> str:
        """Wait for the end of the command, and return its output.

        :raises AssertionError: if it has another exit code.
        """
        try:
            wait_for(lambda: self._exit_code is not None, f"end of {self.name}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None
        assert self._exit_code == exit_code, f"exit code {self._exit_code}\n{self.output}"
        return self.output

    def interrupt(self, exit_code: int = 0) -> str:
        """Press Ctrl-C, wait for the end of the command, and return its output."""
        assert self.running, self.output
        self._write(_CTRL_C)
        return self.finish(exit_code=exit_code)

    @property
    def output(self) -> str:
        """The output of the current command so far."""
        return _PROMPT.sub("", self._text[self._at :])

    @property
    def running(self) -> bool:
        """True while the command runs."""
        return self._exit_code is None

    @property
    def _text(self) -> str:
        return self._log.read_bytes().decode(errors="replace").replace("\r", "")

    @property
    def _exit_code(self) -> int | None:
        """Exit code of the command; None while it runs."""
        prompt = _PROMPT.search(self._text, self._at)
        return int(prompt[1]) if prompt else None

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()
