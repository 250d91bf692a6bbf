"""Who may look, and who may change something: logins, cookies, tokens, names and rates."""

from __future__ import annotations

from hashlib import scrypt
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from tests.unit.console.browsing import DEVICE, HOST, NOW, Browser, FakeOperators, Server
from tracker.console.access import MOST_BY_ADDRESS, MOST_BY_NAME, MOST_CHECKED, PERIOD
from tracker.console.events import HEARTBEAT
from tracker.console.operators import Operator, PasswordHash
from tracker.console.sessions import LIFETIME
from tracker.observe.ratelimit import MAX_LINES

PASSWORD = "correct horse battery"


def cheap(password: str) -> PasswordHash:
    """A hash that takes no quarter of a second."""
    key = scrypt(password.encode(), salt=b"salt-salt", n=1 << 14, r=1, p=1, maxmem=1 << 26)
    return PasswordHash(14, 1, 1, b"salt-salt", key[:32])


ANNA = Operator("anna", "operate", cheap(PASSWORD))
BEN = Operator("ben", "read", cheap("another password"))
SEND = {"device_id": DEVICE, "text": "getinfo"}


@pytest.fixture
def operators() -> FakeOperators:
    return FakeOperators(ANNA, BEN)


@pytest.fixture
def server(operators: FakeOperators) -> Server:
    return Server(operators)


@pytest.fixture
def browser(server: Server) -> Browser:
    browser = Browser(server)
    browser.arrive()
    return browser


