"""Whole processes, which a test starts like an operator, and kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.process import OwnProcess
from tests.servers import free_port
from tests.waiting import wait_for

#: Folder of the installed commands, with the Python that runs the tests.
BIN = Path(sys.executable).parent

Key = tuple[str, str, str]
"""device_id, ts, digest in hexadecimal: the key of a position."""


def environment(**variables: str) -> dict[str, str]:
    """Return the environment without the variables of Tracker, plus ``variables``.

    The size of the terminal is removed as well, since pytest-xdist sets a wrong one.
    """
    heeded = ("REDIS_", "INSTANCE_ID", "CONSUMER_NAME", "TRACKER_", "COLUMNS", "LINES")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(heeded)}
    return kept | variables


def run(*arguments: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run an installed command, and wait for its end."""
    options.setdefault("env", environment())
    return subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


class Daemon(OwnProcess):
    """``twistd -n tracker ROLE …`` with a health port, its output in a file."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        files: int | None = None,
    ) -> None:
        """:param files: open-file limit; None: that of this process."""
        super().__init__()
        self.log = folder / f"{name}.log"
        self._http = free_port()
        limit = [] if files is None else ["sh", "-c", f'ulimit -n {files} && exec "$0" "$@"']
        self._command = [
            *limit,
            *(str(BIN / "twistd"), "--nodaemon", "--pidfile=", "tracker"),
            *(arguments[0], "--http", f"tcp:{self._http}", *arguments[1:]),
        ]
        self._folder = folder
        # The folder of the control socket; the default is shared with other processes.
        runtime = {"RUNTIME_DIRECTORY": str(folder)}
        self._environment: Mapping[str, str] = environment(**(runtime | dict(variables or {})))

    def start(self, ready: bool = True) -> None:
        """Start the process, and wait until it is ready unless ``ready`` is False."""
        self._launch(self.log, *self._command, env=self._environment, cwd=self._folder)
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self, timeout: float = 20) -> None:
        """Wait until ``/readyz`` reports that the process is ready."""
        ready = lambda: self.running and self.readyz()[0] == 200  # noqa: E731
        wait_for(ready, f"{self.log.stem} is ready", timeout)

    def url(self, path: str) -> str:
        """Return the URL of a path on the health port."""
        return f"http://127.0.0.1:{self._http}{path}"

    def readyz(self) -> tuple[int, dict[str, Any]]:
        """Return status and content of ``/readyz``; status 0 without a response."""
        try:
            with urllib.request.urlopen(self.url("/readyz"), timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    @property
    def running(self) -> bool:
        """True if the process runs; else AssertionError, so that a waiting test fails early."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.log.stem} has ended:\n{self.text}")
        return True

    @property
    def text(self) -> str:
        """The output of the process so far."""
        return self.log.read_text()

    def wait(self, timeout: float = 30) -> int:
        """Wait until the process ends by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)


class Simulation(OwnProcess):
    """``tracker-admin simulate`` in the background.

    It writes journals of the acknowledged records and of the executed commands.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *arguments: str,
        name: str = "fleet",
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__()
        self._journal = folder / f"{name}.jsonl"
        self._journal.touch()
        self._command_journal = folder / f"{name}-commands.jsonl"
        self._command_journal.touch()
        self._log = folder / f"{name}.log"
        self._launch(
            self._log,
            *(str(BIN / "tracker-admin"), "simulate", "--target", f"tcp:{host}:{port}"),
            *("--journal", str(self._journal)),
            *("--command-journal", str(self._command_journal), *arguments),
            env=environment(),
        )

    def acknowledged(self) -> list[Key]:
        """Return the keys of the acknowledged records, in the order of their ACKs."""
        return [tuple(line.values()) for line in _lines(self._journal)]

    def commands(self) -> list[dict[str, str]]:
        """Return the executed commands, in their order."""
        return _lines(self._command_journal)

    def wait_for_more(self, count: int) -> None:
        """Wait until ``count`` more records are acknowledged."""
        lines = lambda: self._journal.read_bytes().count(b"\n")  # noqa: E731
        goal = lines() + count
        wait_for(lambda: lines() >= goal, f"{goal} acknowledged", timeout=40)

    def park(self, number: signal.Signals = signal.SIGINT, *, complete: bool = True) -> str:
        """Stop the devices once their records are sent; return the last line of the output.

        :param complete: False if some records may stay without an ACK.
        """
        status = self._end(number)
        text = self._log.read_text()
        assert status == 0 or (status == 1 and not complete), text
        return text.splitlines()[-1]


def _lines(journal: Path) -> list[dict[str, Any]]:
    # The last line may be incomplete.
    lines = journal.read_text().rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in lines]


def stored(database: Path) -> list[Key]:
    """Return the keys of all positions in a database."""
    return _positions(database, "device_id, ts, lower(hex(digest))")


def wait_until_stored(database: Path, count: int, timeout: float = 60) -> None:
    """Wait until a database has at least ``count`` positions."""

    def has_them() -> bool:
        ((number,),) = _positions(database, "count(*)") or [(0,)]
        return bool(number >= count)

    wait_for(has_them, f"{count} are stored", timeout)


def _positions(database: Path, columns: str) -> list[Any]:
    if not database.exists():
        return []
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(f"SELECT {columns} FROM positions").fetchall()
    except sqlite3.OperationalError:  # the table does not exist yet
        return []
    finally:
        connection.close()
