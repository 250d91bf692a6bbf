"""The overview and the lists while Redis is down, or a part of its data is unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DEVICES, Plane
from tests.browser.tabs import STATE, TIMEOUT, Visit
from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tests.waiting import wait_for

Open = Callable[..., Visit]

TABLES = ("Ingest instances", "Consumers", "Latest commands", "Latest dead letters")
DEAD = "telemetry:teltonika:dead"
REASON = f"{DEAD} is not a stream: rename or delete it"


@pytest.fixture
def blind(tmp_path: Path) -> Iterator[tuple[str, RedisServer]]:
    """Start a console whose Redis is down; provide its URL and the server."""
    redis = RedisServer(tmp_path / "redis")
    port = free_port()
    console = Daemon(
        *(tmp_path, "console", "console", "--listen", f"tcp:{port}"),
        variables={"REDIS_URL": redis.url},
    )
    console.start(ready=False)
    wait_for(lambda: "not ready: redis" in console.text, "the console has tried to connect")
    yield f"http://127.0.0.1:{port}/", redis
    console.kill()
    redis.kill()


def panel_text(page: Page, table: str) -> str:
    """Return the text that stands instead of rows."""
    text: str = (
        page.locator(".table", has=page.locator(f"caption:text-is('{table}')"))
        .locator(".empty")
        .inner_text()
    )
    return text


def test_page_opened_while_redis_is_down_shows_unknown(
    blind: tuple[str, RedisServer], visit: Open
) -> None:
    url, redis = blind
    tab = visit(url)
    page = tab.open(wait_for="#live.bad")
    expect(page.get_by_role("alert").first).to_contain_text("Nothing is known yet")
    expect(page.locator("#live-text")).to_have_text("No current data")
    texts = {table: panel_text(page, table) for table in TABLES}
    assert all(text.startswith("Unknown: Redis is not available") for text in texts.values()), texts
    assert page.locator("#lag .empty").inner_text().startswith("Unknown: Redis is not available")
    assert set(page.locator(".figures dd").all_inner_texts()) == {"?"}
    assert page.locator(".good").count() == 0
    assert page.title().startswith("UNKNOWN")
    tab.check()
    tab.shoot("redis-down")
    redis.start()
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)
    assert panel_text(page, "Latest dead letters") == "No dead letters."


def test_outage_of_redis_leaves_no_green_state(plane: Plane, visit: Open) -> None:
    page = visit(plane.url).open()
    expect(page.locator(STATE)).to_have_text("up to date", timeout=TIMEOUT)
    plane.redis.suspend()
    try:
        expect(page.locator("#live.bad")).to_be_visible(timeout=TIMEOUT)
        expect(page.locator(STATE)).to_have_text("unknown")
        expect(page.get_by_text("Showing data of")).to_contain_text(" old.")
        page.get_by_role("link", name="Devices").click()
        expect(page.get_by_text("Connections unknown")).to_be_visible(timeout=TIMEOUT)
        rows = page.get_by_role("table", name="Devices").locator("tbody tr")
        # Other tests add devices that are not connected.
        expect(rows.nth(DEVICES - 1)).to_be_visible(timeout=TIMEOUT)
        expect(rows.locator(".pill.good")).to_have_count(0)
        page.get_by_role("link", name="Overview").click()
        connected = page.locator(".figures > div", has_text="devices connected").locator("dd")
        expect(connected).to_have_text(str(DEVICES))
        expect(page.locator(STATE)).to_have_text("unknown")
    finally:
        plane.redis.resume()
    expect(page.locator(STATE)).to_have_text("up to date", timeout=TIMEOUT)


def test_key_of_a_wrong_type_makes_only_its_part_unknown(plane: Plane, visit: Open) -> None:
    page = visit(plane.url).open()
    expect(page.locator(STATE)).to_have_text("up to date", timeout=TIMEOUT)
    kept = plane.redis.client.dump(DEAD)
    plane.redis.client.set(DEAD, "x")
    try:
        expect(page.locator("#dead .empty")).to_contain_text(REASON, timeout=TIMEOUT)
        expect(page.locator("#live.warn")).to_be_visible()
        dead = page.locator(".figures > div", has_text="dead letters").locator("dd")
        expect(dead).to_have_text("?")
        expect(page.locator(STATE)).to_have_text("up to date")
        expect(page.get_by_role("table", name="Ingest instances").get_by_role("row")).to_have_count(
            2
        )
    finally:
        plane.redis.client.delete(DEAD)
        if kept:
            plane.redis.client.restore(DEAD, 0, kept)
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)
