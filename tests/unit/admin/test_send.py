"""The note of ``tracker-admin send`` that a command waits; the only test that asserts its text."""

from __future__ import annotations

from datetime import datetime

import pytest
from click.testing import CliRunner

from tracker.admin.exitcodes import ExitCode
from tracker.admin.send import send, waiting_notice

DEVICE = "356307042441013"
NOON = datetime(2026, 11, 22, 12).timestamp()


@pytest.mark.parametrize(
    ("seconds", "wait", "notice"),
    [
        (
            300.0,
            True,
            "the command waits until 12:05:00 (5m). Ctrl-C stops waiting; the command stays "
            "queued.",
        ),
        (90.0, False, "the command waits until 12:01:30 (90s)."),
        (3 * 86_400.0, False, "the command waits until 2026-11-25 12:00:00 (3d)."),
        (-5.0, False, "the command waits until 11:59:55 (0s)."),
    ],
)
def test_notice_says_until_when_a_command_waits(seconds: float, wait: bool, notice: str) -> None:
    expires_at = int((NOON + seconds) * 1000)
    assert waiting_notice(DEVICE, expires_at, NOON, wait=wait) == (
        f"{DEVICE} is not connected to any instance; {notice}"
    )


@pytest.mark.parametrize(
    ("option", "bounds"),
    [("--expires", "between 1s and 366d"), ("--timeout", "between 1s and 1d")],
)
def test_durations_beyond_those_of_the_instance_are_refused_at_once(
    option: str, bounds: str
) -> None:
    ended = CliRunner().invoke(send, [DEVICE, "getver", option, "400d"])
    assert ended.exit_code == ExitCode.BAD_USAGE
    assert bounds in ended.stderr
