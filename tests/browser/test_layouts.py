"""Accessibility and screenshots of each page, light, dark and on a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Plane
from tests.browser.tabs import LAYOUTS, TIMEOUT, Visit
from tests.browser.test_device import DEVICE

Open = Callable[..., Visit]

#: Path of a page → selector that shows that the page is complete.
PAGES = {
    "": ".lag .line",
    "#/devices": "tbody tr",
    f"#/devices/{DEVICE}": ".map .track",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", PAGES, ids=["overview", "devices", "device"])
def test_page_is_accessible_and_fits_the_screen(
    plane: Plane, visit: Open, layout: str, path: str
) -> None:
    tab = visit(plane.url, layout)
    page = tab.open(path)
    # A line of one point has no extent, and is not visible.
    expect(page.locator(PAGES[path]).first).to_be_attached(timeout=TIMEOUT)
    tab.check_accessible()
    tab.check()
    name = {"": "overview", "#/devices": "devices"}.get(path, "device")
    tab.shoot(f"{name}-{layout}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_confirmation_dialog_is_accessible(plane: Plane, visit: Open, layout: str) -> None:
    tab = visit(plane.url, layout)
    page = tab.open(f"#/devices/{DEVICE}")
    page.get_by_label("Command", exact=True).fill("getinfo")
    page.get_by_role("button", name="Send …").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    tab.check_accessible()
    tab.shoot(f"confirm-{layout}")
