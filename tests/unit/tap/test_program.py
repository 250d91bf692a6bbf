"""The command ``tracker``: its help, and where the documentation shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracker.tap import Options
from tracker.tap.program import main

ROOT = Path(__file__).parents[3]
ROLES = {name for name, *_ in Options.subCommands}


def output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """Return what ``tracker`` prints, which must exit with 0."""
    monkeypatch.setattr("sys.argv", ["/opt/tracker/bin/tracker", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    return capsys.readouterr().out


def test_help_lists_the_roles_and_no_options_of_twistd(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(monkeypatch, capsys, "--help")
    assert text.startswith("Usage: tracker ROLE [options]\n")
    assert set(re.findall(r"^ {4}(\w+) ", text.partition("Roles:\n")[2], re.MULTILINE)) == ROLES
    assert set(re.findall(r"--[\w-]+", text)) == {"--help", "--version"}


@pytest.mark.parametrize("role", sorted(ROLES))
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_of_a_role_shows_how_tracker_is_called(
    role: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(monkeypatch, capsys, role, option)
    assert text.startswith(f"Usage: tracker {role} [options]\n")
    assert "--log-level=" in text
    assert max(map(len, text.splitlines())) <= 80


def test_documented_command_of_twistd_writes_no_pid_file() -> None:
    # A second process in the same folder would refuse to start.
    pages = [*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst")]
    command = rf"twistd\b[^`]* tracker ({'|'.join(ROLES)}|ROLE)\b"
    commands = [
        f"{page.name}: {line.strip()}"
        for page in pages
        for line in page.read_text().splitlines()
        if re.search(command, line) and "``twistd tracker" not in line  # no mention
    ]
    assert commands
    assert [line for line in commands if "--pidfile=" not in line] == []
