"""Options of ``tracker-admin``, and their defaults in the environment and the file."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import click
import pytest

from tests.unit import plainvendor
from tracker.admin import options as module
from tracker.admin.control import control_ports
from tracker.admin.options import DeviceId, Duration, Options, Origin, read_file
from tracker.admin.send import send
from tracker.control.sockets import SocketFolders


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "admin.conf"
    path.write_text("[tracker-admin]\ncontrol = unix:/file\nredis = redis://:p%40ss@file/0\n")
    return path


@pytest.fixture(autouse=True)
def no_default_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES", ())


def test_command_line_precedes_environment_and_environment_precedes_file(file: Path) -> None:
    environ = {"TRACKER_CONTROL": "unix:/environment", "REDIS_URL": "redis://environment"}
    given = Options("unix:/line", file, environ=environ).given_control()
    assert given is not None
    assert (given.value, given.origin, given.source) == (
        *("unix:/line", Origin.COMMAND_LINE, "--control"),
    )
    given = Options(None, file, environ=environ).given_control()
    assert given is not None
    assert (given.value, given.source) == ("unix:/environment", "TRACKER_CONTROL")
    given = Options(None, file, environ={"TRACKER_CONTROL": ""}).given_control()
    assert given is not None
    assert (given.value, given.source) == ("unix:/file", f"{file}: control")
    redis = Options(None, file, environ={}).given_redis(None)
    assert redis is not None
    assert redis.value == "redis://:p%40ss@file/0"
    assert Options(None, None, environ={}).given_control() is None


def test_file_is_read_only_if_the_setting_is_not_given_otherwise(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("?")
    assert Options("unix:/x", bad, environ={}).given_control() is not None
    with pytest.raises(click.UsageError):
        Options(None, bad, environ={}).given_control()


def test_first_existing_default_file_is_read(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILES", ("~/none.conf", "~/admin.conf", "~/other.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "other.conf").write_text("bad")
    given = Options(environ={}).given_control()
    assert given is not None
    assert given.source == f"{file}: control"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "the section [tracker-admin] is missing"),
        ("control = unix:/s3cret\n", "line 1: [tracker-admin] must come first"),
        ("[tracker-admin]\ns3cret\n", "line 2: must be KEY = VALUE"),
        ("[tracker-admin]\ncolor = s3cret\n", "unknown key 'color'; use control or redis"),
        ("[tracker]\ncontrol = s3cret\n", "unknown section [tracker]; use [tracker-admin]"),
        ("[tracker-admin]\nredis = s3cret\nredis = s3cret\n", "line 3: redis is given twice"),
        ("[tracker-admin]\n[tracker-admin]\n", "line 2: [tracker-admin] is given twice"),
        ("[tracker-admin]\nredis = s3cret\n  s3cret\n", "redis must be on one line"),
        ("[DEFAULT]\nredis = s3cret\n", "unknown section [DEFAULT]"),
    ],
)
def test_error_of_a_malformed_file_is_one_line_without_values(
    tmp_path: Path, content: str, error: str
) -> None:
    path = tmp_path / "admin.conf"
    path.write_text(content)
    with pytest.raises(click.UsageError) as raised:
        read_file(path)
    text = raised.value.format_message()
    assert text.startswith(f"{path}: {error}")
    assert "s3cret" not in text
    assert "\n" not in text


def test_unreadable_file_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "admin.conf"
    path.write_bytes(b"[tracker-admin]\ncontrol = \xff\n")
    with pytest.raises(click.UsageError):
        read_file(path)
    with pytest.raises(click.UsageError):
        read_file(tmp_path)


def test_control_ports_are_the_given_one_or_all_that_are_served(tmp_path: Path) -> None:
    folders = SocketFolders({}, system=tmp_path, temporary=tmp_path, service_data=tmp_path / "data")
    options = Options(environ={})
    with pytest.raises(click.UsageError):
        control_ports(options, folders)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for listening, name in ((one, "one"), (two, "t:o")):
            listening.bind(os.fspath(tmp_path / f"{name}.sock"))
            listening.listen()
        found = [port.value for port in control_ports(options, folders)]
        assert found == [f"unix:{tmp_path}/one.sock", rf"unix:{tmp_path}/t\:o.sock"]
        given = control_ports(Options("unix:/x", environ={}), folders)
        assert [port.value for port in given] == ["unix:/x"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("2d", 172_800)]
)
def test_duration_is_converted_to_seconds(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "5", "none", "-1s", "0s", "5 m", "1w"])
def test_malformed_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    "text", ["", "3563070424410", "3563070424410130", "35630704244101x", "٣" * 15]
)
def test_malformed_device_id_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError):
        DeviceId().convert(text, None, None)


def test_device_id_of_any_vendor_is_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    plainvendor.install(monkeypatch)
    assert DeviceId().convert("00af", None, None) == "00AF"
    assert DeviceId().convert("356307042441013", None, None) == "356307042441013"


def test_codecs_of_commands_are_those_of_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    plainvendor.install(monkeypatch).command_codecs = ("plain",)
    codec: Any = next(one for one in send.params if one.name == "codec")
    context = click.Context(send)
    assert {"12", "14", "plain"} <= set(codec.make_metavar(context).strip("[]").split("|"))
    assert codec.type.convert("plain", codec, context) == "plain"
    assert [one.value for one in codec.shell_complete(context, "pl")] == ["plain"]
    with pytest.raises(click.UsageError):
        codec.type.convert("none", codec, context)
