"""The table of devices, and the page of a device."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DEVICES, Plane
from tests.browser.tabs import TIMEOUT, Visit
from tests.servers import free_port
from tests.system.raw import STREAM
from tests.waiting import wait_for
from tracker.keys import RESPONSES
from tracker.position import Position
from tracker.simulator.fleet import simulated_imei

Open = Callable[..., Visit]
#: IMEI of a simulated device.
DEVICE = simulated_imei(2)
SEND = "Send this command"


def open_confirmation(page: Page, text: str) -> None:
    """Enter a command, and open the dialog that asks for confirmation."""
    page.get_by_label("Command", exact=True).fill(text)
    page.get_by_role("button", name="Send …").click()
    expect(page.get_by_role("dialog")).to_contain_text(text)
    expect(page.get_by_role("dialog")).to_contain_text(DEVICE)


def test_search_finds_a_device_and_links_to_its_page(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open("#/devices")
    rows = page.get_by_role("table", name="Devices").locator("tbody tr")
    expect(rows).to_have_count(DEVICES, timeout=TIMEOUT)
    page.get_by_label("Search").fill(DEVICE[-4:])
    expect(rows).to_have_count(1, timeout=TIMEOUT)
    expect(rows.first).to_contain_text("km/h")
    page.get_by_role("link", name=DEVICE).click()
    expect(page.get_by_role("heading", name=DEVICE)).to_be_visible(timeout=TIMEOUT)
    tab.check()


def test_device_page_shows_track_and_io(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{DEVICE}")
    track = page.locator(".map .track")

    def points() -> int:
        return (track.get_attribute("d") or "").count("L")

    expect(track).to_be_visible(timeout=TIMEOUT)
    before = points()
    assert before > 0
    wait_for(lambda: points() > before, "the track grows", timeout=60)
    expect(page.locator(".map .scale")).to_have_text(re.compile(r"^[\d,]+ k?m$"))
    expect(page.locator(".map .tick").first).to_contain_text("°")
    expect(page.locator(".map .when").first).to_have_text(re.compile(r"\d\d:\d\d"))
    table = page.get_by_role("table", name="Latest IO elements")
    expect(table.get_by_role("row", name="External Voltage")).to_contain_text("V")
    tab.check()


def test_device_page_shows_a_wrong_time_that_is_no_place(plane: Plane, visit: Open) -> None:
    device = "356307042441013"
    record = Position(
        device, "2080-01-06T00:00:00.000Z", 41.3, 19.8, 110, 0, 0, 9, 0, 0, {"66": 12}
    )
    plane.redis.client.xadd(STREAM, record.to_entry("8")._asdict())
    tab = visit(plane.url)
    facts = tab.open(f"#/devices/{device}").locator(".facts").first
    expect(facts).to_contain_text("Last wrong time2080-01-06 00:00 UTC (ahead)", timeout=TIMEOUT)
    expect(facts).to_contain_text("Positionnone yet")
    tab.check()


def test_command_is_sent_after_confirmation_and_its_answer_appears(
    plane: Plane, visit: Open
) -> None:
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{DEVICE}")
    open_confirmation(page, "getver please")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    open_confirmation(page, "getinfo")
    tab.shoot("confirm")
    page.get_by_role("button", name=SEND).click()
    commands = page.get_by_role("table", name="Commands of this device")
    sent = commands.get_by_role("row", name="getinfo")
    expect(sent).to_contain_text("responded", timeout=TIMEOUT)
    expect(sent.locator(".answer")).not_to_have_text("–")
    # The cancelled command was not sent.
    assert [one["text"] for one in plane.vehicles.commands()] == ["getinfo"]
    page.goto(f"{plane.url}#/")
    latest = page.get_by_role("table", name="Latest commands")
    expect(latest.get_by_role("row", name="getinfo").first).to_contain_text(
        "responded", timeout=TIMEOUT
    )
    tab.check()


def test_command_for_an_offline_device_shows_until_when_it_waits_and_who_sent_it(
    plane: Plane, visit: Open
) -> None:
    device = "356307042441021"
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{device}")
    page.get_by_label("Command", exact=True).fill("getver offline")
    page.get_by_role("button", name="Send …").click()
    page.get_by_role("button", name=SEND).click()
    until = re.compile(r"waits for it until \d\d:\d\d:\d\d\.")
    expect(page.get_by_text(until)).to_be_visible(timeout=TIMEOUT)
    commands = page.get_by_role("table", name="Commands of this device")
    sent = commands.get_by_role("row", name="getver offline")
    expect(sent).to_contain_text(re.compile(r"waiting for the device until \d\d:\d\d"))
    expect(sent).to_contain_text("local user")
    tab.check()


def test_ended_command_that_the_console_never_saw_has_its_text_sender_and_warning(
    plane: Plane, visit: Open
) -> None:
    device = "356307042441039"
    response = {"device_id": device, "instance_id": "one", "at": "2026-11-22T10:00:03.000Z"}
    answered = {"status": "responded", "response": "Unknown command", "reason": "unknown_command"}
    recorded = {"payload": "getinfos", "sender": "anna", "sent_at": "2026-11-22T10:00:00.000Z"}
    add = plane.redis.client.xadd
    add(RESPONSES, {"command_id": "new", **response, **answered, **recorded})
    add(RESPONSES, {"command_id": "old", **response, "status": "expired"})
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{device}")
    commands = page.get_by_role("table", name="Commands of this device")
    new = commands.get_by_role("row", name="getinfos")
    expect(new).to_contain_text("responded: unknown command", timeout=TIMEOUT)
    expect(new).to_contain_text("anna")
    sent = re.compile("^sent 2026-11-22T10:00:00.000Z, responded 2026-")
    expect(new.locator("td").first).to_have_attribute("title", sent)
    expect(commands.get_by_role("row", name="text not recorded")).to_contain_text("expired")
    tab.check()


def test_frames_are_shown_while_the_device_is_watched(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{DEVICE}")
    page.get_by_role("button", name="Watch live").click()
    frames = page.locator(".frames li")
    expect(frames.nth(3)).to_be_visible(timeout=TIMEOUT)
    frames.filter(has_text="received").first.locator("summary").click()
    expect(page.locator(".frames details[open] pre.hex").first).to_contain_text("00 00 00 00")
    assert plane.watchers() == 1
    page.get_by_role("button", name="Stop watching").click()
    wait_for(lambda: plane.watchers() == 0, "the device is unwatched")
    tab.check()


class Tiles(BaseHTTPRequestHandler):
    """HTTP handler that sends a grey tile, and records the requested paths."""

    requested: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.end_headers()
        self.wfile.write(
            b'<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256">'
            b'<rect width="256" height="256" fill="#ccd"/></svg>'
        )

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture
def tiles() -> Iterator[str]:
    """URL of a server of tiles."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tiles)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_tiles_are_shown_below_the_track(plane: Plane, visit: Open, tiles: str) -> None:
    port = free_port()
    url = f"{tiles}{{z}}/{{x}}/{{y}}.png"
    console = plane.serve(
        f"tcp:{port}", "--tiles", url, "--tiles-credit", "© Example Maps", name="tiles"
    )
    console.start()
    try:
        tab = visit(f"http://127.0.0.1:{port}/")
        page = tab.open(f"#/devices/{DEVICE}")
        images = page.locator(".map .tile")
        expect(images.nth(5)).to_be_attached(timeout=TIMEOUT)
        shown = images.count()
        wait_for(lambda: len(Tiles.requested) >= shown, "all tiles are requested")
        zoom, column, row = Tiles.requested[0].removesuffix(".png").strip("/").split("/")
        # The tile covers Tirana, within the size of the screen.
        assert abs(int(column) / 2 ** int(zoom) - (19.8187 + 180) / 360) < 0.01
        assert abs(int(row) / 2 ** int(zoom) - 0.374) < 0.01
        expect(page.get_by_text("© Example Maps")).to_be_visible()
        assert tab.errors == []
        assert [one for one in tab.requested if not one.startswith((tab.url, tiles))] == []
        tab.shoot("tiles")
    finally:
        console.kill()
