"""Fixtures: a browser, and a complete telemetry plane with a console."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.tabs import LAYOUTS, Visit
from tests.servers import RedisServer, free_port
from tests.system.conftest import Stack
from tests.system.processes import Daemon, run
from tests.waiting import wait_for

_QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")

DEVICES = 12


class Plane(Stack):
    """Redis, ingest, process, a fleet and a console, each in its own process."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        super().__init__(folder, redis)
        self.control = f"unix:{folder / 'control.sock'}"
        self.ingest = Daemon(
            *(folder, "ingest", "ingest", "--control", self.control),
            *("--listen", f"teltonika=tcp:{self.port}:interface=127.0.0.1"),
            variables={"REDIS_URL": redis.url},
        )
        self.console_port = free_port()
        self.console = self.serve(f"tcp:{self.console_port}", "--behind", "2", "--far-behind", "6")
        self.url = f"http://127.0.0.1:{self.console_port}/"

    def serve(self, listen: str, *arguments: str, name: str = "console") -> Daemon:
        """Return a console of this plane, which is not started yet."""
        return Daemon(
            *(self.folder, name, "console", "--listen", listen),
            *("--sink", f"sqlite:{self.database}", *arguments),
            variables={"REDIS_URL": self.redis.url},
        )

    def start(self) -> None:
        super().start()
        self.vehicles = self.fleet("--devices", str(DEVICES), "--interval", "0.5")
        self.console.start()

    def watchers(self) -> int:
        """Return the number of watchers at the control port of the instance."""
        info = run("tracker-admin", "--control", self.control, "info", "-o", "json")
        return int(json.loads(info.stdout)["watchers"])

    def end(self) -> None:
        super().end()
        self.console.kill()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Run a plane that all tests share."""
    folder = tmp_path_factory.mktemp("plane")
    redis = RedisServer(folder / "redis")
    redis.start()
    plane = Plane(folder, redis)
    try:
        plane.start()
        wait_for(
            lambda: redis.client.hlen("connections:registry") == DEVICES,
            "all devices are connected",
        )
        yield plane
    finally:
        plane.end()
        redis.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium."""
    found = os.environ.get("TRACKER_CHROMIUM") or next(
        filter(None, map(shutil.which, _NAMES)), None
    )
    if found is None:
        pytest.fail("chromium not found: run apt-get install chromium, or set TRACKER_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Return ``visit(url, layout)``, which opens a tab with its own cookies."""
    contexts = []

    def visit(url: str, layout: str = "light") -> Visit:
        context = browser.new_context(**LAYOUTS[layout], ignore_https_errors=True)
        contexts.append(context)
        return Visit(context, url)

    yield visit
    for context in contexts:
        context.close()
