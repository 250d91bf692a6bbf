"""Logging in over TLS, as those do who come from elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Plane
from tests.browser.visiting import PATIENCE, Visit
from tests.certificates import certify, key_of
from tests.servers import free_port
from tests.system.processes import BIN, Daemon, environment

Open = Callable[..., Visit]
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def port() -> int:
    """Where that console is, also after a restart."""
    return free_port()


@pytest.fixture(scope="module")
def console(plane: Plane, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A console with TLS and two operators."""
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
    """Its URL."""
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


def test_nothing_is_shown_before_the_login_and_all_after_it(guarded: str, visit: Open) -> None:
    tab = visit(guarded)
    page = tab.open(sees="form.login")
    assert page.request.get(f"{guarded}api/devices").status == 401
    assert page.request.get(f"{guarded}api/events").status == 401
    tab.check_accessible()
    tab.shoot("login")
    log_in(page, "anna", "wrong, all of it")
    expect(page.get_by_role("alert").filter(has_text="wrong")).to_be_visible(timeout=PATIENCE)
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#who-name")).to_have_text("anna")
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["secure"]
    assert cookie["sameSite"] == "Strict"
    assert "anna" not in page.evaluate("document.cookie")


def test_the_login_outlives_a_reload_and_ends_when_one_logs_out(guarded: str, visit: Open) -> None:
    tab = visit(guarded)
    page = tab.open(sees="form.login")
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=PATIENCE)
    kept = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    headers = {"Cookie": kept}
    assert page.request.get(f"{guarded}api/devices", headers=headers).status == 200
    page.reload()
    expect(page.locator("#who-name")).to_have_text("anna", timeout=PATIENCE)
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("form.login")).to_be_visible(timeout=PATIENCE)
    # The old cookie is of no use to whoever has kept it.
    assert page.request.get(f"{guarded}api/devices", headers=headers).status == 401


def test_who_may_only_look_cannot_send(guarded: str, visit: Open) -> None:
    page = visit(guarded).open(sees="form.login")
    log_in(page, "ben", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=PATIENCE)
    page.goto(f"{guarded}#/devices/000000000000018")
    expect(page.get_by_text("You may look, but not send commands")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Send …")).to_be_hidden()


def test_after_a_restart_one_has_to_log_in_again(
    console: Daemon, guarded: str, visit: Open
) -> None:
    page = visit(guarded).open(sees="form.login")
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=PATIENCE)
    console.stop()
    expect(page.locator("#cut-off")).to_be_visible(timeout=PATIENCE)
    console.start()
    expect(page.locator("form.login")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#cut-off")).to_be_hidden()
    log_in(page, "anna", PASSWORD)
    expect(page.locator("#live.good")).to_be_visible(timeout=PATIENCE)
