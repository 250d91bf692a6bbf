"""Tests of ``tracker-admin`` with the control port: output, permissions and errors."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.admin import admin
from tests.servers import RedisServer, free_port
from tests.system.controlled import TIME, UNKNOWN_DEVICE, Site, imei
from tests.system.processes import environment
from tests.system.raw import STREAM, Ingest, frame
from tests.system.test_commands import online


def test_info_prints_facts_of_the_instance(site: Site) -> None:
    about = site.json("info")
    assert list(about) == [
        *("instance_id", "version", "started_at", "connections", "devices", "commands_held"),
        *("watchers", "draining", "streams", "you", "permission"),
    ]
    assert (about["instance_id"], about["draining"], about["streams"]) == ("one", False, [STREAM])
    assert re.fullmatch(TIME, about["started_at"])
    assert about["permission"] == "operate"
    plain = site.admin("info").stdout
    assert re.search(r"^instance_id +one$", plain, re.MULTILINE)
    assert re.search(rf"^started_at +{about['started_at']}$", plain, re.MULTILINE)
    assert "you            unix user " in plain


def test_connections_lists_devices_of_the_instance(site: Site) -> None:
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
    none = site.admin("connections", "--prefix", "0", "--vendor", "teltonika").stderr
    assert none == "No teltonika devices with the prefix 0 are connected to one.\n"
    unknown = site.admin("connections", "--vendor", "other", exit_code=2).stderr
    assert "Unknown vendor 'other'. Known: concox, queclink, teltonika." in unknown
    some = site.admin("connections", "--prefix", ids[0][:12], "--limit", "2")
    heading, *rows = some.stdout.splitlines()
    assert heading.split()[:4] == ["DEVICE", "ID", "VENDOR", "ADDRESS"]
    assert [one.split()[0] for one in rows] == ids[:2]
    assert some.stderr == "Only the first 2 are shown (--limit 2).\n"


def test_device_prints_where_a_device_is_connected(site: Site) -> None:
    here, there = imei(), imei()
    _devices = online(site.one, here), online(site.two, there)
    about = site.json("device", here)
    assert (about["instance_id"], about["here"], about["records"]) == ("one", True, 1)
    assert (about["queued"], about["outstanding"], about["waiting"]) == (0, False, 0)
    other = site.json("device", there)
    assert list(other) == list(about)
    assert (other["instance_id"], other["here"], other["records"]) == ("two", False, None)
    assert "is not connected" in site.admin("device", UNKNOWN_DEVICE, exit_code=1).stderr
    plain = site.admin("device", there).stdout
    assert re.search(r"^here +no$", plain, re.MULTILINE)
    assert re.search(r"^since +-$", plain, re.MULTILINE)


def test_device_registry_lists_devices_of_all_instances(site: Site) -> None:
    here, there = imei(), imei()
    _devices = online(site.one, here), online(site.two, there)
    rows = site.json("device-registry", "--prefix", here[:10])
    assert {"device_id": there, "instance_id": "two", "vendor": "teltonika"} in rows
    assert {"device_id": here, "instance_id": "one", "vendor": "teltonika"} in rows
    only = site.json("device-registry", "--instance", "two", "--vendor", "teltonika")
    assert {row["instance_id"] for row in only} == {"two"}
    line = site.admin("device-registry", "--prefix", there).stdout.splitlines()[1]
    assert line.split() == [there, "two", "teltonika"]


# Operating commands.


def test_drop_closes_the_connection_of_a_device(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    dropped = site.json("drop", device_id)
    assert dropped["device_id"] == device_id
    assert dropped["address"].startswith("127.0.0.1:")
    assert device.is_closed()
    assert "not connected" in site.admin("drop", device_id, exit_code=1).stderr
    elsewhere = imei()
    _device = online(site.two, elsewhere)
    assert "connected to two" in site.admin("drop", elsewhere, exit_code=1).stderr


def test_log_level_is_changed(site: Site) -> None:
    changed = site.json("log-level", "debug", "--namespace", "tracker.ingestion")
    assert changed == {"namespace": "tracker.ingestion", "level": "debug", "before": "info"}
    changed = site.json("log-level", "info", "--namespace", "tracker.ingestion")
    assert changed["before"] == "debug"
    assert "SetLogLevel level='debug'" in site.one.daemon.text


# Permissions, outages and usage errors.

OPERATING = (
    ("send", UNKNOWN_DEVICE, "getver"),
    ("drop", UNKNOWN_DEVICE),
    ("drain", "--yes"),
    ("log-level", "debug"),
)


def test_certificate_name_determines_the_permission_of_a_client(site: Site) -> None:
    device_id = imei()
    _device = online(site.three, device_id)
    assert site.json("info", control=site.tls("alice"))["permission"] == "operate"
    about = site.json("info", control=site.tls("bob"))
    assert about["permission"] == "read"
    assert about["you"].startswith("certificate bob (")
    assert site.json("device", device_id, control=site.tls("bob"))["here"] is True
    site.admin("watch", device_id, "--seconds", "0.1", control=site.tls("bob"))
    for command in OPERATING:
        stderr = site.admin(*command, control=site.tls("bob"), exit_code=4).stderr
        assert "Not permitted" in stderr
    site.admin("drop", device_id, control=site.tls("alice"))


CONTROLLED = (
    ("info",),
    ("connections",),
    ("device", UNKNOWN_DEVICE),
    ("device-registry",),
    ("status", "x"),
    ("watch", UNKNOWN_DEVICE),
    ("lag",),
    *OPERATING,
)


@pytest.mark.parametrize("command", CONTROLLED, ids=lambda command: command[0])
def test_missing_control_port_ends_with_exit_code_3(site: Site, command: tuple[str, ...]) -> None:
    stderr = site.admin(*command, control=f"unix:{site.folder}/none.sock", exit_code=3).stderr
    assert "no such socket" in stderr


def test_unusable_control_ports_end_with_exit_code_3(site: Site) -> None:
    other = site.folder / "other"
    admin("certs", str(other), "--client", "bob")
    strangers = site.tls("bob").replace("/certs/bob", "/other/bob")
    for control in (
        f"tcp:localhost:{free_port()}",
        f"tcp:localhost:{site.one.port}",  # where devices connect
        site.tls("bob").replace("/certs/ca.pem", "/other/ca.pem"),
        site.tls("bob") + ":name=other.example.org",
        strangers,
    ):
        began = time.monotonic()
        site.admin("info", control=control, exit_code=3)
        assert time.monotonic() - began < 8


def test_outage_of_redis_ends_with_exit_code_3(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    socket = f"unix:{tmp_path}/one.sock"
    ingest = Ingest(tmp_path, redis, "--control", socket)
    ingest.daemon.start()
    redis.kill()
    try:
        for command in (
            ("device-registry",),
            ("lag",),
            ("send", UNKNOWN_DEVICE, "x"),
            ("status", "x"),
        ):
            ended = admin("--control", socket, *command)
            assert ended.returncode == 3, ended.stderr
            assert "Redis" in ended.stderr
            assert len(ended.stderr.splitlines()) == 1
        assert admin("--control", socket, "info").returncode == 0
    finally:
        ingest.daemon.kill()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("device", "12"), "not a device ID"),
        (("send", UNKNOWN_DEVICE), "Missing argument 'TEXT'"),
        (("send", UNKNOWN_DEVICE, ""), "payload"),
        (("send", UNKNOWN_DEVICE, "x" * 5000), "payload"),
        (("send", UNKNOWN_DEVICE, "x" * 70_000), "too long"),
        (("send", UNKNOWN_DEVICE, "x", "--codec", "13"), "'13'"),
        (("send", UNKNOWN_DEVICE, "x", "--expires", "soon"), "'soon'"),
        (("send", UNKNOWN_DEVICE, "x", "--expires", "none"), "'none'"),
        (("send", UNKNOWN_DEVICE, "x", "--expires", "400d"), "--expires"),
        (("send", UNKNOWN_DEVICE, "x", "--timeout", "2d"), "timeout"),
        (("send", UNKNOWN_DEVICE, "x", "--id", "two words"), "command_id"),
        (("send", UNKNOWN_DEVICE, "x", "--offline", "drop"), "'drop'"),
        (("watch", UNKNOWN_DEVICE, "--count", "0"), "--count"),
        (("watch", UNKNOWN_DEVICE, "--seconds", "0"), "--seconds"),
        (("connections", "--limit", "0"), "--limit"),
        (("drain", "--seconds", "1e9", "--yes"), "--seconds"),
        (("log-level", "loud"), "'loud'"),
        (("log-level", "info", "--namespace", "tracker.ingestoin"), "known: tracker.commands, "),
        (("lag", "--interval", "fast"), "'fast'"),
        (("completion", "tcsh"), "'tcsh'"),
        (("no-such-command",), "No such command"),
        (("-o", "xml", "info"), "'xml'"),
        (("--control", "carrier-pigeon", "info"), "unix:PATH"),
        (("--control", "tcp:example.org:5", "info"), "use ssl:"),
        (("--config", "/none", "info"), "/none"),
    ],
)
def test_usage_error_names_the_argument(
    site: Site, arguments: tuple[str, ...], message: str
) -> None:
    assert message in site.admin(*arguments, exit_code=2).stderr


def test_control_port_is_read_from_environment_and_file(site: Site, tmp_path: Path) -> None:
    _device = online(site.one, imei())  # creates the stream
    file = tmp_path / "admin.conf"
    file.write_text(f"[tracker-admin]\ncontrol = {site.socket('one')}\n")

    def instance(*options: str, **variables: str) -> str:
        result = admin(*options, "-o", "json", "info", env=environment(**variables))
        assert result.returncode == 0, result.stderr
        name: str = json.loads(result.stdout)["instance_id"]
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
    result = admin("--config", str(file), "lag", "-o", "json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[0]["stream"] == STREAM
    file.write_text("[tracker-admin]\ncolour = blue\n")
    result = admin("--config", str(file), "info")
    assert result.returncode == 2
    assert f"{file}: unknown key 'colour'" in result.stderr
