"""The command line as a whole: help, errors and exit codes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.admin import admin as run_admin
from tracker.admin import control
from tracker.admin.cli import main
from tracker.admin.exitcodes import ExitCode
from tracker.admin.group import AdminGroup
from tracker.control.sockets import SocketFolders
from tracker.errors import RunFailed
from tracker.vendors.installed import device_id_forms, installed_vendors


def admin(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"TRACKER_CONTROL": "", "HOME": "/nonexistent"})


def commands() -> list[str]:
    return main.list_commands(click.Context(main))


def all_commands(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> list[tuple[str, ...]]:
    """Return the names that lead to each command, also to those of groups."""
    found = [path]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            assert part is not None
            found += all_commands(part, (*path, name))
    return found


def test_help_lists_each_command_once_in_a_section() -> None:
    shown = admin("--help").stdout
    for name in commands():
        assert len(re.findall(rf"^  {name}  ", shown, re.MULTILINE)) == 1, name
    for heading in ("Inspect:", "Operate:", "Devices and frames:", "Data:", "Shell:"):
        assert heading in shown
    assert admin().exit_code == ExitCode.BAD_USAGE
    assert "Inspect:" in admin().output


@pytest.mark.parametrize("name", commands())
def test_each_command_has_help(name: str) -> None:
    result = admin(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name} ")


@pytest.mark.parametrize(
    "name",
    [*("info", "connections", "device", "device-registry", "status", "watch","lag"),
     *("send", "drop", "drain", "log-level", "completion")],
)  # fmt: skip
def test_help_of_a_command_has_an_example(name: str) -> None:
    shown = admin(name, "--help").stdout
    assert re.search(r"^  Examples?(:|, for)", shown, re.MULTILINE)
    assert re.search(rf"^    .*tracker-admin .*{name}", shown, re.MULTILINE)


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_help_is_laid_out_for_80_columns(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).stdout
    assert "\\b" not in shown
    assert "\b" not in shown
    assert not re.search(r"(?<!\.)\.\.(?!\.)", shown)
    # Examples keep their line breaks: nothing follows their heading on its line.
    assert not re.search(r"Examples?\b.*: +\S", shown)
    # Lines of examples are indented, and may be longer.
    assert not [line for line in shown.splitlines() if len(line) > 80 and line[:4] != " " * 4]


@pytest.mark.parametrize("name", ["connections", "device-registry"])
def test_help_of_a_list_of_all_vendors_names_device_ids(name: str) -> None:
    assert "IMEI" not in admin(name, "--help").stdout


def test_summary_of_each_command_is_shown_whole() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    assert not re.findall(r"^  .*\.\.\.$", shown, re.MULTILINE)


def test_command_does_not_import_modules_of_other_commands() -> None:
    program = (
        "import sys; from tracker.admin.cli import main\n"
        "try: main(['info', '--help'])\n"
        "finally: print(*(name for name in sys.modules if name.startswith('tracker.admin.')))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    imported = ended.stdout.splitlines()[-1].split()
    assert "tracker.admin.queries" in imported
    assert "tracker.admin.certs" not in imported
    assert "tracker.admin.doctor.command" not in imported


def test_usage_error_is_one_line_that_refers_to_the_help() -> None:
    result = admin("device", "12")
    assert result.exit_code == ExitCode.BAD_USAGE
    assert result.stdout == ""
    assert result.stderr == (
        "tracker-admin: Invalid value for 'DEVICE': '12' is not a device ID: it must be "
        f"{device_id_forms(installed_vendors())}. "
        "See main device --help.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("simulate", "--target", "pigeon"), "must be like localhost:5027"),
        (("simulate", "--vendor", "acme"), "Unknown vendor 'acme'. Known: "),
        (
            ("simulate", "--vendor", "concox", "--interval", "0.5"),
            "--interval 500ms: the minimum of concox devices is 1s.",
        ),
        (
            ("simulate", "--vendor", "queclink", "--records", "16"),
            "--records 16: a frame of queclink devices has at most 15 records.",
        ),
        (
            ("simulate", "--vendor", "concox", "--answers", "refuse"),
            "--answers refuse: concox devices cannot refuse a command. Use --answers mute.",
        ),
        (("simulate", "--heartbeat", "1"), "--heartbeat: teltonika devices send no heartbeats."),
        (("simulate", "--codec", "9"), "--codec 9: teltonika devices have 8E, 16, 8."),
        (("simulate", "--devices", "0"), "0 is not in the range"),
        (("simulate", "--journal", "/no/such/folder/j"), "No such file"),
        (("simulate", "--command-journal", "/no/such/folder/j"), "No such file"),
        (("simulate", "--first", "999990", "--devices", "11"), "at most 1000000 devices"),
        (("simulate", "--answers", "never"), "'never' is not one of"),
        (("simulate", "--answer-delay", "-1"), "not '-1'"),
        (("simulate", "--interval", "nan"), "not 'nan'"),
        (("drain", "--seconds", "nan", "--yes"), "not 'nan'"),
        (("watch", "356307042441013", "--seconds", "nan"), "not 'nan'"),
        (("doctor", "--timeout", "NaN"), "not 'NaN'"),
        (("demo", "--data", "/proc/no"), "/proc/no"),
        (("fly",), "No such command 'fly'"),
        (("lag", "--control", "unix:/x"), "--control must precede the command: tracker-admin "),
        (("log-level", "loud"), "Invalid value for 'LEVEL': 'loud'"),
    ],
)
def test_invalid_argument_of_a_command_is_reported(arguments: tuple[str, ...], text: str) -> None:
    ended = run_admin(*arguments)  # some arguments are checked once the reactor runs
    assert ended.returncode in (1, 2)
    assert text in ended.stderr


def test_missing_control_port_is_a_usage_error_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = SocketFolders({}, system=tmp_path, temporary=tmp_path, service_data=tmp_path / "data")
    monkeypatch.setattr(control, "SocketFolders", lambda environ: folders)
    result = admin("info")
    assert result.exit_code == ExitCode.BAD_USAGE
    assert result.stderr.startswith("tracker-admin: No instance with a control port found")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RunFailed("it did not"), 1, "tracker-admin: It did not.\n"),
        (RunFailed("two\nlines", 3), 3, "tracker-admin: Two lines.\n"),
        (RunFailed("\x1b[2J"), 1, "tracker-admin: \\x1b[2J.\n"),
        (click.ClickException("bad bytes"), 1, "tracker-admin: bad bytes\n"),
        (click.UsageError("no"), 2, "tracker-admin: No.\n"),
        (RunFailed("it ended.."), 1, "tracker-admin: It ended.\n"),
        (RunFailed("it ended. Why?."), 1, "tracker-admin: It ended. Why?\n"),
        (RunFailed("No port. (None found.)"), 1, "tracker-admin: No port. (None found.)\n"),
        (OSError(28, "No space left on device"), 1,
         "tracker-admin: Cannot continue: No space left on device.\n"),
        (click.Abort(), 130, ""),
        (SystemExit(4), 4, ""),
        (BrokenPipeError(), 141, ""),
    ],
)  # fmt: skip
def test_exception_is_reported_by_an_exit_code_and_one_line(
    error: BaseException, code: int, text: str
) -> None:
    group = AdminGroup("main")

    @group.command()
    def end() -> None:
        raise error

    result = CliRunner().invoke(group, ["end"])
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.partition(" See ")[0].rstrip("\n") == text.rstrip("\n")


def test_ctrl_c_ends_a_command_without_a_traceback() -> None:
    group = AdminGroup("main")

    @group.command()
    def end() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(group, ["end"])
    assert (result.exit_code, result.output.strip()) == (128 + signal.SIGINT, "")


def test_output_option_after_the_command_overrides_the_one_before_it() -> None:
    formats = []
    group = AdminGroup("main", params=main.params, callback=main.callback)

    from tracker.admin.options import output_option

    @group.command()
    @output_option
    def show(output: str) -> None:
        formats.append(output)

    for arguments in (["show"], ["-o", "json", "show"], ["-o", "json", "show", "-o", "table"]):
        assert CliRunner().invoke(group, arguments).exit_code == 0
    CliRunner().invoke(show, [])
    assert formats == ["table", "json", "table", "table"]


def test_character_that_cannot_be_encoded_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    group = AdminGroup("main")

    @group.command()
    def show() -> None:
        sys.stdout.write("→\udcff")

    result = CliRunner(charset="ascii").invoke(group, ["show"])
    assert result.output == "\\u2192\\udcff"
