"""How it looks, light, dark and on a phone: pictures for people, and what axe-core says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Plane
from tests.browser.test_device import DEVICE
from tests.browser.visiting import LOOKS, PATIENCE, Visit

Open = Callable[..., Visit]

#: Part of the console → what has to be there before it is looked at.
PARTS = {
    "": ".lag .line",
    "#/devices": "tbody tr",
    f"#/devices/{DEVICE}": ".map .track",
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("part", PARTS, ids=["overview", "devices", "device"])
def test_each_part_is_accessible_and_fits(plane: Plane, visit: Open, look: str, part: str) -> None:
    tab = visit(plane.url, look)
    page = tab.open(part)
    # A line of one point has no extent that could be seen.
    expect(page.locator(PARTS[part]).first).to_be_attached(timeout=PATIENCE)
    tab.check_accessible()
    tab.check()
    name = {"": "overview", "#/devices": "devices"}.get(part, "device")
    tab.shoot(f"{name}-{look}")


@pytest.mark.parametrize("look", LOOKS)
def test_the_question_before_sending_is_accessible(plane: Plane, visit: Open, look: str) -> None:
    tab = visit(plane.url, look)
    page = tab.open(f"#/devices/{DEVICE}")
    page.get_by_label("Command", exact=True).fill("getinfo")
    page.get_by_role("button", name="Send …").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    tab.check_accessible()
    tab.shoot(f"confirm-{look}")
