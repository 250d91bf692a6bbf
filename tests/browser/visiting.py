"""A page that is watched while a test uses it: what it asks, and what goes wrong in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"

#: What a busy machine may take.
PATIENCE: Final = 60_000

#: How a page is looked at: name → options of a browser's context.
LOOKS: Final[dict[str, dict[str, Any]]] = {
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

#: The pill that tells how far behind the processors are.
WORD: Final = ".lag-head .pill"


class Visit:
    """One tab on one console."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        # Chromium reports what the Content-Security-Policy has kept from happening here, too.
        self.page.on(
            "console",
            lambda message: self.faults.append(message.text) if message.type == "error" else None,
        )

    def open(self, path: str = "", sees: str | None = "#live.good") -> Page:
        """Go to a part of the console, and wait until something is there."""
        self.page.goto(f"{self.url}{path}")
        if sees is not None:
            expect(self.page.locator(sees).first).to_be_visible(timeout=PATIENCE)
        return self.page

    def shoot(self, name: str) -> None:
        """Leave a picture of the whole page for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        # On top of the page, and not over what is below.
        self.page.evaluate("document.querySelector('.top').style.position = 'static'")
        self.page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)
        self.page.evaluate("document.querySelector('.top').style.position = ''")

    def check(self) -> None:
        """Nothing went wrong, nobody else was asked, and nothing is wider than the screen."""
        assert self.faults == []
        assert self.asked
        assert [url for url in self.asked if not url.startswith((self.url, "data:"))] == []
        widths = "[document.documentElement.scrollWidth, innerWidth]"
        scrolls, inner = self.page.evaluate(widths)
        assert scrolls <= inner

    def check_accessible(self) -> None:
        """axe-core finds nothing serious."""
        results = Axe().run(self.page)
        found = [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']]}"
            for one in results.response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert found == []
        assert results.response["passes"], "axe has looked at nothing"


def whole(locator_text: str) -> int:
    """``1,234`` → 1234."""
    found = re.sub(r"[^0-9]", "", locator_text)
    return int(found or -1)
