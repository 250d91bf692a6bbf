"""Instances with control ports, and ``tracker-admin`` as their client."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.admin import Ended, admin
from tests.servers import RedisServer, free_port
from tests.system.processes import BIN, environment
from tests.system.raw import Ingest, RawDevice
from tests.system.test_commands import answer, read_command
from tracker.vendors.teltonika.messages import RESPONSE, Message

#: A time as ``tracker-admin`` prints it.
TIME: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
#: A device that is not connected to any instance.
UNKNOWN_DEVICE: Final = "999999999999999"

_numbers = count(1)


def imei() -> str:
    """Return an IMEI that no other test has."""
    return f"35630704{next(_numbers):07}"


class Site:
    """A Redis, two instances on Unix sockets, and one that requires certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        self.redis.start()
        certs = folder / "certs"
        made = admin("certs", str(certs), "--client", "alice", "--client", "bob")
        assert made.returncode == 0, made.stderr
        (folder / "permissions").write_text("alice operate\n* read\n")
        self._tls = free_port()
        self.one = self.ingest("one")
        self.two = self.ingest("two")
        self.three = self.ingest(
            "three",
            f"ssl:{self._tls}:privateKey={certs}/server.key:certKey={certs}/server.pem"
            f":clientCA={certs}/ca.pem",
            *("--control-permissions", str(folder / "permissions")),
        )

    def ingest(self, name: str, control: str = "", *options: str) -> Ingest:
        """Return an instance that is ready."""
        (self.folder / name).mkdir()
        control = control or self.socket(name)
        ingest = Ingest(
            *(self.folder / name, self.redis, "--instance-id", name, "--control", control),
            *options,
        )
        ingest.daemon.start()
        return ingest

    def socket(self, name: str) -> str:
        """Return the endpoint of an instance's Unix socket."""
        return f"unix:{self.folder}/{name}.sock"

    def tls(self, client: str) -> str:
        """Return the endpoint of the third instance, for one of its clients."""
        certs = self.folder / "certs"
        return (
            f"ssl:localhost:{self._tls}:privateKey={certs}/{client}.key"
            f":certKey={certs}/{client}.pem:caCert={certs}/ca.pem"
        )

    def admin(
        self, *arguments: str, exit_code: int = 0, control: str = "", typed: str | None = None
    ) -> Ended:
        """Run a command on the first instance (or another), and check its exit code."""
        where = ("--control", control or self.socket("one"))
        ended = admin(*where, *arguments, typed=typed)
        assert ended.returncode == exit_code, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr, ended.stderr
        assert "\x1b" not in ended.stdout + ended.stderr
        if exit_code > 1:
            assert ended.stdout == ""
            assert re.fullmatch(r"tracker-admin: .*\n", ended.stderr)
        return ended

    def json(self, *arguments: str, **options: Any) -> Any:
        """Run a command and return the JSON that it prints."""
        return json.loads(self.admin("-o", "json", *arguments, **options).stdout)

    def start(self, *arguments: str, control: str = "") -> subprocess.Popen[str]:
        """Start a command as a separate process."""
        where = ("--control", control or self.socket("one"))
        return subprocess.Popen(
            [str(BIN / "tracker-admin"), *where, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip

    def end(self) -> None:
        for name in ("one", "two", "three"):
            if ingest := getattr(self, name, None):
                ingest.daemon.kill()
        self.redis.kill()


def answering(device: RawDevice, text: str, kind: int = RESPONSE) -> Future[Message]:
    """Answer the next command of a device in a thread; the result is the command."""

    def read_and_answer() -> Message:
        command = read_command(device)
        answer(device, text, command, kind)
        return command

    return ThreadPoolExecutor(1).submit(read_and_answer)


def ended(process: subprocess.Popen[str], exit_code: int = 0) -> str:
    """Wait for a command that was started; return its output."""
    stdout, stderr = process.communicate(timeout=40)
    assert process.returncode == exit_code, stdout + stderr
    assert "Traceback" not in stderr, stderr
    return stdout


def lines_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    """Return the lines that a command prints, up to the first one with the pattern."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"no {pattern} in {lines}")


def watching(site: Site, device_id: str, *options: str, **where: str) -> subprocess.Popen[str]:
    """Start ``tracker-admin watch``; return when it watches the device."""
    process = site.start(*options, "watch", device_id, **where)
    assert process.stderr is not None
    assert f"Watching {device_id}" in process.stderr.readline()
    return process
