"""Access to the console: logins, cookies, tokens, host names and limits."""

from __future__ import annotations

from hashlib import scrypt
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from tests.unit.console.browsing import DEVICE, HOST, NOW, Browser, FakeOperators, Server
from tracker.console.access import (
    ATTEMPT_PERIOD,
    MAX_ATTEMPTS_BY_ADDRESS,
    MAX_ATTEMPTS_BY_BROWSER,
    MAX_ATTEMPTS_BY_NAME,
    MAX_CONCURRENT_CHECKS,
    PACE,
)
from tracker.console.events import KEEPALIVE_INTERVAL
from tracker.console.operators import Operator, PasswordHash
from tracker.console.sessions import KNOWN_LIFETIME, SESSION_LIFETIME
from tracker.observe.ratelimit import MAX_LINES

PASSWORD = "correct horse battery"


def cheap(password: str) -> PasswordHash:
    """Return a hash that is fast to compute."""
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
    browser.load_page()
    return browser


PATHS = (
    *("/api/events", "/api/devices", f"/api/devices/{DEVICE}", f"/api/devices/{DEVICE}/track"),
    *(f"/api/devices/{DEVICE}/frames", "/api/commands/c1"),
)


@pytest.mark.parametrize("path", PATHS)
def test_every_request_for_data_requires_a_login(browser: Browser, path: str) -> None:
    response = browser.get(path)
    assert (response.status, response.json["error"]) == (401, "log in first")


def test_page_and_session_are_available_without_a_login(browser: Browser) -> None:
    assert browser.get("/").status == 200
    session = browser.load_page()
    assert session["login_required"] is True
    assert (session["operator"], session["permission"]) == (None, "")
    assert "tiles" not in session


def test_login_starts_a_session(browser: Browser) -> None:
    before = dict(browser.cookies)
    response = browser.log_in("anna", PASSWORD)
    assert (response.status, response.json["operator"], response.json["permission"]) == (
        200,
        "anna",
        "operate",
    )
    cookie, known = response.headers["set-cookie"]
    assert all("HttpOnly" in one and "SameSite=strict" in one for one in (cookie, known))
    assert f"Max-Age={SESSION_LIFETIME:.0f}" in cookie
    assert f"Max-Age={KNOWN_LIFETIME:.0f}" in known
    assert "Secure" not in cookie
    assert browser.cookies != before
    assert browser.get("/api/devices").status == 200


def test_cookie_over_tls_is_restricted_to_tls_and_this_host(operators: FakeOperators) -> None:
    browser = Browser(Server(operators, secure=True))
    browser.load_page()
    response = browser.log_in("anna", PASSWORD)
    cookie, known = response.headers["set-cookie"]
    assert cookie.startswith("__Host-tracker-9120=")
    assert known.startswith("__Host-tracker-9120-known=")
    for one in (cookie, known):
        assert "Secure" in one
        assert "Path=/" in one
        assert "Domain" not in one
    # For a name of loopback, HSTS would apply to all ports of this machine.
    assert "strict-transport-security" not in response.headers
    elsewhere = browser.get("/", Host="console.example.org")
    assert elsewhere.header("strict-transport-security") == "max-age=31536000"


@pytest.mark.parametrize(
    ("name", "password"), [("anna", "wrong"), ("unknown", PASSWORD), ("ben", PASSWORD)]
)
def test_wrong_name_and_wrong_password_have_the_same_response(
    browser: Browser, name: str, password: str
) -> None:
    response = browser.log_in(name, password)
    assert (response.status, response.json["error"]) == (401, "wrong name or password")
    assert browser.get("/api/devices").status == 401


def test_password_of_an_unknown_name_is_hashed_too(operators: FakeOperators) -> None:
    checked = []

    class Counting(PasswordHash):
        def matches(self, password: str) -> bool:
            checked.append(password)
            return super().matches(password)

    hashed = ANNA.password
    counting = Counting(hashed.log2_n, hashed.r, hashed.p, hashed.salt, hashed.key)
    browser = Browser(Server(FakeOperators(evolve(ANNA, password=counting))))
    browser.load_page()
    browser.log_in("anna", "wrong one")
    browser.log_in("unknown", "wrong two")
    assert checked == ["wrong one", "wrong two"]


