"""The console as a process: what it serves, and what it does without Redis or its port."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon, run
from tests.system.terminal import Terminal
from tests.waiting import wait_for
from tracker.config import DEFAULT_CONSOLE


class Console(Daemon):
    """A console on a port of its own."""

    def __init__(self, folder: Path, redis: RedisServer, *arguments: str) -> None:
        self.port = free_port()
        super().__init__(
            folder,
            "console",
            *("console", "--listen", f"tcp:{self.port}", *arguments),
            variables={"REDIS_URL": redis.url},
        )

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and body."""
        return get(self.port, path, **headers)

    def overview(self) -> dict[str, Any]:
        """The next sample."""
        url = f"http://127.0.0.1:{self.port}/api/events"
        with urllib.request.urlopen(url, timeout=30) as response:
            name = ""
            for line in response:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data" and name == "overview":
                    found: dict[str, Any] = json.loads(value)
                    return found
        raise AssertionError("no sample came")


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def console(tmp_path: Path, redis: RedisServer) -> Iterator[Console]:
    console = Console(tmp_path, redis)
    yield console
    console.kill()


def test_it_serves_its_page_with_all_that_belongs_to_it(console: Console) -> None:
    console.start()
    status, page = console.get("/")
    assert status == 200
    for part in page.split('"'):
        if part.startswith("/static/"):
            assert console.get(part)[0] == 200, part
    assert console.get("/", Host="evil.example")[0] == 421
    wait_for(lambda: console.overview()["redis"] is None, "it has looked at Redis")
    assert console.stop() == 0


def test_it_serves_while_redis_is_away_and_says_so(console: Console, redis: RedisServer) -> None:
    redis.kill()
    console.start(ready=False)
    wait_for(lambda: console.running and console.readyz()[0] == 503, "it says that it is not ready")
    assert console.get("/")[0] == 200
    assert console.overview()["redis"]
    redis.start()
    wait_for(lambda: console.overview()["redis"] is None, "it is back", timeout=40)
    console.wait_until_ready()


def test_it_gives_up_where_its_port_is_taken(console: Console) -> None:
    with socket.create_server(("127.0.0.1", console.port)):
        console.start(ready=False)
        assert console.wait() == 1
    assert f"cannot listen on --listen tcp:{console.port}" in console.text


@pytest.mark.parametrize("taken", [True, False])
def test_standalone_serves_devices_with_its_console_or_without(tmp_path: Path, taken: bool) -> None:
    port = int(DEFAULT_CONSOLE.rpartition(":")[2])
    daemon = Daemon(
        *(tmp_path, "standalone", "standalone", "--data", str(tmp_path / "data")),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
        *(() if taken else ("--console", f"tcp:{(other := free_port())}")),
    )
    try:
        if taken:
            with socket.socket() as listening:
                # Another program's, if not ours: that it is taken is all that counts.
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listening.bind(("127.0.0.1", port))
                    listening.listen()
                except OSError:
                    pass
                daemon.start()
            assert f"no console: cannot listen on --console {DEFAULT_CONSOLE}" in daemon.text
        else:
            daemon.start()
            assert get(other, "/")[0] == 200
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_operators_are_added_from_a_pipe_and_on_a_terminal(tmp_path: Path) -> None:
    file = str(tmp_path / "operators")
    admin = ("tracker-admin", "console-operator")
    done = run(*admin, "add", "--file", file, "anna", input="correct horse battery\n")
    assert (done.returncode, done.stdout) == (0, "anna (operate) added\n")
    terminal = Terminal(*admin, "add", "--role", "read", "--file", file, "ben")
    try:
        terminal.read_until("Password: ")
        terminal.type("another password\n")
        terminal.read_until("Once more: ")
        terminal.type("another password\n")
        assert "another" not in terminal.read_until(r"ben \(read\) added")
        assert terminal.end() == 0
    finally:
        terminal.kill()
    listed = run(*admin, "list", "--file", file, "-o", "json")
    assert json.loads(listed.stdout) == [
        {"name": "anna", "role": "operate"},
        {"name": "ben", "role": "read"},
    ]
    assert run(*admin, "remove", "--file", file, "ben").stdout == "ben removed\n"
    assert run(*admin, "remove", "--file", file, "ben").returncode == 1
    assert "ben" not in Path(file).read_text()


def test_a_short_password_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "operators"
    done = run(
        *("tracker-admin", "console-operator", "add", "--file", str(file), "anna"), input="short\n"
    )
    assert done.returncode == 1
    assert done.stderr == "tracker-admin: a password has 12 to 256 characters\n"
    assert not file.exists()
