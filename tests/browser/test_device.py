"""The table of devices, and one of them: its track, its IO, its commands, its frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DEVICES, Plane
from tests.browser.visiting import PATIENCE, Visit
from tests.servers import free_port
from tests.waiting import wait_for

Open = Callable[..., Visit]
#: One of the simulated devices.
DEVICE = "000000000000018"
SEND = "Send this command"


def ask(page: Page, text: str) -> None:
    """Fill the form, and come to the question whether that is meant."""
    page.get_by_label("Command", exact=True).fill(text)
    page.get_by_role("button", name="Send …").click()
    expect(page.get_by_role("dialog")).to_contain_text(text)
    expect(page.get_by_role("dialog")).to_contain_text(DEVICE)


def test_devices_are_found_and_lead_to_their_page(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open("#/devices")
    rows = page.get_by_role("table", name="Devices").locator("tbody tr")
    expect(rows).to_have_count(DEVICES, timeout=PATIENCE)
    page.get_by_label("Search").fill(DEVICE[-4:])
    expect(rows).to_have_count(1, timeout=PATIENCE)
    expect(rows.first).to_contain_text("km/h")
    page.get_by_role("link", name=DEVICE).click()
    expect(page.get_by_role("heading", name=DEVICE)).to_be_visible(timeout=PATIENCE)
    tab.check()


def test_a_device_shows_its_track_and_its_io(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{DEVICE}")
    track = page.locator(".map .track")

    def points() -> int:
        return (track.get_attribute("d") or "").count("L")

    expect(track).to_be_visible(timeout=PATIENCE)
    before = points()
    assert before > 0
    wait_for(lambda: points() > before, "the track grows", timeout=60)
    expect(page.locator(".map .scale")).to_have_text(re.compile(r"^[\d,]+ k?m$"))
    expect(page.locator(".map .tick").first).to_contain_text("°")
    expect(page.locator(".map .when").first).to_have_text(re.compile(r"\d\d:\d\d"))
    table = page.get_by_role("table", name="Latest IO elements")
    expect(table.get_by_role("row", name="External Voltage")).to_contain_text("V")
    tab.check()


def test_a_command_is_sent_after_a_question_and_its_answer_appears(
    plane: Plane, visit: Open
) -> None:
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{DEVICE}")
    ask(page, "getver please")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    ask(page, "getinfo")
    tab.shoot("confirm")
    page.get_by_role("button", name=SEND).click()
    commands = page.get_by_role("table", name="Commands of this device")
    sent = commands.get_by_role("row", name="getinfo")
    expect(sent).to_contain_text("responded", timeout=PATIENCE)
    expect(sent.locator(".answer")).not_to_have_text("–")
    # What was cancelled never was.
    assert [one["text"] for one in plane.vehicles.commands()] == ["getinfo"]
    page.goto(f"{plane.url}#/")
    latest = page.get_by_role("table", name="Latest commands")
    expect(latest.get_by_role("row", name="getinfo").first).to_contain_text(
        "responded", timeout=PATIENCE
    )
    tab.check()


def test_frames_are_shown_live_while_somebody_looks(plane: Plane, visit: Open) -> None:
    tab = visit(plane.url)
    page = tab.open(f"#/devices/{DEVICE}")
    page.get_by_role("button", name="Watch live").click()
    frames = page.locator(".frames li")
    expect(frames.nth(3)).to_be_visible(timeout=PATIENCE)
    frames.filter(has_text="received").first.locator("summary").click()
    expect(page.locator(".frames details[open] pre.hex").first).to_contain_text("00 00 00 00")
    assert plane.watchers() == 1
    page.get_by_role("button", name="Stop watching").click()
    wait_for(lambda: plane.watchers() == 0, "nobody watches any more")
    tab.check()


class Tiles(BaseHTTPRequestHandler):
    """Serves one grey pixel as every tile, and notes which were asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
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
    """Where tiles are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tiles)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_map_is_put_below_the_track_where_one_is_set(
    plane: Plane, visit: Open, tiles: str
) -> None:
    port = free_port()
    url = f"{tiles}{{z}}/{{x}}/{{y}}.png"
    console = plane.serve(
        f"tcp:{port}", "--tiles", url, "--tiles-credit", "© Somebody", name="tiles"
    )
    console.start()
    try:
        tab = visit(f"http://127.0.0.1:{port}/")
        page = tab.open(f"#/devices/{DEVICE}")
        images = page.locator(".map .tile")
        expect(images.nth(5)).to_be_attached(timeout=PATIENCE)
        shown = images.count()
        wait_for(lambda: len(Tiles.asked) >= shown, "all tiles are asked for")
        zoom, column, row = Tiles.asked[0].removesuffix(".png").strip("/").split("/")
        # Where Tirana is at that zoom, give or take the screen.
        assert abs(int(column) / 2 ** int(zoom) - (19.8187 + 180) / 360) < 0.01
        assert abs(int(row) / 2 ** int(zoom) - 0.374) < 0.01
        expect(page.get_by_text("© Somebody")).to_be_visible()
        assert tab.faults == []
        assert [one for one in tab.asked if not one.startswith((tab.url, tiles))] == []
        tab.shoot("tiles")
    finally:
        console.kill()
