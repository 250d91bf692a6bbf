"""Logins over TLS."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Plane
from tests.browser.tabs import TIMEOUT, Visit
from tests.certificates import certify, key_of
from tests.servers import free_port
from tests.system.processes import BIN, Daemon, environment
from tracker.simulator.fleet import simulated_imei

Open = Callable[..., Visit]
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def port() -> int:
    """Port of the console, which stays the same after a restart."""
    return free_port()


@pytest.fixture(scope="module")
def console(plane: Plane, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run a console with TLS and two operators."""
    folder = tmp_path_factory.mktemp("guarded")
    for name, permission in (("anna", "operate"), ("ben", "read")):
        add_operator(folder, name, permission)
    certificate = certify(folder, "127.0.0.1")
    console = plane.serve(
        f"ssl:{port}:privateKey={key_of(certificate)}:certKey={certificate}",
        *("--operators", str(folder / "operators")),
        name="guarded",
    )
    console.start()
    yield console
    console.kill()


@pytest.fixture
def guarded(console: Daemon, port: int) -> str:
    """URL of the console."""
    return f"https://127.0.0.1:{port}/"


def add_operator(folder: Path, name: str, permission: str) -> None:
    subprocess.run(
        [
            *(BIN / "tracker-admin", "console-operator", "add", "--permission", permission),
            *("--file", folder / "operators", name),
        ],
        input=f"{PASSWORD}\n",
        text=True,
        check=True,
        capture_output=True,
        env=environment(),
    )


def log_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def test_data_is_shown_only_after_the_login(guarded: str, visit: Open) -> None:
    tab = visit(guarded)
    page = tab.open(wait_for="form.login")
    assert page.request.get(f"{guarded}api/devices").status == 401
    assert page.request.get(f"{guarded}api/events").status == 401
    tab.check_accessible()
    tab.shoot("login")
    log_in(page, "anna", "not the password")
    expect(page.get_by_role("alert").filter(has_text="Wrong name or password.")).to_be_visible(
        timeout=TIMEOUT
    )
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)
    expect(page.locator("#who-name")).to_have_text("anna")
    cookies = page.context.cookies()  # of the session, and of the known browser
    assert [(one["httpOnly"], one["secure"], one["sameSite"]) for one in cookies] == [
        (True, True, "Strict")
    ] * 2
    assert "anna" not in page.evaluate("document.cookie")


def test_session_survives_a_reload_and_ends_at_logout(guarded: str, visit: Open) -> None:
    tab = visit(guarded)
    page = tab.open(wait_for="form.login")
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)
    kept = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    headers = {"Cookie": kept}
    assert page.request.get(f"{guarded}api/devices", headers=headers).status == 200
    page.reload()
    expect(page.locator("#who-name")).to_have_text("anna", timeout=TIMEOUT)
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("form.login")).to_be_visible(timeout=TIMEOUT)
    # A copy of the old cookie is invalid, too.
    assert page.request.get(f"{guarded}api/devices", headers=headers).status == 401


def test_operator_with_permission_read_cannot_send(guarded: str, visit: Open) -> None:
    page = visit(guarded).open(wait_for="form.login")
    log_in(page, "ben", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)
    page.goto(f"{guarded}#/devices/{simulated_imei(1)}")
    expect(page.get_by_text("You have read-only access.")).to_be_visible(timeout=TIMEOUT)
    expect(page.get_by_role("button", name="Send …")).to_be_hidden()


def test_restart_without_a_session_key_requires_a_new_login(
    console: Daemon, guarded: str, visit: Open
) -> None:
    page = visit(guarded).open(wait_for="form.login")
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)
    console.stop()
    expect(page.locator("#connection-lost")).to_be_visible(timeout=TIMEOUT)
    console.start()
    expect(page.locator("form.login")).to_be_visible(timeout=TIMEOUT)
    expect(page.locator("#connection-lost")).to_be_hidden()
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=TIMEOUT)
