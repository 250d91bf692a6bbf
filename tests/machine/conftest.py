"""The machine that the tests of a module share, and the report of the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import Machine
from tests.machine.reader import Reader
from tests.machine.site import Site, build_package

_report = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> list[str]:
    """Return the lines of the report, to which tests add theirs."""
    return request.config.stash.setdefault(_report, [])


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the Debian package of this source tree."""
    return build_package()


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, report: list[str]
) -> Iterator[Site]:
    """Yield a booted machine without Tracker; remove it at the end."""
    site = Site(tmp_path_factory.mktemp("machine"), report)
    try:
        site.machine.boot()
        yield site
        if request.session.testsfailed:
            site.note(site.machine.run("journalctl", "--lines=100", "--no-hostname", check=False))
    finally:
        site.remove()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Yield a reader of README.rst at a fresh machine; remove the machine at the end."""
    machine = Machine()
    try:
        machine.boot()
        yield Reader(machine, tmp_path_factory.mktemp("reader"))
    finally:
        machine.remove()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Write the report of the machine."""
    if lines := config.stash.get(_report, []):
        terminalreporter.section("the machine")
        for line in lines:
            terminalreporter.write_line(line)
