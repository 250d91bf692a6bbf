"""Recipes of the documentation, run from its source text.

A literal block with a ``:name:`` is a recipe: lines that begin with ``# `` are commands for
root's shell, all other lines show their output. Or the block holds lines of a settings file.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from textwrap import dedent
from typing import Final

from tests.servers import RedisServer
from tests.system.processes import BIN, Daemon, environment
from tests.waiting import wait_for
from tracker.redis.embedded import find_server

DOCS: Final = Path(__file__).parents[2] / "docs"

#: Role → arguments of its unit. Words that begin with $ are variables of its settings files.
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "ingest": ("$TRACKER_LISTEN", "$TRACKER_INGEST_OPTIONS"),
    "process": ("--sink", "$TRACKER_SINK", "$TRACKER_PROCESS_OPTIONS"),
    "janitor": ("$TRACKER_JANITOR_OPTIONS",),
}
_UNIT: Final = re.compile(r"tracker-(?P<role>[a-z]+)(?:@(?P<name>\w+))?(?:\.service)?")


def block(page: str, name: str) -> str:
    """Return the text of the literal block with this name."""
    lines = (DOCS / f"{page}.rst").read_text().splitlines()
    (at,) = (at for at, line in enumerate(lines) if line.strip() == f":name: {name}")
    margin = lines[at].partition(":")[0]
    body = takewhile(lambda line: line.startswith(margin) or not line, lines[at + 1 :])
    return dedent("\n".join(body)).strip()


def commands(page: str, name: str) -> list[str]:
    """Return the commands in a block, each as one line."""
    text = re.sub(r" *\\\n *", " ", block(page, name))
    found = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    assert found, f"{name} has no command"
    return found


class Machine:
    """A machine with Tracker on it, as seen by root's shell.

    Names in the documentation are replaced: folders by folders of the test, ports by free ones,
    hosts by this one. ``systemctl`` starts and stops the same programs, with the settings in the
    same files. ``redis-cli`` connects to the server of the test.

    :param replaced: regular expression → replacement, applied in this order after the folders.
    """

    def __init__(self, folder: Path, name: str, redis: RedisServer, replaced: Mapping[str, str]):
        self.folder = folder / name
        self.name = name
        self.redis = redis
        self.units: dict[str, Daemon] = {}
        self.begun: list[Daemon] = []
        self.replaced = {
            # Only at the beginning of a path.
            r"(?<![\w./])/(etc|run|var)/": f"{self.folder}/\\1/",
            **replaced,
        }
        for path in ("bin", "etc/tracker", "run/tracker", "var/lib/tracker", "var/backups"):
            (self.folder / path).mkdir(parents=True, exist_ok=True)
        self.settings("common.env", f"REDIS_URL={redis.url}")
        self.settings("admin.conf", "[tracker-admin]")
        self._program("redis-cli", f'exec {_redis_cli()} -p {redis.port} "$@"')
        # The test has only one user, so chown only checks that the files exist.
        self._program("chown", 'for one; do case $one in /*) ls "$one" || exit ;; esac; done')

    def _program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def here(self, text: str) -> str:
        """Return a text of the documentation with the names of this machine."""
        for pattern, replacement in self.replaced.items():
            text = re.sub(pattern, replacement, text)
        return text

    def settings(self, file: str, text: str) -> None:
        """Write a file in ``/etc/tracker``, and replace an existing one."""
        (self.folder / "etc/tracker" / file).write_text(self.here(text) + "\n")

    def follow(self, page: str, name: str) -> str:
        """Run the commands of a recipe one after another; return their output."""
        return "".join(self.run(command) for command in commands(page, name))

    def run(self, command: str, exit_code: int = 0) -> str:
        """Run a command, check its exit code, and return its output."""
        if command.startswith("systemctl "):
            self._systemctl(*shlex.split(command)[1:])
            return ""
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(command)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.folder,
            env=environment(
                PATH=f"{self.folder}/bin:{BIN}:{os.environ['PATH']}",
                REDIS_URL=self.redis.url,
                HOME=str(self.folder),
                TRACKER_ADMIN_CONFIG=str(self.folder / "etc/tracker/admin.conf"),
            ),
        )
        output = ended.stdout + ended.stderr
        assert ended.returncode == exit_code, f"{command}\n{output}"
        assert "Traceback" not in output, output
        return output

    def until(self, command: str, expected: Callable[[str], object]) -> None:
        """Run a command repeatedly until its output is as expected."""
        wait_for(lambda: expected(self.run(command)), command, timeout=60)

    def _systemctl(self, verb: str, *units: str) -> None:
        for unit in units:
            if unit in ("redis-server", "valkey-server"):
                self.redis.start() if verb == "start" else self.redis.stop()
                continue
            if verb in ("stop", "restart") and unit in self.units:
                assert self.units.pop(unit).stop() == 0
            if verb in ("start", "restart"):
                self.units[unit] = self._start(unit)

    def _start(self, unit: str) -> Daemon:
        match = _UNIT.fullmatch(unit)
        assert match, unit
        role, name = match["role"], match["name"]
        variables = {
            "INSTANCE_ID": f"{self.name}-{name}",
            "CONSUMER_NAME": f"{self.name}-{name}",
            "TRACKER_SINK": self.here("sqlite:/var/lib/tracker/positions.sqlite"),
            "RUNTIME_DIRECTORY": str(self.folder / "run/tracker"),
        }
        for file in ("common.env", f"{role}.env", f"{role}-{name}.env"):
            variables |= self._variables(file)
        words = []
        for word in _ROLES[role]:
            words += shlex.split(variables.get(word[1:], "")) if word[0] == "$" else [word]
        daemon = Daemon(self.folder, unit, role, *words, variables=variables)
        self.begun.append(daemon)
        daemon.start(ready=False)
        # A unit has started when its process runs, ready or not.
        wait_for(lambda: daemon.running and daemon.readyz()[0], f"{unit} has started")
        return daemon

    def _variables(self, file: str) -> dict[str, str]:
        """Return the variables of a file for ``EnvironmentFile=``."""
        path = self.folder / "etc/tracker" / file
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def end(self) -> None:
        """Kill all started processes."""
        for daemon in self.begun:
            daemon.kill()


def _redis_cli() -> str:
    beside = Path(find_server()).parent
    for name in ("redis-cli", "valkey-cli"):
        if found := shutil.which(name, path=f"{beside}:{os.environ['PATH']}"):
            return found
    raise AssertionError("redis-cli is not installed")
