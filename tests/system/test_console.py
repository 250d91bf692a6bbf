"""The console as a process: its page, outages of Redis, control ports and operators."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.admin import admin
from tests.integration.poison import position
from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tests.system.terminal import Terminal
from tests.waiting import wait_for
from tracker.config import DEFAULT_CONSOLE


class Console(Daemon):
    """A console process."""

    def __init__(self, folder: Path, redis: RedisServer, *arguments: str) -> None:
        self.port = free_port()
        super().__init__(
            folder,
            "console",
            *("console", "--listen", f"tcp:{self.port}", *arguments),
            variables={"REDIS_URL": redis.url},
        )

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Send a GET request; return status and body."""
        return get(self.port, path, headers=headers)

    def overview(self) -> dict[str, Any]:
        """Return the next sample."""
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
        raise AssertionError("no sample received")

    def send(self, device_id: str, text: str) -> tuple[int, Any]:
        """Send a command as the page does; return status and body."""
        url = f"http://127.0.0.1:{self.port}"
        with urllib.request.urlopen(f"{url}/api/session", timeout=30) as response:
            token = json.load(response)["token"]
            cookie = response.headers["set-cookie"].partition(";")[0]
        headers = {
            "Cookie": cookie,
            "X-CSRF-Token": token,
            "Origin": url,
            "Content-Type": "application/json",
        }
        body = {"device_id": device_id, "text": text}
        status, response = get(self.port, "/api/commands", body, headers)
        return status, json.loads(response)


def get(
    port: int, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, dict(headers or {}))
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


def test_console_serves_its_page_and_static_files(console: Console) -> None:
    console.start()
    status, page = console.get("/")
    assert status == 200
    for part in page.split('"'):
        if part.startswith("/static/"):
            assert console.get(part)[0] == 200, part
    assert console.get("/", Host="evil.example")[0] == 421
    wait_for(lambda: console.overview()["redis"] is None, "it has read Redis")
    assert console.stop() == 0


def test_console_serves_its_page_while_redis_is_down(console: Console, redis: RedisServer) -> None:
    redis.kill()
    console.start(ready=False)
    wait_for(lambda: console.running and console.readyz()[0] == 503, "readyz reports 503")
    assert console.get("/")[0] == 200
    assert console.overview()["redis"]
    redis.start()
    wait_for(lambda: console.overview()["redis"] is None, "it has read Redis again", timeout=40)
    console.wait_until_ready()


def test_console_shows_stranded_streams(console: Console, redis: RedisServer) -> None:
    redis.client.xadd("telemtry:teltonika", position(1))
    console.start()
    wait_for(lambda: console.overview().get("unknown") == {}, "it has searched for streams")
    (lag,) = console.overview()["lag"]
    assert (lag["stream"], lag["total"], lag["stranded"]) == ("telemtry:teltonika", 1, True)


def test_console_exits_if_its_port_is_taken(console: Console) -> None:
    with socket.create_server(("127.0.0.1", console.port)):
        console.start(ready=False)
        assert console.wait() == 1
    assert f"cannot listen on --listen tcp:{console.port}" in console.text


@pytest.fixture
def ingest(tmp_path: Path, redis: RedisServer) -> Iterator[Callable[..., Daemon]]:
    """Return a function that starts an ingest process with a control port."""
    started = []

    def start(name: str, control: str, *arguments: str) -> Daemon:
        daemon = Daemon(
            tmp_path,
            name,
            *("ingest", "--instance-id", name, "--control", control, *arguments),
            *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
            variables={"REDIS_URL": redis.url},
        )
        started.append(daemon)
        daemon.start()
        return daemon

    yield start
    for daemon in started:
        daemon.kill()


def wait_for_permissions(console: Console, *permissions: str) -> dict[str, Any]:
    """Wait until the instances give these permissions; return the overview."""

    def found() -> dict[str, Any]:
        overview = console.overview()
        given = [one["control"]["permission"] for one in overview.get("instances", [])]
        return overview if given == list(permissions) else {}

    return wait_for(found, f"permissions {permissions}", timeout=60)