def test_session_expires_after_its_lifetime(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    browser.server.clock.advance(SESSION_LIFETIME - 1)
    assert browser.get("/api/devices").status == 200
    browser.server.clock.advance(1)
    assert browser.get("/api/devices").status == 401


def test_logout_ends_the_session(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    kept = dict(browser.cookies)
    assert browser.post("/api/logout", {}).status == 200
    assert browser.get("/api/devices").status == 401
    browser.cookies = kept
    assert browser.get("/api/devices").status == 401


def test_login_ends_the_previous_session(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    former = dict(browser.cookies)
    browser.log_in("ben", "another password")
    assert browser.load_page()["operator"] == "ben"
    browser.cookies = former
    assert browser.get("/api/devices").status == 401


def test_session_ends_when_its_operator_is_removed_or_changes_password(
    browser: Browser, operators: FakeOperators
) -> None:
    browser.log_in("anna", PASSWORD)
    operators.known["anna"] = evolve(ANNA, password=cheap("a new password"))
    assert browser.get("/api/devices").status == 401
    operators.known["anna"] = ANNA
    assert browser.get("/api/devices").status == 200
    del operators.known["anna"]
    assert browser.get("/api/devices").status == 401


def test_changed_permission_applies_to_open_sessions(
    browser: Browser, operators: FakeOperators
) -> None:
    browser.log_in("anna", PASSWORD)
    assert browser.post("/api/commands", SEND).status == 200
    operators.known["anna"] = evolve(ANNA, permission="read")
    assert browser.post("/api/commands", SEND).status == 403


def test_altered_cookie_is_refused(browser: Browser) -> None:
    browser.log_in("anna", PASSWORD)
    name, _ = browser.cookies
    value = browser.cookies[name]
    for number in range(0, len(value), 7):
        other = "A" if value[number] != "A" else "B"
        browser.cookies[name] = f"{value[:number]}{other}{value[number + 1 :]}"
        assert browser.get("/api/devices").status == 401, number
    browser.cookies[name] = value
    assert browser.get("/api/devices").status == 200


def test_cookie_signed_with_another_key_is_refused(
    browser: Browser, operators: FakeOperators
) -> None:
    browser.log_in("anna", PASSWORD)
    other = Browser(Server(operators, key=b"x" * 32))
    other.cookies = browser.cookies
    assert other.get("/api/devices").status == 401


def test_token_is_not_accepted_as_the_signature_of_a_cookie(browser: Browser) -> None:
    (name,) = browser.cookies
    text, _, _ = browser.cookies[name].partition(".")
    browser.cookies[name] = f"{text}.{browser.token}"
    assert browser.get("/api/devices").status == 401


def test_operator_with_permission_read_cannot_send_commands(browser: Browser) -> None:
    assert browser.log_in("ben", "another password").json["can_send"] is False
    response = browser.post("/api/commands", SEND)
    assert (response.status, browser.server.ports.sent) == (403, [])


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
@pytest.mark.parametrize("login_required", [True, False])
def test_change_requires_the_origin_and_token_of_the_page(
    operators: FakeOperators, headers: dict[str, str | None], login_required: bool
) -> None:
    server = Server(operators if login_required else None)
    browser = Browser(server)
    browser.load_page()
    if login_required:
        assert browser.log_in("anna", PASSWORD).status == 200
    for path, body in (("/api/commands", SEND), ("/api/logout", {})):
        assert browser.post(path, body, **headers).status == 403
    assert server.ports.sent == []
    assert browser.post("/api/commands", SEND).status == 200


def test_login_requires_the_origin_and_token_of_the_page(browser: Browser) -> None:
    body = {"name": "anna", "password": PASSWORD}
    assert browser.post("/api/login", body, Origin="http://evil.example").status == 403
    assert browser.post("/api/login", body, X_CSRF_Token=None).status == 403
    assert browser.post("/api/login", body).status == 200


def test_token_of_another_session_is_refused(browser: Browser, server: Server) -> None:
    other = Browser(server)
    other.load_page()
    browser.log_in("anna", PASSWORD)
    assert browser.post("/api/commands", SEND, X_CSRF_Token=other.token).status == 403


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9120", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("[::1]evil", "127.0.0.1:9120, evil", "", "0.0.0.0:9120", "169.254.1.1:9120"),
    ],
)
def test_request_for_another_host_is_refused(host: str) -> None:
    server = Server()
    for path in ("/", "/api/session", "/api/devices"):
        response = Browser(server).get(path, Host=host)
        # Twisted itself refuses a request with an empty Host.
        assert response.status in (400, 421)
        assert "set-cookie" not in response.headers


@pytest.mark.parametrize("host", [HOST, "localhost", "LOCALHOST:80", "[::1]:9120"])
def test_request_with_a_host_name_of_loopback_is_accepted(host: str) -> None:
    assert Browser(Server()).get("/api/session", Host=host).status == 200


def test_request_with_a_configured_host_name_is_accepted() -> None:
    browser = Browser(Server(names=("Console.example.org",)))
    assert browser.get("/", Host="console.example.org:443").status == 200


def test_console_without_operators_requires_no_login() -> None:
    browser = Browser(Server())
    session = browser.load_page()
    assert (session["login_required"], session["permission"], session["can_send"]) == (
        False,
        "operate",
        True,
    )
    assert browser.get("/api/devices").status == 200
    assert browser.log_in("anna", PASSWORD).status == 404


def stranger(server: Server, number: int) -> Browser:
    """Return a browser at an address of its own, which has never logged in."""
    browser = Browser(server, f"192.0.{number // 200}.{number % 200}")
    browser.load_page()
    return browser


def attack(server: Server, seconds: int, *, first: int = 0) -> int:
    """Try passwords for a name, each from a new address; return the number that was checked."""
    statuses = []
    for number in range(first, first + seconds):
        statuses.append(stranger(server, number).log_in("anna", "wrong").status)
        server.clock.advance(1)
    assert set(statuses) <= {401, 429}
    return statuses.count(401)


def test_attempts_for_one_name_from_many_addresses_are_slowed_down(server: Server) -> None:
    checked = attack(server, 100)
    assert checked == MAX_ATTEMPTS_BY_NAME + (100 - MAX_ATTEMPTS_BY_NAME) // PACE


def test_operator_at_a_new_browser_is_not_locked_out_by_failures_of_others(server: Server) -> None:
    attack(server, 60)
    owner = stranger(server, 1000)
    refused = owner.log_in("anna", PASSWORD)
    assert refused.status in (200, 429)
    assert stranger(server, 1001).log_in("ben", "another password").status == 200
    server.clock.advance(PACE)
    assert owner.log_in("anna", PASSWORD).status == 200


def test_known_browser_logs_in_whatever_others_do(server: Server) -> None:
    owner = stranger(server, 1000)
    assert owner.log_in("anna", PASSWORD).status == 200
    owner.post("/api/logout", {})
    attack(server, 60)
    for _ in range(MAX_ATTEMPTS_BY_ADDRESS):  # from the owner's own address
        other = Browser(server, owner.peer)
        other.load_page()
        other.log_in("nobody", "wrong")
    owner.load_page()
    assert owner.log_in("anna", PASSWORD).status == 200


def test_attempts_of_a_known_browser_are_limited(server: Server) -> None:
    owner = stranger(server, 1000)
    owner.log_in("anna", PASSWORD)
    statuses = [owner.log_in("anna", "wrong").status for _ in range(MAX_ATTEMPTS_BY_BROWSER + 2)]
    assert statuses == [401] * MAX_ATTEMPTS_BY_BROWSER + [429] * 2


def test_browser_is_known_for_its_name_and_password_only(
    server: Server, operators: FakeOperators
) -> None:
    owner = stranger(server, 1000)
    owner.log_in("anna", PASSWORD)
    attack(server, 60)
    (name,) = [name for name in owner.cookies if name.endswith("-known")]
    stranger(server, 1002).log_in("anna", "wrong")  # the only attempt that is admitted now
    forger = stranger(server, 1001)
    forger.cookies[name] = owner.cookies[name][:-1] + "x"
    assert forger.log_in("anna", "wrong").status == 429
    operators.known["anna"] = evolve(ANNA, password=cheap("a new password"))
    assert owner.log_in("anna", "a new password").status == 429
    server.clock.advance(KNOWN_LIFETIME)
    assert owner.server.parts.access._sessions.read_known(owner.cookies[name]) is None


def test_attempts_from_one_address_are_limited(server: Server) -> None:
    browser = stranger(server, 1)
    for number in range(MAX_ATTEMPTS_BY_ADDRESS):
        assert browser.log_in(f"name-{number}", "wrong").status == 401
    refused = browser.log_in("anna", PASSWORD)
    assert refused.status == 429
    assert PACE < int(refused.header("retry-after")) <= ATTEMPT_PERIOD
    assert stranger(server, 2).log_in("anna", PASSWORD).status == 200


def test_attempts_from_one_address_for_one_name_are_limited(server: Server) -> None:
    browser = stranger(server, 1)
    statuses = [browser.log_in("anna", "wrong").status for _ in range(MAX_ATTEMPTS_BY_NAME)]
    server.clock.advance(PACE)
    assert [*statuses, browser.log_in("anna", PASSWORD).status] == [
        *[401] * MAX_ATTEMPTS_BY_NAME,
        429,
    ]
    assert browser.log_in("ben", "another password").status == 200


def test_attempts_through_a_local_proxy_are_slowed_down(browser: Browser, server: Server) -> None:
    for number in range(MAX_ATTEMPTS_BY_ADDRESS):
        assert browser.log_in(f"name-{number}", "wrong").status == 401
    assert browser.log_in("name-x", "wrong").status == 401
    assert browser.log_in("anna", PASSWORD).status == 429
    server.clock.advance(PACE)
    assert browser.log_in("anna", PASSWORD).status == 200


def test_one_check_is_kept_for_known_browsers(operators: FakeOperators) -> None:
    checked: list[Deferred[Any]] = []
    server = Server(operators, checked=checked)
    owner = stranger(server, 1)
    login = owner.start_request("POST", "/api/login", {"name": "anna", "password": PASSWORD})
    checked[0].callback(None)
    for cookie in login.response().headers["set-cookie"]:
        name, _, value = cookie.partition(";")[0].partition("=")
        owner.cookies[name] = value
    owner.load_page()
    body = {"name": "nobody", "password": "wrong"}
    others = [stranger(server, n).start_request("POST", "/api/login", body) for n in range(2, 8)]
    assert others[-1].response().status == 503
    again = owner.start_request("POST", "/api/login", {"name": "anna", "password": PASSWORD})
    checked[-1].callback(None)
    assert again.response().status == 200
    for waiting in checked[1:-1]:
        waiting.callback(None)


def test_successful_logins_are_not_limited(browser: Browser) -> None:
    for _ in range(MAX_ATTEMPTS_BY_ADDRESS + MAX_ATTEMPTS_BY_NAME):
        assert browser.log_in("anna", PASSWORD).status == 200


def test_parallel_attempts_are_limited(operators: FakeOperators) -> None:
    limit = MAX_CONCURRENT_CHECKS - 1
    checked: list[Deferred[Any]] = []
    server = Server(operators, checked=checked)
    browser = Browser(server)
    browser.load_page()
    body = {"name": "anna", "password": "wrong"}
    waiting = [browser.start_request("POST", "/api/login", body) for _ in range(limit + 3)]
    assert len(checked) == limit
    assert [one.response().status for one in waiting[limit:]] == [503] * 3
    for deferred in checked:
        deferred.callback(None)
    assert [one.response().status for one in waiting[:limit]] == [401] * limit
    assert browser.server.clock.seconds() == NOW


@pytest.mark.parametrize("path", ["/api/events", f"/api/devices/{DEVICE}/frames"])
def test_event_streams_end_when_their_operator_is_removed_or_logs_out(
    browser: Browser, server: Server, operators: FakeOperators, path: str
) -> None:
    server.broadcast.startService()
    browser.log_in("anna", PASSWORD)
    other = Browser(server)
    other.load_page()
    other.log_in("ben", "another password")
    first, second = browser.start_request("GET", path), other.start_request("GET", path)
    server.clock.advance(KEEPALIVE_INTERVAL)
    assert not first.transport.disconnecting
    assert not second.transport.disconnecting
    browser.post("/api/logout", {})
    del operators.known["ben"]
    server.clock.advance(KEEPALIVE_INTERVAL)
    assert first.transport.disconnecting
    assert second.transport.disconnecting
    server.broadcast.stopService()


def test_log_lines_about_failed_logins_are_rate_limited(server: Server) -> None:
    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    try:
        for number in range(MAX_LINES * 3):
            browser = Browser(server, f"192.0.2.{number}")
            browser.load_page()
            browser.log_in(f"name-{number}", "not to be logged")
    finally:
        globalLogPublisher.removeObserver(observer)
    lines = [line for event in events if (line := formatEvent(event)).startswith("login")]
    assert len(lines) == MAX_LINES
    assert lines[0] == "login from 192.0.2.0 refused: wrong name or password"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/api/session", "/api/devices", "/api/events"])
def test_request_of_another_sites_page_is_refused(site: str, path: str) -> None:
    server = Server()
    browser = Browser(server)
    browser.load_page()
    response = browser.get(path, Sec_Fetch_Site=site, Cookie=None)
    assert response.status == 403
    assert "set-cookie" not in response.headers
    assert server.broadcast.count == 0


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_request_of_the_page_or_the_user_is_accepted(site: str) -> None:
    assert Browser(Server()).get("/api/session", Sec_Fetch_Site=site).status == 200
