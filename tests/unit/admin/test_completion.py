"""Completion of names: which words are devices, instances and streams."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from tests.unit.admin.test_group import all_commands
from tracker.admin.asking import BlockingControl, BlockingRedis
from tracker.admin.cli import main
from tracker.admin.options import DeviceId, Options
from tracker.admin.suggestions import ARGUMENTS, OPTIONS, Kind, suggestions, wanted_kind
from tracker.redis.address import RedisAddress

#: Packages that take longer to import than a completion may take.
_SLOW = ("cryptography", "rich", "twisted", "zope")


def _command(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


def _kind(parameter: click.Parameter) -> Kind | None:
    if isinstance(parameter.type, DeviceId) or parameter.name == "prefix":
        return Kind.DEVICE
    if parameter.metavar == "STREAM" or "--stream" in parameter.opts:
        return Kind.STREAM
    return Kind.INSTANCE if "--instance" in parameter.opts else None


def test_each_argument_that_is_a_name_in_redis_is_completed() -> None:
    arguments: dict[tuple[str, ...], Kind] = {}
    options: dict[tuple[str, ...], Kind] = {("streams", "adopt", "--to"): Kind.STREAM}
    for path in all_commands():
        for parameter in _command(path).params:
            if (kind := _kind(parameter)) is None:
                continue
            if isinstance(parameter, click.Argument):
                arguments[path] = kind
            else:
                options[(*path, parameter.opts[0])] = kind
    assert arguments == ARGUMENTS
    assert options == OPTIONS


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("send", Kind.DEVICE),
        ("--control unix:/a.sock -o json send", Kind.DEVICE),
        ("streams adopt", Kind.STREAM),
        ("streams adopt telemetry:x --to", Kind.STREAM),
        ("replay --from 0 --stream", Kind.STREAM),
        ("device-registry --instance", Kind.INSTANCE),
        ("", None),
        ("streams", None),
        ("send 001017000000003", None),
        ("send --timeout", None),
        ("replay --to", None),
        ("--control", None),
    ],
)
def test_words_before_determine_the_kind_of_the_next(words: str, kind: Kind | None) -> None:
    assert wanted_kind(words.split()) is kind


@pytest.mark.parametrize(
    ("program", "avoided"),
    [
        ("from tracker.admin.cli import main; main(['--version'])", (*_SLOW, "attr", "hiredis")),
        ("from tracker.admin.cli import main; main()", _SLOW),
    ],
)
def test_version_and_completion_import_no_slow_package(program: str, avoided: tuple[str]) -> None:
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    completing = {} if "--version" in program else {"_TRACKER_ADMIN_COMPLETE": "bash_complete"}
    ended = subprocess.run(
        [sys.executable, "-c", report + program], capture_output=True, text=True, check=False,
        env={"COMP_WORDS": "tracker-admin send 0", "COMP_CWORD": "2", **completing},
    )  # fmt: skip
    imported = ended.stdout.split()
    assert "click" in imported, ended.stderr
    assert not [name for name in imported if name.partition(".")[0] in avoided]


@pytest.mark.parametrize("short", [False, True])
def test_control_port_of_a_completion_may_be_short_for_an_endpoint(
    short: bool, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))  # and refuses, as it does not listen
        with pytest.raises(ConnectionRefusedError):
            BlockingControl(str(path) if short else f"unix:{path}", time.monotonic() + 5)
    with pytest.raises(ConnectionRefusedError):
        BlockingControl("[::1]:1" if short else r"tcp:\:\:1:1", time.monotonic() + 5)


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.0 400\r\n", b":5\r\n", b"+OK\r\n", b"*2\r\n:0\r\n:0\r\n", b"*-1\r\n"]
)
def test_other_server_at_the_address_of_redis_is_a_value_error(
    reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(socket, "create_connection", lambda *_: ours)
    theirs.sendall(reply)
    with (
        theirs,
        BlockingRedis(RedisAddress(), time.monotonic() + 5) as redis,
        pytest.raises(ValueError, match=r"reply to a scan|reply type byte"),
    ):
        list(redis.scan(key="connections"))


def test_completion_with_an_unreadable_settings_file_is_empty(tmp_path: Path) -> None:
    options = Options(None, tmp_path / "missing.conf")
    assert suggestions(Kind.DEVICE, "", options, None) == []
