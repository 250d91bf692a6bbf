"""The console of ``make demo``."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.tabs import STATE, TIMEOUT, Visit
from tests.servers import free_port
from tests.system.processes import BIN, environment
from tests.waiting import wait_for


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """URL of the console that a running demo prints."""
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "tracker-admin", "demo", "--port", str(free_port()), "--devices", "25"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
        )

    def urls() -> list[str]:
        return re.findall(r"console +(http://127\.0\.0\.1:[0-9]+/)", log.read_text())

    yield wait_for(urls, "the demo has printed the console's URL", timeout=60)[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()


def test_console_of_the_demo_shows_its_fleet(demo: str, visit: Callable[..., Visit]) -> None:
    tab = visit(demo)
    page = tab.open()
    # One for the stream of each vendor.
    expect(page.locator(STATE)).to_have_text(["up to date"] * 3, timeout=TIMEOUT)
    connected = page.locator(".figures > div", has_text="devices connected").locator("dd")
    expect(connected).to_have_text("25", timeout=TIMEOUT)
    page.goto(f"{demo}#/devices")
    rows = page.get_by_role("table", name="Devices").locator("tbody tr")
    expect(rows).to_have_count(25, timeout=TIMEOUT)
    tab.check()