PATHS = (
    *("/api/events", "/api/devices", f"/api/devices/{DEVICE}", f"/api/devices/{DEVICE}/track"),
    *(f"/api/devices/{DEVICE}/frames", "/api/commands/c1"),
)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_before_one_has_logged_in(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert (answer.status, answer.json["error"]) == (401, "log in first")


def test_the_page_and_whether_one_has_to_log_in_are_told_to_anybody(browser: Browser) -> None:
    assert browser.get("/").status == 200
    told = browser.arrive()
    assert (told["asks"], told["operator"], told["permission"]) == (True, None, "")
    assert "tiles" not in told


def test_a_login_begins_a_session(browser: Browser) -> None:
    before = dict(browser.cookies)
    answer = browser.log_in("anna", PASSWORD)
    assert (answer.status, answer.json["operator"], answer.json["permission"]) == (
        200,
        "anna",
        "operate",
    )
    (cookie,) = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert f"Max-Age={LIFETIME:.0f}" in cookie
    assert "Secure" not in cookie
    assert browser.cookies != before
    assert browser.get("/api/devices").status == 200


def test_over_tls_the_cookie_is_for_tls_and_this_host_only(operators: FakeOperators) -> None:
    browser = Browser(Server(operators, secure=True))
    browser.arrive()
    answer = browser.log_in("anna", PASSWORD)
    (cookie,) = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-tracker-9120=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    # On this machine it would hold for all else, too.
    assert "strict-transport-security" not in answer.headers
    elsewhere = browser.get("/", Host="console.example.org")
    assert elsewhere.header("strict-transport-security") == "max-age=31536000"


@pytest.mark.parametrize(
    ("name", "password"), [("anna", "wrong"), ("nobody", PASSWORD), ("ben", PASSWORD)]
)
def test_a_wrong_name_or_password_is_told_alike(browser: Browser, name: str, password: str) -> None:
    answer = browser.log_in(name, password)
    assert (answer.status, answer.json["error"]) == (401, "name or password is wrong")
    assert browser.get("/api/devices").status == 401


def test_as_much_is_done_for_an_unknown_name_as_for_a_known_one(operators: FakeOperators) -> None:
    asked = []

    class Counting(PasswordHash):
        def fits(self, password: str) -> bool:
            asked.append(password)
            return super().fits(password)

    hashed = ANNA.password
    counting = Counting(hashed.log2_n, hashed.r, hashed.p, hashed.salt, hashed.key)
    browser = Browser(Server(FakeOperators(evolve(ANNA, password=counting))))
    browser.arrive()
    browser.log_in("anna", "wrong one")
    browser.log_in("nobody", "wrong two")
    assert asked == ["wrong one", "wrong two"]


def test_a_session_ends_by_itself(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    browser.server.clock.advance(LIFETIME - 1)
    assert browser.get("/api/devices").status == 200
    browser.server.clock.advance(1)
    assert browser.get("/api/devices").status == 401


def test_a_session_ends_when_one_logs_out(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    kept = dict(browser.cookies)
    assert browser.post("/api/logout", {}).status == 200
    assert browser.get("/api/devices").status == 401
    browser.cookies = kept
    assert browser.get("/api/devices").status == 401


def test_a_login_ends_the_session_before_it(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    former = dict(browser.cookies)
    browser.log_in("ben", "another password")
    assert browser.arrive()["operator"] == "ben"
    browser.cookies = former
    assert browser.get("/api/devices").status == 401


def test_a_session_ends_with_its_operator_or_the_password(
    browser: Browser, operators: FakeOperators
) -> None:
    browser.log_in("anna", PASSWORD)
    operators.known["anna"] = evolve(ANNA, password=cheap("a new password"))
    assert browser.get("/api/devices").status == 401
    operators.known["anna"] = ANNA
    assert browser.get("/api/devices").status == 200
    del operators.known["anna"]
    assert browser.get("/api/devices").status == 401


def test_another_role_holds_at_once(browser: Browser, operators: FakeOperators) -> None:
    browser.log_in("anna", PASSWORD)
    assert browser.post("/api/commands", SEND).status == 200
    operators.known["anna"] = evolve(ANNA, permission="read")
    assert browser.post("/api/commands", SEND).status == 403


def test_a_cookie_that_was_changed_is_none(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    (name,) = browser.cookies
    value = browser.cookies[name]
    for number in range(0, len(value), 7):
        other = "A" if value[number] != "A" else "B"
        browser.cookies[name] = f"{value[:number]}{other}{value[number + 1 :]}"
        assert browser.get("/api/devices").status == 401, number
    browser.cookies[name] = value
    assert browser.get("/api/devices").status == 200


def test_a_cookie_of_another_key_is_none(browser: Browser, operators: FakeOperators) -> None:
    browser.log_in("anna", PASSWORD)
    other = Browser(Server(operators, key=b"x" * 32))
    other.cookies = browser.cookies
    assert other.get("/api/devices").status == 401


def test_a_token_is_no_cookie(browser: Browser) -> None:
    (name,) = browser.cookies
    text, _, _ = browser.cookies[name].partition(".")
    browser.cookies[name] = f"{text}.{browser.token}"
    assert browser.get("/api/devices").status == 401


def test_who_may_only_look_sends_no_command(browser: Browser) -> None:
    assert browser.log_in("ben", "another password").json["sends"] is False
    answer = browser.post("/api/commands", SEND)
    assert (answer.status, browser.server.ports.sent) == (403, [])


@pytest.mark.parametrize(
    "headers",
    [
        {"X_CSRF_Token": None},
        {"X_CSRF_Token": "x" * 43},
        {"X_CSRF_Token": "\xff"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9121"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": None, "Sec_Fetch_Site": "cross-site"},
        {"Origin": None, "Sec_Fetch_Site": "same-site"},
        {"Cookie": None},
    ],
)
@pytest.mark.parametrize("asks", [True, False])
def test_what_changes_something_has_to_come_from_a_page_of_ours(
    operators: FakeOperators, headers: dict[str, str | None], asks: bool
) -> None:
    server = Server(operators if asks else None)
    browser = Browser(server)
    browser.arrive()
    if asks:
        assert browser.log_in("anna", PASSWORD).status == 200
    for path, body in (("/api/commands", SEND), ("/api/logout", {})):
        assert browser.post(path, body, **headers).status == 403
    assert server.ports.sent == []
    assert browser.post("/api/commands", SEND).status == 200


def test_a_login_has_to_come_from_a_page_of_ours(browser: Browser) -> None:
    body = {"name": "anna", "password": PASSWORD}
    assert browser.post("/api/login", body, Origin="http://evil.example").status == 403
    assert browser.post("/api/login", body, X_CSRF_Token=None).status == 403
    assert browser.post("/api/login", body).status == 200


def test_a_token_belongs_to_one_session(browser: Browser, server: Server) -> None:
    other = Browser(server)
    other.arrive()
    browser.log_in("anna", PASSWORD)
    assert browser.post("/api/commands", SEND, X_CSRF_Token=other.token).status == 403


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9120", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("[::1]evil", "127.0.0.1:9120, evil", "", "0.0.0.0:9120", "169.254.1.1:9120"),
    ],
)
def test_by_a_name_that_is_not_ours_nothing_is_told(host: str) -> None:
    server = Server()
    for path in ("/", "/api/session", "/api/devices"):
        answer = Browser(server).get(path, Host=host)
        # Without any Host the request is refused by Twisted itself.
        assert answer.status in (400, 421)
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", [HOST, "localhost", "LOCALHOST:80", "[::1]:9120"])
def test_by_the_names_of_loopback_it_answers(host: str) -> None:
    assert Browser(Server()).get("/api/session", Host=host).status == 200


def test_by_a_name_that_was_given_it_answers() -> None:
    browser = Browser(Server(names=("Console.example.org",)))
    assert browser.get("/", Host="console.example.org:443").status == 200


def test_nobody_has_to_log_in_where_there_are_no_operators() -> None:
    browser = Browser(Server())
    told = browser.arrive()
    assert (told["asks"], told["permission"], told["sends"]) == (False, "operate", True)
    assert browser.get("/api/devices").status == 200
    assert browser.log_in("anna", PASSWORD).status == 404


def test_a_name_is_tried_some_times_only(browser: Browser, server: Server) -> None:
    for number in range(MOST_BY_NAME):
        other = Browser(server, f"192.0.2.{number}")
        other.arrive()
        assert other.log_in("anna", "wrong").status == 401
        server.clock.advance(1)
    refused = browser.log_in("anna", PASSWORD)
    assert refused.status == 429
    assert 0 < int(refused.header("retry-after")) <= PERIOD
    assert browser.log_in("ben", "another password").status == 200
    server.clock.advance(PERIOD - MOST_BY_NAME)
    assert browser.log_in("anna", PASSWORD).status == 200


def test_an_address_tries_some_times_only(browser: Browser, server: Server) -> None:
    for number in range(MOST_BY_ADDRESS):
        assert browser.log_in(f"name-{number}", "wrong").status == 401
    assert browser.log_in("anna", PASSWORD).status == 429
    elsewhere = Browser(server, "192.0.2.7")
    elsewhere.arrive()
    assert elsewhere.log_in("anna", PASSWORD).status == 200


def test_right_passwords_are_no_attempts(browser: Browser) -> None:
    for _ in range(MOST_BY_ADDRESS + MOST_BY_NAME):
        assert browser.log_in("anna", PASSWORD).status == 200


def test_what_is_tried_at_once_counts_as_much(operators: FakeOperators) -> None:
    checked: list[Deferred[Any]] = []
    server = Server(operators, checked=checked)
    browser = Browser(server)
    browser.arrive()
    body = {"name": "anna", "password": "wrong"}
    waiting = [browser.begin("POST", "/api/login", body) for _ in range(MOST_CHECKED + 3)]
    assert len(checked) == MOST_CHECKED
    assert [one.answer().status for one in waiting[MOST_CHECKED:]] == [503] * 3
    for deferred in checked:
        deferred.callback(None)
    assert [one.answer().status for one in waiting[:MOST_CHECKED]] == [401] * MOST_CHECKED
    assert browser.server.clock.seconds() == NOW


@pytest.mark.parametrize("path", ["/api/events", f"/api/devices/{DEVICE}/frames"])
def test_who_is_removed_or_logs_out_is_shown_nothing_more(
    browser: Browser, server: Server, operators: FakeOperators, path: str
) -> None:
    server.broadcast.startService()
    browser.log_in("anna", PASSWORD)
    other = Browser(server)
    other.arrive()
    other.log_in("ben", "another password")
    first, second = browser.begin("GET", path), other.begin("GET", path)
    server.clock.advance(HEARTBEAT)
    assert not first.transport.disconnecting
    assert not second.transport.disconnecting
    browser.post("/api/logout", {})
    del operators.known["ben"]
    server.clock.advance(HEARTBEAT)
    assert first.transport.disconnecting
    assert second.transport.disconnecting
    server.broadcast.stopService()


def test_log_lines_about_failed_logins_are_rate_limited(server: Server) -> None:
    told: list[Any] = []
    observer: Any = told.append
    globalLogPublisher.addObserver(observer)
    try:
        for number in range(MAX_LINES * 3):
            browser = Browser(server, f"192.0.2.{number}")
            browser.arrive()
            browser.log_in(f"name-{number}", "not to be logged")
    finally:
        globalLogPublisher.removeObserver(observer)
    lines = [line for event in told if (line := formatEvent(event)).startswith("login")]
    assert len(lines) == MAX_LINES
    assert lines[0] == "login failed, from 192.0.2.0"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/api/session", "/api/devices", "/api/events"])
def test_a_page_of_somebody_else_is_answered_nothing(site: str, path: str) -> None:
    server = Server()
    browser = Browser(server)
    browser.arrive()
    answer = browser.get(path, Sec_Fetch_Site=site, Cookie=None)
    assert (answer.status, answer.json["error"]) == (403, "not from a page of this console")
    assert "set-cookie" not in answer.headers
    assert server.broadcast.count == 0


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_who_asks_by_themselves_is_answered(site: str) -> None:
    assert Browser(Server()).get("/api/session", Sec_Fetch_Site=site).status == 200
