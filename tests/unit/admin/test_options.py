"""What ``tracker-admin`` is told: options, environment, file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click
import pytest

from tracker.admin import options as module
from tracker.admin.options import Duration, Imei, Options, Origin, read_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "admin.conf"
    path.write_text("[tracker-admin]\ncontrol = unix:/file\nredis = redis://:p%40ss@file/0\n")
    return path


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES", ())


def test_the_nearest_wins(file: Path) -> None:
    environ = {"TRACKER_CONTROL": "unix:/environment", "REDIS_URL": "redis://environment"}
    given = Options("unix:/line", file, environ=environ).given_control()
    assert given is not None
    assert (given.value, given.origin, given.place) == (
        *("unix:/line", Origin.COMMAND_LINE, "--control"),
    )
    given = Options(None, file, environ=environ).given_control()
    assert given is not None
    assert (given.value, given.place) == ("unix:/environment", "TRACKER_CONTROL")
    given = Options(None, file, environ={"TRACKER_CONTROL": ""}).given_control()
    assert given is not None
    assert (given.value, given.place) == ("unix:/file", f"{file}: control")
    redis = Options(None, file, environ={}).given_redis(None)
    assert redis is not None
    assert redis.value == "redis://:p%40ss@file/0"
    assert Options(None, None, environ={}).given_control() is None


def test_a_file_is_not_read_unless_it_is_needed(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("?")
    assert Options("unix:/x", bad, environ={}).given_control() is not None
    with pytest.raises(click.UsageError):
        Options(None, bad, environ={}).given_control()


def test_the_first_file_that_is_there(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILES", ("~/none.conf", "~/admin.conf", "~/other.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "other.conf").write_text("bad")
    given = Options(environ={}).given_control()
    assert given is not None
    assert given.place == f"{file}: control"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "there is no section [tracker-admin]"),
        ("control = unix:/s3cret\n", "line 1: [tracker-admin] must come first"),
        ("[tracker-admin]\ns3cret\n", "line 2: must be KEY = VALUE"),
        ("[tracker-admin]\ncolor = s3cret\n", "unknown key 'color': only control and redis"),
        ("[tracker]\ncontrol = s3cret\n", "unknown section [tracker]: only [tracker-admin]"),
        ("[tracker-admin]\nredis = s3cret\nredis = s3cret\n", "line 3: redis is there twice"),
        ("[tracker-admin]\n[tracker-admin]\n", "line 2: [tracker-admin] is there twice"),
        ("[tracker-admin]\nredis = s3cret\n  s3cret\n", "redis: must be one line"),
        ("[DEFAULT]\nredis = s3cret\n", "unknown section [DEFAULT]"),
    ],
)
def test_a_bad_file_is_told_in_one_line_without_its_values(
    tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "admin.conf"
    path.write_text(content)
    with pytest.raises(click.UsageError) as raised:
        read_file(path)
    text = raised.value.format_message()
    assert text.startswith(f"{path}: {told}")
    assert "s3cret" not in text
    assert "\n" not in text


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "admin.conf"
    path.write_bytes(b"[tracker-admin]\ncontrol = \xff\n")
    with pytest.raises(click.UsageError):
        read_file(path)
    with pytest.raises(click.UsageError):
        read_file(tmp_path)


def test_the_only_socket_there_is(tmp_path: Path) -> None:
    options = Options(environ={})
    with pytest.raises(click.UsageError):
        options.found_control(tmp_path)
    with pytest.raises(click.UsageError):
        options.found_control(tmp_path / "none")
    (tmp_path / "file.sock").touch()
    listening = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    try:
        listening[0].bind(os.fspath(tmp_path / "one.sock"))
        assert options.found_control(tmp_path).value == f"unix:{tmp_path}/one.sock"
        listening[1].bind(os.fspath(tmp_path / "two.sock"))
        with pytest.raises(click.UsageError):
            options.found_control(tmp_path)
        assert Options("unix:/x", environ={}).found_control(tmp_path).value == "unix:/x"
    finally:
        for one in listening:
            one.close()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("2d", 172_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "5", "none", "-1s", "0s", "1.5s", "5 m", "1w"])
def test_no_durations(text: str) -> None:
    with pytest.raises(click.UsageError):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    "text", ["", "35630704244101", "3563070424410130", "35630704244101a", "٣" * 15]
)
def test_no_imeis(text: str) -> None:
    with pytest.raises(click.UsageError):
        Imei().convert(text, None, None)
    assert Imei().convert("356307042441013", None, None) == "356307042441013"