@pytest.mark.parametrize("permission", ["read", "operate"])
def test_console_has_the_permission_of_its_certificate(
    tmp_path: Path, redis: RedisServer, ingest: Callable[..., Daemon], permission: str
) -> None:
    certs = tmp_path / "certs"
    assert admin("certs", str(certs), "--client", "console").returncode == 0
    permissions = tmp_path / "permissions"
    permissions.write_text(f"console {permission}\n")
    files = f"privateKey={certs}/server.key:certKey={certs}/server.pem:clientCA={certs}/ca.pem"
    ingest("one", f"ssl:{free_port()}:{files}", "--control-permissions", str(permissions))
    console = Console(
        *(tmp_path, redis, "--control-key", f"{certs}/console.key"),
        *("--control-cert", f"{certs}/console.pem", "--control-ca", f"{certs}/ca.pem"),
    )
    try:
        console.start()
        assert wait_for_permissions(console, permission)["can_send"] is (permission == "operate")
        status, response = console.send("356307042441013", "getinfo")
        if permission == "operate":
            assert (status, response["status"]) == (200, "waiting")
            (known,) = wait_for(
                lambda: console.overview()["commands"]["latest"], "the command is shown"
            )
            assert (known["text"], known["status"]) == ("getinfo", "waiting")
            assert "getinfo" not in console.text
        else:
            assert status == 403
            assert redis.client.exists("commands:waiting") == 0
    finally:
        console.kill()


def test_console_follows_starting_and_ending_instances(
    tmp_path: Path, console: Console, ingest: Callable[..., Daemon]
) -> None:
    one = ingest("one", f"unix:{tmp_path / 'one.sock'}")
    console.start()
    wait_for_permissions(console, "operate")
    ingest("two", f"unix:{tmp_path / 'two.sock'}")
    wait_for_permissions(console, "operate", "operate")
    one.kill()
    # Its heartbeat has not expired yet; commands go through the other instance.
    wait_for_permissions(console, "", "operate")
    assert console.send("356307042441013", "getinfo")[0] == 200
    one.start()
    wait_for_permissions(console, "operate", "operate")
    assert one.stop() == 0
    wait_for_permissions(console, "operate")


@pytest.mark.parametrize("taken", [True, False])
def test_standalone_serves_devices_even_if_the_console_cannot_listen(
    tmp_path: Path, taken: bool
) -> None:
    port = int(DEFAULT_CONSOLE.rpartition(":")[2])
    daemon = Daemon(
        *(tmp_path, "standalone", "standalone", "--data", str(tmp_path / "data")),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
        *(() if taken else ("--console", f"tcp:{(other := free_port())}")),
    )
    try:
        if taken:
            with socket.socket() as listening:
                # If this fails, another program listens on the port, which serves the test, too.
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listening.bind(("127.0.0.1", port))
                    listening.listen()
                except OSError:
                    pass
                daemon.start()
            assert (
                f"console not started: cannot listen on --console {DEFAULT_CONSOLE}" in daemon.text
            )
        else:
            daemon.start()
            assert get(other, "/")[0] == 200
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_password_of_an_operator_is_read_from_a_pipe_or_a_terminal(tmp_path: Path) -> None:
    file = str(tmp_path / "operators")
    command = "console-operator"
    done = admin(command, "add", "--file", file, "anna", typed="correct horse battery\n")
    assert (done.returncode, done.stdout) == (0, "Operator anna (operate) added.\n")
    terminal = Terminal(
        "tracker-admin", command, "add", "--permission", "read", "--file", file, "ben"
    )
    try:
        terminal.read_until("Password: ")
        terminal.type("another password\n")
        terminal.read_until("Repeat password: ")
        terminal.type("another password\n")
        assert "another" not in terminal.read_until(r"ben \(read\) added")
        assert terminal.end() == 0
    finally:
        terminal.kill()
    listed = admin(command, "list", "--file", file, "-o", "json")
    assert json.loads(listed.stdout) == [
        {"name": "anna", "permission": "operate"},
        {"name": "ben", "permission": "read"},
    ]
    assert admin(command, "remove", "--file", file, "ben").stdout == "Operator ben removed.\n"
    assert admin(command, "remove", "--file", file, "ben").returncode == 1
    assert "ben" not in Path(file).read_text()


def test_short_password_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "operators"
    done = admin("console-operator", "add", "--file", str(file), "anna", typed="short\n")
    assert done.returncode == 1
    assert done.stderr == "tracker-admin: Invalid password: a password has 12 to 256 characters.\n"
    assert not file.exists()
