"""`make demo`: its console shows the fleet that it simulates, as the README's picture has it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.visiting import PATIENCE, WORD, Visit
from tests.servers import free_port
from tests.system.processes import BIN, environment
from tests.waiting import wait_for


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """The address that a running demo says its console has."""
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "tracker-admin", "demo", "--port", str(free_port()), "--devices", "25"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
        )

    def told() -> list[str]:
        return re.findall(r"console +(http://127\.0\.0\.1:[0-9]+/)", log.read_text())

    yield wait_for(told, "the demo says where its console is", timeout=60)[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()


def test_the_fleet_of_the_demo_appears(demo: str, visit: Callable[..., Visit]) -> None:
    tab = visit(demo)
    page = tab.open()
    expect(page.locator(WORD)).to_have_text("up to date", timeout=PATIENCE)
    connected = page.locator(".figures > div", has_text="devices connected").locator("dd")
    expect(connected).to_have_text("25", timeout=PATIENCE)
    page.goto(f"{demo}#/devices")
    rows = page.get_by_role("table", name="Devices").locator("tbody tr")
    expect(rows).to_have_count(25, timeout=PATIENCE)
    tab.check()
