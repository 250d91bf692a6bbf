"""The report to the process that has started a daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tracker.runtime.daemon import PIPE, StartReport
from tracker.runtime.notify import ALIVE, READY, STOPPING


class Started:
    """A report, and the end of the pipe that the first process reads."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        self.options: dict[str, Any] = {PIPE: write}
        self.reason = ""
        self.report = StartReport(self.options, lambda: self.reason)
        self.report.startService()

    def close(self) -> None:
        """Close the end of the first process."""
        os.close(self._read)

    def read(self) -> bytes:
        """Return the whole report; the pipe must be closed by now."""
        with open(self._read, "rb") as pipe:
            return pipe.read()


@pytest.fixture
def started() -> Iterator[Started]:
    started = Started()
    yield started
    started.report.send(READY)  # closes the pipe


def test_process_reports_that_it_is_ready(started: Started) -> None:
    assert started.options == {}  # twistd would report success at once
    started.report.send(ALIVE)
    started.report.send("STATUS=ready", READY)
    started.report.send(STOPPING)
    assert started.read() == b"0"


def test_process_that_gives_up_reports_the_reason_truncated(started: Started) -> None:
    started.reason = "cannot open /data/\N{LATIN SMALL LETTER E WITH ACUTE}: " + "x" * 200
    started.report.send(STOPPING)
    report = started.read()
    assert report.startswith(rb"1 GaveUp: cannot open /data/\xe9: xxx")
    assert len(report) == 100


def test_process_that_is_stopped_before_it_is_ready_reports_no_error(started: Started) -> None:
    started.report.send(STOPPING)
    assert started.read() == b"0"


def test_killed_first_process_is_no_error(started: Started) -> None:
    started.close()
    assert started.report.send(READY)


def test_nothing_is_reported_without_a_pipe() -> None:
    report = StartReport({}, lambda: "")
    report.startService()
    assert report.send(READY)
