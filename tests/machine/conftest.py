"""The machine that all these tests share, and the report of the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.site import Site, build_package

_report = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the Debian package of this source tree."""
    return build_package()


@pytest.fixture(scope="session")
def site(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """Yield a booted machine without Tracker; remove it at the end."""
    site = Site(tmp_path_factory.mktemp("machine"))
    request.config.stash[_report] = site.report
    try:
        site.machine.boot()
        yield site
        if request.session.testsfailed:
            site.note(site.machine.run("journalctl", "--lines=100", "--no-hostname", check=False))
    finally:
        site.remove()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Write the report of the machine."""
    if lines := config.stash.get(_report, []):
        terminalreporter.section("the machine")
        for line in lines:
            terminalreporter.write_line(line)
