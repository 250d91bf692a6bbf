"""A stranger who types the commands of README.rst, one after another."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.machine.documented import README, Command, blocks
from tests.machine.image import USER
from tests.machine.machine import Machine
from tests.machine.terminal import Terminal
from tests.waiting import wait_for

_ROOT: Final = Path(__file__).parents[2]

#: Address of the repository on the page, a reserved name (RFC 2606).
_URL: Final = "https://example.org/tracker-plane.git"
_REPOSITORY: Final = "/srv/tracker.git"


class Reader:
    """Types each block in a terminal of its own, as the page says.

    :ivar typed: all commands so far.
    """

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.typed: list[Command] = []
        self._folder = folder
        self._terminals = 0
        self._publish()

    def blocks(self, section: str) -> list[list[Command]]:
        """Return the blocks of a section of README.rst."""
        return blocks(README, section)

    def type(self, block: list[Command]) -> list[str]:
        """Type the commands of a block, and return the output of each.

        :raises AssertionError: if a command fails.
        """
        terminal = self._open()
        return [self._type(terminal, command) for command in block]

    def start(self, block: list[Command]) -> Terminal:
        """Type the commands of a block, of which the last one keeps running."""
        terminal = self._open()
        for command in block[:-1]:
            self._type(terminal, command)
        terminal.begin(block[-1].text)
        self.typed.append(block[-1])
        return terminal

    def wait_until_ready(self, terminal: Terminal) -> None:
        """Wait until the role in a terminal logs that it is ready."""

        def is_ready() -> bool:
            assert terminal.running, terminal.output
            return "#info] ready\n" in terminal.output

        wait_for(is_ready, f"the role in {terminal.name} is ready", timeout=60)

    def _open(self) -> Terminal:
        self._terminals += 1
        return Terminal(self.machine, self._folder, f"terminal-{self._terminals}")

    def _type(self, terminal: Terminal, command: Command) -> str:
        self.typed.append(command)
        return terminal.type(command.text)

    def _publish(self) -> None:
        """Put this source tree, with what is not committed, where the page says it is."""
        path = self.machine.root / _REPOSITORY.lstrip("/")
        subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
        git = ("git", f"--git-dir={path}", f"--work-tree={_ROOT}")
        identity = ("-c", "user.name=Tests", "-c", "user.email=tests@example.org")
        subprocess.run([*git, "add", "--all", str(_ROOT)], check=True, cwd=_ROOT)
        subprocess.run([*git, *identity, "commit", "--quiet", "--message=tree"], check=True)
        # Git refuses a repository of another user.
        self.machine.run("chown", "--recursive", USER, _REPOSITORY)
        settings = f'[url "{_REPOSITORY}"]\n\tinsteadOf = {_URL}\n'
        (self.machine.root / "etc/gitconfig").write_text(settings)
