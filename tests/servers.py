"""Real servers for tests: each on a free port, with its data in a folder of the test."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import valkey

from tests.waiting import wait_for
from tracker.streams.address import RedisAddress
from tracker.streams.embedded import find_server


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


class RedisServer:
    """A Redis or Valkey server that can be killed and started again with its data."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.address = RedisAddress.from_url(self.url)
        self.client: Any = valkey.Valkey(port=self.port, retry=None)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(find_server(), "--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--dir", str(self._folder), "--save", "", "--appendonly", "yes"),
                    *("--appendfsync", "always", "--maxmemory-policy", "noeviction"),
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, "Redis answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except valkey.AuthenticationError:
            return True  # it wants a password, so it is there
        except valkey.ConnectionError:
            return False

    def kill(self) -> None:
        """As ``kill -9``."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down."""
        self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Make it hang (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`suspend`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(20)
            self._process = None
        self.client.connection_pool.disconnect()
