"""``tracker-admin`` and the control port, as whole processes: every command, every end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer, free_port
from tests.system.commands import registry
from tests.system.processes import BIN, Simulation, environment, run
from tests.system.raw import STREAM, Ingest, frame
from tests.system.terminal import ESCAPE, Terminal, on_terminal, widths
from tests.system.test_commands import answer, online, read_command
from tests.waiting import wait_for
from tracker.vendors.teltonika.messages import NACK

#: A line of ``watch``, or a cell of a table.
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NOBODY = "999999999999999"

_numbers = count(1)


def imei() -> str:
    """One that no other test has."""
    return f"35630704{next(_numbers):07}"


class Site:
    """A Redis, two instances on Unix sockets, and one that wants certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        self.redis.start()
        certs = folder / "certs"
        made = run("tracker-admin", "certs", str(certs), "--client", "alice", "--client", "bob")
        assert made.returncode == 0, made.stderr
        (folder / "roles").write_text("alice operate\n* read\n")
        self._tls = free_port()
        self.one = self.ingest("one")
        self.two = self.ingest("two")
        self.three = self.ingest(
            "three",
            f"ssl:{self._tls}:privateKey={certs}/server.key:certKey={certs}/server.pem"
            f":clientCA={certs}/ca.pem",
            *("--control-roles", str(folder / "roles")),
        )

    def ingest(self, name: str, control: str = "", *options: str) -> Ingest:
        """An instance, ready to be used."""
        (self.folder / name).mkdir()
        control = control or self.socket(name)
        ingest = Ingest(
            *(self.folder / name, self.redis, "--instance-id", name, "--control", control),
            *options,
        )
        ingest.daemon.start()
        return ingest

    def socket(self, name: str) -> str:
        """The endpoint of an instance's Unix socket."""
        return f"unix:{self.folder}/{name}.sock"

    def tls(self, client: str) -> str:
        """The endpoint of the third instance, for one of its clients."""
        certs = self.folder / "certs"
        return (
            f"ssl:localhost:{self._tls}:privateKey={certs}/{client}.key"
            f":certKey={certs}/{client}.pem:caCert={certs}/ca.pem"
        )

    def admin(self, *arguments: str, status: int = 0, control: str = "", **options: Any) -> Any:
        """Run a command on the first instance, or another; checks how it ends."""
        where = ("--control", control or self.socket("one"))
        ended = run("tracker-admin", *where, *arguments, **options)
        assert ended.returncode == status, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr, ended.stderr
        assert "\x1b" not in ended.stdout + ended.stderr
        if status > 1:
            assert ended.stdout == ""
            assert re.fullmatch(r"tracker-admin: .*\n", ended.stderr)
        return ended

    def json(self, *arguments: str, **options: Any) -> Any:
        """The same, for what it prints as JSON."""
        return json.loads(self.admin("-o", "json", *arguments, **options).stdout)

    def start(self, *arguments: str, control: str = "") -> subprocess.Popen[str]:
        """Run it in the background."""
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all tests that break nothing."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.end()


@pytest.fixture
def spare(site: Site) -> Iterator[Ingest]:
    """An instance that a test may break: ``spare``."""
    shutil.rmtree(site.folder / "spare", ignore_errors=True)
    ingest = site.ingest("spare")
    yield ingest
    ingest.daemon.kill()


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a command in the background has printed, when it has come to its end."""
    stdout, stderr = process.communicate(timeout=40)
    assert process.returncode == status, stdout + stderr
    assert "Traceback" not in stderr, stderr
    return stdout


def lines_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    """Lines that it prints, up to one that has the pattern."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"no {pattern} in {lines}")


def watching(site: Site, device_id: str, *options: str, **where: str) -> subprocess.Popen[str]:
    """``watch``, once it does so."""
    process = site.start(*options, "watch", device_id, **where)
    assert process.stderr is not None
    assert f"watching {device_id}" in process.stderr.readline()
    return process


# Look inside.


