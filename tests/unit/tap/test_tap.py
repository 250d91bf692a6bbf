"""Options of ``twistd tracker``: the services that they build, and usage errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from twisted.application.service import IService

from tracker.runtime.lifecycle import Process
from tracker.tap import Options, makeService


def service(*arguments: str) -> IService:
    options = Options()
    options.parseOptions(list(arguments))
    return makeService(options)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "REDIS_TELEMETRY_STREAM", "INSTANCE_ID", "CONSUMER_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TRACKER_DATA", "TRACKER_SINK", "TRACKER_SINK_FILE", "REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ingest",),
        ("ingest", "--listen", "teltonika=tcp:5027", "--listen", "teltonika=unix:/tmp/x"),
        ("ingest", "--redis", "unix:///run/redis.sock", "--instance-id", "eu-1"),
        ("process", "--sink", "sqlite:/nowhere/positions.sqlite"),
        ("standalone", "--http", "tcp:9127"),
        ("standalone", "--retain", "7d", "--retain-bytes", "none", "--retain-dead", "30d"),
        ("janitor",),
        ("janitor", "--retain", "24h", "--retain-bytes", "2G", "--interval", "10s"),
    ],
    ids=" ".join,
)
def test_role_is_built_without_starting_it_or_creating_files(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built = service(*arguments)
    assert isinstance(built, Process)
    assert not built.running
    assert list(tmp_path.iterdir()) == []


def test_role_imports_no_modules_of_other_roles() -> None:
    program = (
        "import sys; from tracker.tap import Options; "
        "Options().parseOptions(['process', '--sink', 'sqlite:x']); "
        "print(*(name for name in sys.modules if name.startswith('tracker.')))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    imported = ended.stdout.split()
    assert "tracker.tap.process" in imported, ended.stderr
    for other in ("tracker.tap.ingest", "tracker.tap.bridge", "tracker.console", "tracker.bridge"):
        assert other not in imported


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "no role given. Use ingest, process, janitor, bridge, console or standalone."),
        (("fly",), "unknown role 'fly'"),
        (("ingest", "--no-such-option"), "no-such-option"),
        (("ingest", "--listen", "acme=tcp:1"), "unknown vendor 'acme'"),
        (("ingest", "--listen", "tcp:5027"), "VENDOR=ENDPOINT"),
        (("ingest", "--listen", "teltonika=carrier-pigeon:1"), "must be an IP address"),
        (("ingest", "--listen", "teltonika=tcp:port"), "not 'port'"),
        (("ingest", "--listen", "teltonika=systemd:domain=INET:name=x"), "systemd has passed no"),
        (("ingest", "--listen", "teltonika=systemd:domain=INET:index=0"), "systemd has passed no"),
        (("ingest", "--listen", "teltonika=systemd:domain=INET"), "index or name"),
        (("ingest", "--listen", "teltonika=systemd:index=0"), "missing or surplus arguments"),
        (("ingest", "--listen", "teltonika=tcp"), "must be like 5027"),
        (("ingest", "--listen", "teltonika=stdio:"), "cannot accept connections"),
        (("ingest", "--redis", "http://localhost"), "redis://"),
        (("ingest", "--redis", "redis://host:port"), "not valid"),
        (("ingest", "--redis", "rediss://host?ca=/no/such/file"), "/no/such/file"),
        (("ingest", "--instance-id", "a b"), "--instance-id"),
        (("ingest", "--http", "tcp:http"), "not an endpoint"),
        (("process",), "--sink is required"),
        (("process", "--sink", "mongodb://x"), "unknown sink 'mongodb'"),
        (("process", "--sink", "sqlite:"), "path"),
        (("process", "--sink", "sqlite:x", "--consumer", "é"), "--consumer"),
        (("standalone", "--data", "/tmp/" + "x" * 120), "too long"),
        (("janitor", "--retain", "24"), "--retain: must be like"),
        (("janitor", "--retain-bytes", "2GB"), "--retain-bytes: must be like"),
        (("janitor", "--retain-dead", "0d"), "--retain-dead: must be between 1s"),
        (("janitor", "--interval", "none"), "--interval: must be like"),
        (("janitor", "--redis", "http://localhost"), "redis://"),
        (("process", "--sink", "sqlite:x", "--retain", "24h"), "retain"),
        (("ingest", "surplus"), "unexpected argument 'surplus'"),
        (("ingest", "--http", "tcp:a"), "--http tcp:a: not an endpoint: 'a' is not a number"),
    ],
)
def test_invalid_option_of_a_role_is_reported_in_one_line(
    arguments: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        service(*arguments)
    message = str(exit_.value)
    assert message.startswith("twistd tracker")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--control", "pigeon:1"), "--control pigeon:1: the host must be an IP address"),
        (("--control", "tcp:0"), "--control tcp:0: tcp: is not encrypted; use ssl: or unix:"),
        (("--control", "tcp:x:plaintext=1"), "the port must be a number up to 65535, not 'x'"),
        (("--control", "tcp:0:plaintext=1:interface=0.0.0.0"), "is for this machine only"),
        (("--control", "unix:"), "the path is missing, for example unix:/run/tracker/control.sock"),
        (
            ("--control", "unix:/no/such/folder/s"),
            "/no/such/folder: no such directory; create it first",
        ),
        (("--control", "unix:s:mode=999"), "the mode must be octal like 0660, not '999'"),
        (("--control", f"unix:{'x' * 200}"), "the path must have at most 107 bytes"),
        (("--control", "ssl:0"), "privateKey=FILE is missing; tracker-admin certs creates such"),
        (
            ("--control", "ssl:0:privateKey=no:certKey=no:clientCA=no"),
            "no cannot be read: No such file or directory",
        ),
        (("--control", "tcp:0:plaintext=1:clientCA=no"), "unknown argument 'clientCA'"),
        (("--control-permissions", "permissions"), "--control-permissions requires --control"),
        (
            ("--control", "tcp:0:plaintext=1", "--control-permissions", "no"),
            "--control-permissions: no cannot be read: No such file or directory",
        ),
        (
            ("--control", "tcp:0:plaintext=1", "--control-permissions", "permissions"),
            "--control-permissions: permissions: line 1: "
            "the permission must be read or operate, not 'rules'",
        ),
        (
            ("--log-level", "loud"),
            "--log-level: the level must be debug, info, warn, error or critical",
        ),
    ],
)
def test_invalid_control_option_is_reported_in_one_line(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "permissions").write_text("admin rules\n")
    with pytest.raises(SystemExit) as exit_:
        service("ingest", "--listen", "teltonika=tcp:0", *arguments)
    message = str(exit_.value)
    assert message.startswith("twistd tracker")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("5099", "the host is missing"),
        ("control.sock", "must be like"),
        ("tcp:192.0.2.1:5099", "this machine only"),
        ("ssl:h:5099:privateKey=k:certKey=c", "caCert=FILE is missing"),
    ],
)
def test_invalid_control_port_of_the_console_is_reported_at_start(
    address: str, expected: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        service("console", "--listen", "0", "--control", address)
    message = str(exit_.value)
    assert f"--control {address}: " in message
    assert expected in message


def test_console_starts_before_the_files_of_a_control_port_exist() -> None:
    service("console", "--listen", "0", "--control", "ssl:h:1:privateKey=k:certKey=c:caCert=a")


def test_http_port_can_be_switched_off_by_none() -> None:
    service("janitor", "--http", "none")


def test_ingest_rejects_several_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_TELEMETRY_STREAM", "telemetry:teltonika,old")
    service("process", "--sink", "sqlite:x")
    with pytest.raises(SystemExit, match="REDIS_TELEMETRY_STREAM"):
        service("ingest")


def test_help_lists_the_roles(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        service("--help")
    assert not exit_.value.code
    shown = capsys.readouterr().out
    assert all(role in shown for role in ("ingest", "process", "janitor", "standalone"))
