"""The command line as a whole: help, mistakes, exit statuses."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner, Result

from tests.admin import admin as run_admin
from tracker.admin.cli import main
from tracker.admin.exitcodes import ExitCode
from tracker.admin.group import AdminGroup
from tracker.runtime.run import RunFailed


def admin(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"TRACKER_CONTROL": "", "HOME": "/nonexistent"})


def commands() -> list[str]:
    return main.list_commands(click.Context(main))


def test_the_help_lists_each_command_once_in_a_section() -> None:
    shown = admin("--help").stdout
    for name in commands():
        assert len(re.findall(rf"^  {name}  ", shown, re.MULTILINE)) == 1, name
    for heading in ("Look inside:", "Operate:", "Bytes:", "Data:"):
        assert heading in shown
    assert admin().exit_code == ExitCode.BAD_USE
    assert "Look inside:" in admin().output


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
def test_help_has_examples(name: str) -> None:
    shown = admin(name, "--help").stdout
    assert re.search(r"^  Examples?(:|, for)", shown, re.MULTILINE)
    assert re.search(rf"^    .*tracker-admin .*{name}", shown, re.MULTILINE)


def test_a_command_imports_no_module_of_another_command() -> None:
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


def test_a_mistake_is_one_line_with_where_to_read_on() -> None:
    result = admin("device", "12")
    assert result.exit_code == ExitCode.BAD_USE
    assert result.stdout == ""
    assert result.stderr == (
        "tracker-admin: Invalid value for 'IMEI': '12' is no IMEI of 15 digits "
        "(see main device --help)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("simulate", "--target", "pigeon:1"), "not a client endpoint"),
        (("simulate", "--codec", "9"), "'9' is not one of"),
        (("simulate", "--devices", "0"), "0 is not in the range"),
        (("simulate", "--journal", "/no/such/folder/j"), "No such file"),
        (("simulate", "--command-journal", "/no/such/folder/j"), "No such file"),
        (("simulate", "--first", "999990", "--devices", "11"), "1000000 simulated devices"),
        (("simulate", "--answers", "never"), "'never' is not one of"),
        (("simulate", "--answer-delay", "-1"), "-1.0 is not in the range"),
        (("simulate", "--interval", "nan"), "'nan' is not a number"),
        (("drain", "--seconds", "nan", "--yes"), "'nan' is not a number"),
        (("watch", "356307042441013", "--seconds", "nan"), "'nan' is not a number"),
        (("doctor", "--timeout", "NaN"), "'NaN' is not a number"),
        (("demo", "--data", "/proc/no"), "/proc/no"),
        (("fly",), "No such command 'fly'"),
    ],
)
def test_a_mistake_is_told(arguments: tuple[str, ...], told: str) -> None:
    ended = run_admin(*arguments)  # some notice it once the reactor runs
    assert ended.returncode in (1, 2)
    assert told in ended.stderr


def test_no_control_port_is_one_line() -> None:
    result = admin("info")
    assert result.exit_code == ExitCode.BAD_USE
    assert result.stderr.startswith("tracker-admin: say which control port: --control ENDPOINT")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (RunFailed("it did not"), 1, "tracker-admin: it did not\n"),
        (RunFailed("two\nlines", 3), 3, "tracker-admin: two lines\n"),
        (RunFailed("\x1b[2J"), 1, "tracker-admin: \\x1b[2J\n"),
        (click.ClickException("bad bytes"), 1, "tracker-admin: bad bytes\n"),
        (click.UsageError("no"), 2, "tracker-admin: no\n"),
        (OSError(28, "No space left on device"), 1,
         "tracker-admin: cannot go on: No space left on device\n"),
        (click.Abort(), 130, ""),
        (SystemExit(4), 4, ""),
        (BrokenPipeError(), 141, ""),
    ],
)  # fmt: skip
def test_how_a_command_may_end(error: BaseException, status: int, told: str) -> None:
    group = AdminGroup("main")

    @group.command()
    def end() -> None:
        raise error

    result = CliRunner().invoke(group, ["end"])
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.partition(" (see")[0].rstrip("\n") == told.rstrip("\n")


def test_ctrl_c_is_no_traceback() -> None:
    group = AdminGroup("main")

    @group.command()
    def end() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(group, ["end"])
    assert (result.exit_code, result.output.strip()) == (128 + signal.SIGINT, "")


def test_the_output_before_the_command_holds_unless_it_says_so_itself() -> None:
    seen = []
    group = AdminGroup("main", params=main.params, callback=main.callback)

    from tracker.admin.options import output_option

    @group.command()
    @output_option
    def show(output: str) -> None:
        seen.append(output)

    for arguments in (["show"], ["-o", "json", "show"], ["-o", "json", "show", "-o", "table"]):
        assert CliRunner().invoke(group, arguments).exit_code == 0
    CliRunner().invoke(show, [])
    assert seen == ["table", "json", "table", "table"]


def test_what_cannot_be_encoded_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    group = AdminGroup("main")

    @group.command()
    def show() -> None:
        sys.stdout.write("→\udcff")

    result = CliRunner(charset="ascii").invoke(group, ["show"])
    assert result.output == "\\u2192\\udcff"
