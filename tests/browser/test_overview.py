"""The overview: the fleet, lag, outages, and the keyboard."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.conftest import DEVICES, Plane
from tests.browser.tabs import STATE, TIMEOUT, Visit, whole
from tests.integration.poison import position
from tests.servers import free_port
from tests.system.processes import run
from tests.system.raw import STREAM
from tests.waiting import wait_for

Open = Callable[..., Visit]


def test_overview_shows_the_fleet(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    expect(page.locator(STATE)).to_have_text("up to date", timeout=TIMEOUT)
    connected = page.locator(".figures > div", has_text="devices connected").locator("dd")
    expect(connected).to_have_text(str(DEVICES), timeout=TIMEOUT)
    received = page.locator(".figures > div", has_text="received per second").locator("dd")
    wait_for(lambda: whole(received.inner_text()) > 0, "records arrive", timeout=60)
    expect(page.get_by_role("table", name="Ingest instances").get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("table", name="Consumers").get_by_role("row")).to_have_count(2)
    chart = page.get_by_role("img", name="Entries in the last hour")
    expect(chart).to_be_visible()
    tab.check()


def test_lag_rises_while_the_processor_is_stopped(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    state, entries = page.locator(STATE), page.locator(".lag .huge").first
    expect(state).to_have_text("up to date", timeout=TIMEOUT)
    plane.process.stop()
    try:
        expect(state).to_have_text("far behind", timeout=TIMEOUT)
        assert page.title().startswith("FAR BEHIND")
        before = whole(entries.inner_text())
        wait_for(lambda: whole(entries.inner_text()) > before > 0, "the lag rises", timeout=60)
        tab.shoot("lag")
    finally:
        plane.process.start()
    expect(state).to_have_text("up to date", timeout=TIMEOUT)
    wait_for(lambda: whole(entries.inner_text()) < before, "the lag falls", timeout=60)
    label = page.get_by_role("img", name="Entries in the last hour").get_attribute("aria-label")
    assert label is not None
    assert whole(label.partition("maximum ")[2].partition(" at ")[0]) >= before
    tab.check()


def test_lost_connection_is_shown_and_restored(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    plane.console.stop()
    try:
        banner = page.locator("#connection-lost")
        expect(banner).to_contain_text("Connection lost at", timeout=TIMEOUT)
        expect(page.locator("#live-text")).to_have_text("Connection lost")
        tab.shoot("connection-lost")
    finally:
        plane.console.start()
    expect(page.locator("#connection-lost")).to_be_hidden(timeout=TIMEOUT)
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)


def test_outage_of_redis_is_shown(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    plane.redis.suspend()
    try:
        expect(page.get_by_text("Redis is not available")).to_be_visible(timeout=TIMEOUT)
    finally:
        plane.redis.resume()
    expect(page.get_by_text("Redis is not available")).to_be_hidden(timeout=TIMEOUT)
    expect(page.locator(STATE)).to_have_text("up to date", timeout=TIMEOUT)


def test_streams_that_are_not_shown_are_counted(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    note = page.get_by_text("more streams are not shown")
    many = [f"telemetry:none{number}" for number in range(40)]
    plane.redis.client.set("instance:heartbeat:many", json.dumps({"streams": many}), ex=90)
    try:
        expect(note).to_contain_text("13 more", timeout=TIMEOUT)
        tab.check()
    finally:
        plane.redis.client.delete("instance:heartbeat:many")
    expect(note).to_be_hidden(timeout=TIMEOUT)


def test_stranded_stream_is_shown_with_entries_and_age(plane: Plane, visit: Open) -> None:
    day = int(time.time() - 86_400) * 1000
    for number in range(2):
        plane.redis.client.xadd("telemtry", position(number), id=f"{day}-{number}")
    port = free_port()
    console = plane.serve(f"tcp:{port}", name="stranded")  # it searches for streams at its start
    try:
        console.start()
        tab = visit(f"http://127.0.0.1:{port}/")
        card = tab.open().get_by_role("article", name="Lag of telemtry")
        expect(card).to_contain_text("not read", timeout=TIMEOUT)
        expect(card.locator(".figures-line")).to_have_text("2entries24holdest")
        expect(card).to_contain_text("tracker-admin streams adopt telemtry")
        tab.check()
    finally:
        console.kill()
        plane.redis.client.delete("telemtry")


def test_skipped_entries_are_shown(plane: Plane, visit: Open) -> None:
    client = plane.redis.client
    card = visit(plane.url).open().get_by_role("article", name="Lag of telemetry:teltonika")
    # A consumer that is deleted takes along what was delivered to it.
    client.xreadgroup("processor", "gone", {STREAM: ">"}, count=1, block=30_000)
    assert client.xgroup_delconsumer(STREAM, "processor", "gone") == 1
    try:
        expect(card).to_contain_text("1 skipped: run tracker-admin skipped list", timeout=TIMEOUT)
    finally:
        run("tracker-admin", "skipped", "discard", "--redis", plane.redis.url, STREAM, "--yes")
    expect(card).not_to_contain_text("skipped", timeout=TIMEOUT)


def test_dead_letter_is_shown_as_text(plane: Plane, visit: Open) -> None:
    page = visit(plane.url).open()
    markup = "<img src=x onerror=alert(1)>"
    fields = {"device_id": "356307042441013", "payload": "{", "ts": markup, "codec": "8"}
    plane.redis.client.xadd("telemetry:teltonika", fields)
    letters = page.get_by_role("table", name="Latest dead letters")
    expect(letters.get_by_role("row")).not_to_have_count(0, timeout=TIMEOUT)
    expect(letters).to_contain_text("356307042441013")
    assert page.locator("#dead img").count() == 0


def test_all_pages_are_usable_with_the_keyboard(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.get_by_role("link", name="Devices").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Devices")).to_be_focused(timeout=TIMEOUT)
    page.get_by_label("Search").focus()
    page.keyboard.type("001017000000011")
    rows = page.get_by_role("table", name="Devices").locator("tbody tr")
    expect(rows).to_have_count(1, timeout=TIMEOUT)
    page.keyboard.press("Tab")  # the order
    page.keyboard.press("Tab")  # the table, which can be scrolled
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    map_ = page.get_by_role("group", name="Map of the track")
    expect(map_).to_be_visible(timeout=TIMEOUT)
    map_.focus()
    before = page.locator(".map .track").get_attribute("d")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".map .track")).not_to_have_attribute("d", before or "")
    tab.check()
