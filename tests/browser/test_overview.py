"""The first page: the fleet, the lag as it rises and falls, and what happens when it is cut off."""

from __future__ import annotations

import json
from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.conftest import DEVICES, Plane
from tests.browser.visiting import PATIENCE, WORD, Visit, whole
from tests.waiting import wait_for

Open = Callable[..., Visit]


def test_the_fleet_appears(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    expect(page.locator(WORD)).to_have_text("up to date", timeout=PATIENCE)
    connected = page.locator(".figures > div", has_text="devices connected").locator("dd")
    expect(connected).to_have_text(str(DEVICES), timeout=PATIENCE)
    received = page.locator(".figures > div", has_text="received a second").locator("dd")
    wait_for(lambda: whole(received.inner_text()) > 0, "records come", timeout=60)
    expect(page.get_by_role("table", name="Ingest instances").get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("table", name="Consumers").get_by_role("row")).to_have_count(2)
    chart = page.get_by_role("img", name="Entries, the last hour")
    expect(chart).to_be_visible()
    tab.check()


def test_lag_rises_when_the_processor_stops_and_falls_when_it_is_back(
    plane: Plane, visit: Open
) -> None:
    tab = visit(plane.url)
    page = tab.open()
    word, entries = page.locator(WORD), page.locator(".lag .huge").first
    expect(word).to_have_text("up to date", timeout=PATIENCE)
    plane.process.stop()
    try:
        expect(word).to_have_text("far behind", timeout=PATIENCE)
        assert page.title().startswith("FAR BEHIND")
        before = whole(entries.inner_text())
        wait_for(lambda: whole(entries.inner_text()) > before > 0, "the lag rises", timeout=60)
        tab.shoot("lag")
    finally:
        plane.process.start()
    expect(word).to_have_text("up to date", timeout=PATIENCE)
    wait_for(lambda: whole(entries.inner_text()) < before, "the lag falls", timeout=60)
    told = page.get_by_role("img", name="Entries, the last hour").get_attribute("aria-label")
    assert told is not None
    assert whole(told.partition("at most ")[2].partition(" at ")[0]) >= before
    tab.check()


def test_it_says_so_when_it_is_cut_off_and_goes_on_by_itself(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    plane.console.stop()
    try:
        expect(page.locator("#cut-off")).to_contain_text("Cut off since", timeout=PATIENCE)
        expect(page.locator("#live-text")).to_have_text("Cut off")
        tab.shoot("cut-off")
    finally:
        plane.console.start()
    expect(page.locator("#cut-off")).to_be_hidden(timeout=PATIENCE)
    expect(page.locator("#live.good")).to_be_visible(timeout=PATIENCE)


def test_it_says_so_when_redis_is_away(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    plane.redis.suspend()
    try:
        expect(page.get_by_text("Redis cannot be asked")).to_be_visible(timeout=PATIENCE)
    finally:
        plane.redis.resume()
    expect(page.get_by_text("Redis cannot be asked")).to_be_hidden(timeout=PATIENCE)
    expect(page.locator(WORD)).to_have_text("up to date", timeout=PATIENCE)


def test_it_says_how_many_streams_it_leaves_out(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    told = page.get_by_text("more streams are not looked at")
    many = [f"telemetry:none{number}" for number in range(40)]
    plane.redis.client.set("instance:heartbeat:many", json.dumps({"streams": many}), ex=90)
    try:
        expect(told).to_contain_text("11 more", timeout=PATIENCE)
        tab.check()
    finally:
        plane.redis.client.delete("instance:heartbeat:many")
    expect(told).to_be_hidden(timeout=PATIENCE)


def test_a_dead_letter_is_shown_with_its_reason(plane: Plane, visit: Open) -> None:
    page = visit(plane.url).open()
    markup = "<img src=x onerror=alert(1)>"
    fields = {"device_id": "356307042441013", "payload": "{", "ts": markup, "codec": "8"}
    plane.redis.client.xadd("telemetry:teltonika", fields)
    letters = page.get_by_role("table", name="Latest dead letters")
    expect(letters.get_by_role("row")).not_to_have_count(0, timeout=PATIENCE)
    expect(letters).to_contain_text("356307042441013")
    assert page.locator("#dead img").count() == 0


def test_the_keyboard_reaches_everything(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.get_by_role("link", name="Devices").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Devices")).to_be_focused(timeout=PATIENCE)
    page.get_by_label("Search").focus()
    page.keyboard.type("18")
    rows = page.get_by_role("table", name="Devices").locator("tbody tr")
    expect(rows).to_have_count(1, timeout=PATIENCE)
    page.keyboard.press("Tab")  # the order
    page.keyboard.press("Tab")  # the table, which can be scrolled
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    map_ = page.get_by_role("group", name="Map of the track")
    expect(map_).to_be_visible(timeout=PATIENCE)
    map_.focus()
    before = page.locator(".map .track").get_attribute("d")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".map .track")).not_to_have_attribute("d", before or "")
    tab.check()
