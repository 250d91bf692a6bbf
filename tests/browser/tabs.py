"""A tab whose requests and errors are recorded while a test uses it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"

#: Milliseconds that a page may take on a busy machine.
TIMEOUT: Final = 60_000

#: Name → options of a browser's context.
LAYOUTS: Final[dict[str, dict[str, Any]]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1360, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1360, "height": 900}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}

#: Selector of the pill with the state of a group.
STATE: Final = ".lag-head .pill"


class Visit:
    """A tab that shows a console."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.page: Page = context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.requested: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        # Chromium also reports violations of the Content-Security-Policy here.
        self.page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )

    def open(self, path: str = "", wait_for: str | None = "#live.good") -> Page:
        """Open a page of the console, and wait until the selector ``wait_for`` is visible."""
        self.page.goto(f"{self.url}{path}")
        if wait_for is not None:
            expect(self.page.locator(wait_for).first).to_be_visible(timeout=TIMEOUT)
        return self.page

    def shoot(self, name: str) -> None:
        """Save a screenshot of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        # A sticky header would cover a part of the page.
        self.page.evaluate("document.querySelector('.top').style.position = 'static'")
        self.page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)
        self.page.evaluate("document.querySelector('.top').style.position = ''")

    def check(self) -> None:
        """Check that there are no errors, no requests to other hosts, and no overflow."""
        assert self.errors == []
        assert self.requested
        assert [url for url in self.requested if not url.startswith((self.url, "data:"))] == []
        widths = "[document.documentElement.scrollWidth, innerWidth]"
        scrolls, inner = self.page.evaluate(widths)
        assert scrolls <= inner

    def check_accessible(self) -> None:
        """Check that axe-core finds no serious or critical violation."""
        results = Axe().run(self.page)
        found = [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']]}"
            for one in results.response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert found == []
        assert results.response["passes"], "axe-core has checked nothing"


def whole(locator_text: str) -> int:
    """Return the integer in a text, such as 1234 for ``1,234``."""
    found = re.sub(r"[^0-9]", "", locator_text)
    return int(found or -1)