def test_info(site: Site) -> None:
    about = site.json("info")
    assert list(about) == [
        *("instance_id", "version", "started_at", "connections", "devices", "commands_held"),
        *("watchers", "draining", "streams", "you", "role"),
    ]
    assert (about["instance_id"], about["draining"], about["streams"]) == ("one", False, [STREAM])
    assert re.fullmatch(TIME, about["started_at"])
    assert about["role"] == "operate"
    plain = site.admin("info").stdout
    assert re.search(r"^instance_id +one$", plain, re.MULTILINE)
    assert re.search(rf"^started_at +{about['started_at']}$", plain, re.MULTILINE)
    assert "you            unix user " in plain


def test_connections(site: Site) -> None:
    ids = sorted(imei() for _ in range(3))
    devices = [online(site.one, one) for one in ids]
    found = {row["device_id"]: row for row in site.json("connections")}
    assert set(ids) <= set(found)
    row = found[ids[0]]
    assert (row["vendor"], row["codec"], row["records"]) == ("teltonika", "8", 1)
    assert row["address"] == f"127.0.0.1:{devices[0].socket.getsockname()[1]}"
    assert row["bytes"] > len(frame(1))
    assert re.fullmatch(TIME, row["since"])
    assert re.fullmatch(TIME, row["last_heard"])
    assert [one["device_id"] for one in site.json("connections", "--prefix", ids[1])] == [ids[1]]
    assert site.json("connections", "--vendor", "other") == []
    some = site.admin("connections", "--prefix", ids[0][:12], "--limit", "2")
    heading, *rows = some.stdout.splitlines()
    assert heading.split()[:4] == ["DEVICE", "ID", "VENDOR", "ADDRESS"]
    assert [one.split()[0] for one in rows] == ids[:2]
    assert some.stderr == "There are more than 2.\n"


def test_pages_follow_one_another(site: Site) -> None:
    ids = [f"{number:015}" for number in range(450)]
    devices = [site.two.connect() for _ in ids]
    for device, one in zip(devices, ids, strict=True):
        assert device.login(one) == b"\x01"
    wait_for(lambda: set(ids) <= set(registry(site.redis)), "all are registered")
    for command in ("connections", "registry"):
        rows = site.json(command, "--prefix", "000000", control=site.socket("two"))
        assert [row["device_id"] for row in rows] == ids
        rows = site.json(
            command, "--prefix", "000000", "--limit", "201", control=site.socket("two")
        )
        assert [row["device_id"] for row in rows] == ids[:201]
    for device in devices:
        device.socket.close()


def test_device(site: Site) -> None:
    here, there = imei(), imei()
    _devices = online(site.one, here), online(site.two, there)
    about = site.json("device", here)
    assert (about["instance_id"], about["here"], about["records"]) == ("one", True, 1)
    assert (about["queued"], about["outstanding"], about["waiting"]) == (0, False, 0)
    other = site.json("device", there)
    assert list(other) == list(about)
    assert (other["instance_id"], other["here"], other["records"]) == ("two", False, None)
    assert "connected nowhere" in site.admin("device", NOBODY, status=1).stderr
    plain = site.admin("device", there).stdout
    assert re.search(r"^here +no$", plain, re.MULTILINE)
    assert re.search(r"^since +-$", plain, re.MULTILINE)


def test_registry(site: Site) -> None:
    here, there = imei(), imei()
    _devices = online(site.one, here), online(site.two, there)
    rows = site.json("registry", "--prefix", here[:10])
    assert {"device_id": there, "instance_id": "two", "vendor": "teltonika"} in rows
    assert {"device_id": here, "instance_id": "one", "vendor": "teltonika"} in rows
    only = site.json("registry", "--instance", "two", "--vendor", "teltonika")
    assert {row["instance_id"] for row in only} == {"two"}
    line = site.admin("registry", "--prefix", there).stdout.splitlines()[1]
    assert line.split() == [there, "two", "teltonika"]


# Commands to devices.


def test_send_prints_the_answer(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    sending = site.start("-o", "json", "send", device_id, "getinfo")
    command = read_command(device)
    assert (command.codec.name, command.text) == ("12", "getinfo")
    answer(device, "INI:2026/1/1\x1b[2J", command)
    fate = json.loads(ended(sending))
    assert fate["device_id"] == device_id
    assert (fate["status"], fate["reason"]) == ("responded", None)
    assert (fate["response"], fate["truncated"]) == ("INI:2026/1/1\x1b[2J", False)
    assert re.fullmatch(TIME, fate["at"])
    plain = site.admin("status", fate["command_id"]).stdout
    assert re.search(r"^response +INI:2026/1/1\\x1b\[2J$", plain, re.MULTILINE)


def test_send_to_a_device_on_another_instance(site: Site) -> None:
    device_id = imei()
    device = online(site.two, device_id)
    sending = site.start("-o", "json", "send", device_id, "getver", "--codec", "14")
    command = read_command(device)
    assert (command.codec.name, command.imei) == ("14", device_id)
    answer(device, "Ver:1", command)
    fate = json.loads(ended(sending))
    assert (fate["status"], fate["instance_id"]) == ("responded", "two")


def test_a_command_that_the_device_rejects(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    sending = site.start("send", device_id, "getver", "--codec", "14")
    command = read_command(device)
    answer(device, "", command, NACK)
    assert re.search(r"^status +rejected$", ended(sending, 1), re.MULTILINE)


def test_a_command_that_is_not_answered(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    sending = site.start("-o", "json", "send", device_id, "getver", "--timeout", "1s")
    read_command(device)
    fate = json.loads(ended(sending, 1))
    assert (fate["status"], fate["reason"]) == ("failed", "timeout")


def test_a_command_that_expires(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    device.send(frame(2)[:20])  # a command does not come between the halves of a packet
    fate = site.json("send", device_id, "getver", "--expires", "1s", status=1)
    assert (fate["status"], fate["reason"]) == ("expired", None)
    device.send(frame(2)[20:])
    assert device.read(4) == b"\x00\x00\x00\x01"
    assert device.says_nothing()


def test_a_command_for_a_device_that_is_offline(site: Site) -> None:
    for option in ("--wait", "--no-wait"):
        fate = site.json("send", NOBODY, "getver", "--offline", "fail", option, status=1)
        assert (fate["status"], fate["reason"]) == ("failed", "offline")
    device_id = imei()
    fate = site.json("send", device_id, "getver", "--no-wait")
    assert (fate["status"], fate["response"]) == ("waiting", None)
    assert site.json("device", device_id)["waiting"] == 1
    assert site.json("status", fate["command_id"], "--device", device_id)["status"] == "waiting"


def test_a_command_is_sent_once(site: Site) -> None:
    device_id, name = imei(), f"reset-{time.time()}"
    device = online(site.one, device_id)
    for _ in range(2):
        fate = site.json("send", device_id, "cpureset", "--no-wait", "--id", name)
        assert fate["command_id"] == name
    command = read_command(device)
    status = site.json("status", name)["status"]
    assert status == "delivered"
    answer(device, "ok", command)
    wait_for(lambda: site.json("status", name)["status"] == "responded", "answered")
    assert device.says_nothing()
    assert "nothing is known" in site.admin("status", "none-such", status=1).stderr


@pytest.mark.parametrize(
    ("piped", "sent"), [("a b\n", "a b"), ("a\n\n", "a\n"), (" x\r\n", " x\r"), ("é", "é")]
)
def test_a_command_from_standard_input(site: Site, piped: str, sent: str) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    site.admin("send", device_id, "-", "--no-wait", input=piped)
    assert read_command(device).content == sent.encode()


# Operate.


def test_drop(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    dropped = site.json("drop", device_id)
    assert dropped["device_id"] == device_id
    assert dropped["address"].startswith("127.0.0.1:")
    assert device.is_closed()
    assert "not connected" in site.admin("drop", device_id, status=1).stderr


def test_log_level(site: Site) -> None:
    told = site.json("log-level", "debug", "--namespace", "tracker.ingestion")
    assert told == {"namespace": "tracker.ingestion", "level": "debug", "before": "info"}
    told = site.json("log-level", "info", "--namespace", "tracker.ingestion")
    assert told["before"] == "debug"
    assert "SetLogLevel level='debug'" in site.one.daemon.text


def test_drain_under_load(site: Site, spare: Ingest, tmp_path: Path) -> None:
    fleet = Simulation(tmp_path, spare.port, "--devices", "30", "--interval", "0.2")
    try:
        fleet.wait_for_more(60)
        control = site.socket("spare")
        drained = site.json("drain", "--seconds", "2", "--yes", control=control)
        assert drained == {"instance_id": "spare", "closed": 30, "left": 0}
        about = site.json("info", control=control)
        assert (about["draining"], about["devices"]) == (True, 0)
        acknowledged = fleet.acknowledged()
        with pytest.raises(ConnectionRefusedError):
            spare.connect()
        stored = {(one["device_id"], one["timestamp"]) for one in spare.entries()}
        assert {key[:2] for key in acknowledged} <= stored
    finally:
        fleet.kill()


def test_drain_asks_first(site: Site, spare: Ingest) -> None:
    device = online(spare, imei())
    control = site.socket("spare")
    assert "say --yes" in site.admin("drain", control=control, status=2).stderr
    for keys, status in (("n\n", 1), ("\x03", 130), ("y\n", 0)):
        terminal = Terminal("tracker-admin", "--control", control, "drain", "--seconds", "0")
        asked = terminal.read_until(r"\[y/N\]: ")
        assert "Close 1 connections to spare within 0 s, and accept no more?" in asked
        assert not site.json("info", control=control)["draining"]
        terminal.type(keys)
        assert terminal.end() == status, terminal.shown
        assert "Traceback" not in terminal.shown
    assert device.is_closed()
    assert re.search(r"closed +1", ESCAPE.sub("", terminal.shown))


# Watch.


def test_watch_shows_each_way(site: Site) -> None:
    device_id = imei()
    process = watching(site, device_id)
    device = online(site.one, device_id)
    sending = site.start("send", device_id, "getinfo")
    answer(device, "INI:2026/1/1\r\n", read_command(device))
    ended(sending)
    device.send(b"\x00\x00\x00\x00\xff\xff\xff\xff")
    assert device.is_closed()
    shown = lines_until(process, "disconnected")
    process.send_signal(signal.SIGINT)
    ended(process, 130)
    assert all(re.match(rf"{TIME} [→←·] ", line) for line in shown), shown
    said = [line.split(maxsplit=1)[1].rstrip() for line in shown]
    assert "\x1b" not in "".join(shown)
    assert said[0].startswith("· connected")
    assert said[1] == "← login      accepted  1 byte"
    size = len(frame(1))
    assert said[2] == (
        "→ records    codec 8, 1 record, 2024-03-15T12:10:00.001Z, 54.68,25.25, 40 km/h  "
        f"{size} bytes"
    )
    assert said[3] == "← ack        1 record  4 bytes"
    assert said[4] == '← command    codec 12, "getinfo"  27 bytes'
    assert said[5] == '→ answer     codec 12, "INI:2026/1/1\\r\\n"  34 bytes'
    assert said[6] == "→ rejected   data length 4294967295 is over the limit of 65536"
    assert said[-1].startswith("· disconnected")


def test_watch_as_json(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    process = site.start("-o", "json", "watch", device_id, "--count", "2", "--raw")
    assert process.stderr is not None
    process.stderr.readline()
    assert device.deliver(7)
    records, ack = map(json.loads, ended(process).splitlines())
    assert list(records) == list(ack) == [
        *("at", "device_id", "kind", "direction", "message", "summary", "bytes", "raw"),
        *("decoded", "truncated", "dropped"),
    ]  # fmt: skip
    assert (records["kind"], records["direction"], records["message"]) == (
        *("received", "from", "records"),
    )
    assert bytes.fromhex(records["raw"]) == frame(7)
    assert (records["bytes"], records["dropped"]) == (len(frame(7)), 0)
    assert records["decoded"]["records"][0]["speed"] == 40
    assert (ack["kind"], ack["direction"], ack["decoded"]) == ("sent", "to", {"acknowledged": 1})
    assert re.fullmatch(TIME, ack["at"])


def test_watch_ends_in_time(site: Site) -> None:
    elsewhere = imei()
    _device = online(site.two, elsewhere)
    watched = site.admin("watch", elsewhere, "--seconds", "0.2")
    assert watched.stderr == f"watching {elsewhere} on one: it is connected to two now\n"
    watched = site.admin("watch", NOBODY, "--seconds", "0.2")
    assert watched.stderr == f"watching {NOBODY} on one: it is connected nowhere now\n"
    assert watched.stdout == ""


@pytest.mark.parametrize("output", ["table", "json"])
def test_watch_outlives_the_instance(site: Site, spare: Ingest, output: str) -> None:
    device_id = imei()
    device = online(spare, device_id)
    process = watching(site, device_id, "-o", output, control=site.socket("spare"))
    assert device.deliver(2)
    lines_until(process, "ack")
    spare.daemon.kill()
    (lost,) = lines_until(process, "control.*lost")
    spare.daemon.start()
    lines_until(process, "control.*back")
    again = online(spare, device_id)
    assert again.deliver(3)
    shown = lines_until(process, "ack")
    if output == "json":
        assert json.loads(lost)["kind"] == "control-lost"
        kinds = [json.loads(line)["message"] for line in shown]
        assert kinds[:4] == ["connected", "login", "records", "ack"]
    else:
        assert re.match(rf"{TIME} ! control port lost ", lost)
    spare.daemon.kill()
    lines_until(process, "control.*lost")
    process.send_signal(signal.SIGINT)
    ended(process, 130)


def test_a_watch_that_ends_while_the_instance_is_away(site: Site, spare: Ingest) -> None:
    process = site.start("watch", NOBODY, "--seconds", "2", control=site.socket("spare"))
    assert process.stderr is not None
    process.stderr.readline()
    spare.daemon.kill()
    assert "control port lost" in ended(process, 3)


# Lag.


def test_lag_by_redis_or_by_control(site: Site) -> None:
    device = online(site.one, imei())
    assert device.deliver(1, 2)
    site.redis.client.xgroup_create(STREAM, "processor", "0")
    site.redis.client.xreadgroup("processor", "host-1", {STREAM: ">"}, count=1)
    try:
        by_control = site.json("lag")
        by_redis = site.json("lag", "--redis", site.redis.url)
        assert list(by_redis[0]) == list(by_control[0])
        for row in (*by_control, *by_redis):
            assert (row["stream"], row["group"], row["pending"]) == (STREAM, "processor", 1)
            assert row["lag"] == row["entries"] - 1
            assert row["consumer_count"] == 1
        assert by_control[0]["consumers"] is None
        assert by_redis[0]["consumers"]["host-1"]["pending"] == 1
        assert re.search(r"host-1 \(1, ", site.admin("lag", "--redis", site.redis.url).stdout)
        environ = environment(REDIS_URL=site.redis.url, TRACKER_CONTROL=site.socket("one"))
        plain = run("tracker-admin", "lag", "-o", "json", env=environ)
        assert json.loads(plain.stdout)[0]["consumers"] is not None
        for source in ((), ("--redis", site.redis.url)):
            said = site.admin("lag", "--stream", "nowhere", *source, status=1).stderr
            assert "there is no stream nowhere" in said
    finally:
        site.redis.client.xgroup_destroy(STREAM, "processor")


def test_lag_again_and_again(site: Site) -> None:
    assert online(site.one, imei()).deliver(1)
    site.redis.client.xgroup_create(STREAM, "processor", "0")
    try:
        for source in ((), ("--redis", site.redis.url)):
            process = site.start("lag", "--follow", "--interval", "1s", *source)
            first, second = (lines_until(process, "lag=")[-1] for _ in range(2))
            process.send_signal(signal.SIGINT)
            assert ended(process, 130) == ""
            for line in (first, second):
                assert re.fullmatch(
                    rf"{TIME} {STREAM} processor lag=\d+ pending=0 oldest=\d+\.\ds consumers=0\n",
                    line,
                )
        process = site.start("-o", "json", "lag", "--follow", "--interval", "1s")
        one, two = (json.loads(lines_until(process, "lag")[-1]) for _ in range(2))
        process.send_signal(signal.SIGINT)
        ended(process, 130)
        assert one["at"] < two["at"]
        assert one["group"] == "processor"
        terminal = Terminal("tracker-admin", "lag", "--follow", "--redis", site.redis.url)
        terminal.read_until("processor")
        terminal.type("\x03")
        assert terminal.end() == 130
        assert terminal.shown.endswith("\x1b[?25h"), "the cursor is shown again"
    finally:
        site.redis.client.xgroup_destroy(STREAM, "processor")


def test_lag_goes_on_when_its_source_is_back(site: Site, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    redis.client.xgroup_create(STREAM, "processor", "0", mkstream=True)
    process = site.start("lag", "--follow", "--interval", "1s", "--redis", redis.url)
    try:
        lines_until(process, "lag=0")
        redis.kill()
        assert process.stderr is not None
        assert re.match(rf"{TIME} lost: ", process.stderr.readline())
        redis.start()
        assert re.match(rf"{TIME} back", process.stderr.readline())
        lines_until(process, "lag=0")
    finally:
        process.send_signal(signal.SIGINT)
        ended(process, 130)
        redis.kill()


# Who may, who can, and what makes no sense.

OPERATING = (
    ("send", NOBODY, "getver"),
    ("drop", NOBODY),
    ("drain", "--yes"),
    ("log-level", "debug"),
)


def test_roles_over_tls(site: Site) -> None:
    device_id = imei()
    _device = online(site.three, device_id)
    assert site.json("info", control=site.tls("alice"))["role"] == "operate"
    about = site.json("info", control=site.tls("bob"))
    assert about["role"] == "read"
    assert about["you"].startswith("certificate bob (")
    assert site.json("device", device_id, control=site.tls("bob"))["here"] is True
    site.admin("watch", device_id, "--seconds", "0.1", control=site.tls("bob"))
    for command in OPERATING:
        said = site.admin(*command, control=site.tls("bob"), status=4).stderr
        assert "not permitted" in said
    site.admin("drop", device_id, control=site.tls("alice"))


CONTROLLED = (
    ("info",),
    ("connections",),
    ("device", NOBODY),
    ("registry",),
    ("status", "x"),
    ("watch", NOBODY),
    ("lag",),
    *OPERATING,
)


@pytest.mark.parametrize("command", CONTROLLED, ids=lambda command: command[0])
def test_a_control_port_that_is_not_there(site: Site, command: tuple[str, ...]) -> None:
    said = site.admin(*command, control=f"unix:{site.folder}/none.sock", status=3).stderr
    assert "No such file" in said


def test_control_ports_that_cannot_be_used(site: Site) -> None:
    other = site.folder / "other"
    run("tracker-admin", "certs", str(other), "--client", "bob")
    strangers = site.tls("bob").replace("/certs/bob", "/other/bob")
    for control in (
        f"tcp:localhost:{free_port()}",
        f"tcp:localhost:{site.one.port}",  # where devices connect
        site.tls("bob").replace("/certs/ca.pem", "/other/ca.pem"),
        site.tls("bob") + ":name=other.example.org",
        strangers,
    ):
        began = time.monotonic()
        site.admin("info", control=control, status=3)
        assert time.monotonic() - began < 8


def test_an_instance_that_hangs(site: Site, spare: Ingest) -> None:
    os.kill(spare.daemon.pid, signal.SIGSTOP)
    began = time.monotonic()
    site.admin("info", control=site.socket("spare"), status=3)
    assert time.monotonic() - began < 20


def test_an_instance_that_dies_while_an_answer_is_waited_for(site: Site, spare: Ingest) -> None:
    device_id = imei()
    device = online(spare, device_id)
    sending = site.start("send", device_id, "getver", "--id", "dies", control=site.socket("spare"))
    read_command(device)
    spare.daemon.kill()
    _, stderr = sending.communicate(timeout=20)
    assert sending.returncode == 3
    assert f"tracker-admin status dies --device {device_id}" in stderr


def test_redis_is_away(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    socket = f"unix:{tmp_path}/one.sock"
    ingest = Ingest(tmp_path, redis, "--control", socket)
    ingest.daemon.start()
    redis.kill()
    try:
        for command in (("registry",), ("lag",), ("send", NOBODY, "x"), ("status", "x")):
            ended = run("tracker-admin", "--control", socket, *command)
            assert ended.returncode == 3, ended.stderr
            assert "Redis" in ended.stderr
            assert len(ended.stderr.splitlines()) == 1
        assert run("tracker-admin", "--control", socket, "info").returncode == 0
    finally:
        ingest.daemon.kill()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("device", "12"), "no IMEI"),
        (("send", NOBODY), "Missing argument 'TEXT'"),
        (("send", NOBODY, ""), "payload"),
        (("send", NOBODY, "x" * 5000), "payload"),
        (("send", NOBODY, "x" * 70_000), "too long"),
        (("send", NOBODY, "x", "--codec", "13"), "'13'"),
        (("send", NOBODY, "x", "--expires", "soon"), "'soon'"),
        (("send", NOBODY, "x", "--expires", "none"), "'none'"),
        (("send", NOBODY, "x", "--expires", "400d"), "expires_in"),
        (("send", NOBODY, "x", "--timeout", "2d"), "timeout"),
        (("send", NOBODY, "x", "--id", "two words"), "command_id"),
        (("send", NOBODY, "x", "--offline", "drop"), "'drop'"),
        (("watch", NOBODY, "--count", "0"), "--count"),
        (("watch", NOBODY, "--seconds", "0"), "--seconds"),
        (("connections", "--limit", "0"), "--limit"),
        (("drain", "--seconds", "1e9", "--yes"), "--seconds"),
        (("log-level", "loud"), "'loud'"),
        (("lag", "--interval", "fast"), "'fast'"),
        (("completion", "tcsh"), "'tcsh'"),
        (("no-such-command",), "No such command"),
        (("-o", "xml", "info"), "'xml'"),
        (("--control", "carrier-pigeon", "info"), "unix:PATH"),
        (("--control", "tcp:example.org:5", "info"), "use ssl:"),
        (("--config", "/none", "info"), "/none"),
    ],
)
def test_bad_use(site: Site, arguments: tuple[str, ...], told: str) -> None:
    assert told in site.admin(*arguments, status=2).stderr


def test_bytes_on_the_command_line_that_are_no_text(site: Site) -> None:
    said = site.admin("send", NOBODY, os.fsdecode(b"\xff"), status=2).stderr
    assert "UTF-8" in said
    ended = subprocess.run(
        [str(BIN / "tracker-admin"), "--control", site.socket("one"), "send", NOBODY, "-"],
        input=b"\xff", capture_output=True, check=False, env=environment(),
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.startswith(b"tracker-admin: standard input: is not UTF-8")


# Where it is said, and how it is shown.


def test_the_control_port_from_the_environment_and_the_file(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "admin.conf"
    file.write_text(f"[tracker-admin]\ncontrol = {site.socket('one')}\n")

    def instance(*options: str, **variables: str) -> str:
        told = run("tracker-admin", *options, "-o", "json", "info", env=environment(**variables))
        assert told.returncode == 0, told.stderr
        name: str = json.loads(told.stdout)["instance_id"]
        return name

    two = site.socket("two")
    assert instance("--config", str(file)) == "one"
    assert instance(TRACKER_ADMIN_CONFIG=str(file)) == "one"
    assert instance(TRACKER_ADMIN_CONFIG=str(file), TRACKER_CONTROL=two) == "two"
    assert instance("--control", two, TRACKER_CONTROL=site.socket("one")) == "two"
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    (home / ".config" / "tracker-admin.conf").write_text(file.read_text())
    assert instance(HOME=str(home)) == "one"
    file.write_text(f"[tracker-admin]\nredis = {site.redis.url}\n")
    told = run("tracker-admin", "--config", str(file), "lag", "-o", "json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)[0]["stream"] == STREAM
    file.write_text("[tracker-admin]\ncolour = blue\n")
    told = run("tracker-admin", "--config", str(file), "info")
    assert told.returncode == 2
    assert f"{file}: unknown key 'colour'" in told.stderr


def test_a_table_on_a_terminal(site: Site) -> None:
    _devices = [online(site.one, imei()) for _ in range(3)]
    for columns in (60, 120):
        command = ("tracker-admin", "--control", site.socket("one"), "connections")
        status, shown = on_terminal(*command, columns=columns)
        assert status == 0
        assert max(widths(shown)) <= columns
        assert "─" * 20 in shown
        assert "\x1b[1m" in shown
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +\(\d+s\)", ESCAPE.sub("", shown))
    status, shown = on_terminal(*command[:-1], "info", columns=columns)
    assert "\x1b[32moperate" in shown
    status, shown = on_terminal(*command[:-1], "info", columns=columns, env={"NO_COLOR": "1"})
    assert "operate" in shown
    assert "\x1b[32m" not in shown


def test_a_device_cannot_talk_to_the_terminal(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    where = ("tracker-admin", "--control", site.socket("one"))
    terminal = Terminal(*where, "watch", device_id, "--count", "2")
    terminal.read_until("watching")
    sending = Terminal(*where, "send", device_id, "getver")
    answer(device, "\x1b]0;owned\x07[red]\n", read_command(device))
    assert (terminal.end(), sending.end()) == (0, 0)
    # What is no text is shown in hex by who watches.
    for shown, said in (
        (sending.shown, "\\x1b]0;owned\\x07[red]\\n"),
        (terminal.shown, "1b5d303b6f776e6564075b7265645d0a"),
    ):
        assert said in shown
        assert "\x1b]" not in shown
        assert "\x07" not in shown


def test_nobody_reads_the_output(site: Site) -> None:
    _device = online(site.one, imei())
    for command in ("connections | true", "lag --follow --interval 1s | head -n 1"):
        ended = subprocess.run(
            ["bash", "-c", f'set -o pipefail; tracker-admin --control "$0" {command}',
             site.socket("one")],
            capture_output=True, text=True, timeout=30, check=False,
            env=environment(PATH=f"{BIN}:{os.environ['PATH']}"),
        )  # fmt: skip
        assert ended.returncode in (0, 141), ended.stderr
        assert ended.stderr == ""


def test_a_full_disk_is_told(site: Site) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [str(BIN / "tracker-admin"), "--control", site.socket("one"), "info"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment(),
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == "tracker-admin: cannot go on: No space left on device\n"


# A shell's completion.


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tmp_path: Path, shell: str) -> None:
    script = run("tracker-admin", "completion", shell)
    assert script.returncode == 0
    assert "_TRACKER_ADMIN_COMPLETE" in script.stdout
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script.stdout)
        checked = subprocess.run([shell, "-n", str(file)], capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_bash_completes() -> None:
    script = """
        eval "$(tracker-admin completion bash)"
        complete -p tracker-admin
        COMP_WORDS=(tracker-admin $1) COMP_CWORD=$2
        $(complete -p tracker-admin | sed 's/.*-F \\([^ ]*\\).*/\\1/') tracker-admin
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    def completed(words: str) -> list[str]:
        ended = subprocess.run(
            ["bash", "-c", script, "bash", words, str(len(words.split()))],
            capture_output=True, text=True, check=False,
            env=environment(PATH=f"{BIN}:{os.environ['PATH']}"),
        )  # fmt: skip
        first, *found = ended.stdout.splitlines()
        assert first.endswith("tracker-admin"), ended.stderr
        return found

    assert completed("dr") == ["drop", "drain"] or completed("dr") == ["drain", "drop"]
    assert completed("send --off") == ["--offline"]
