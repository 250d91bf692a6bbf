"""Responses of the console, with their header fields."""

from __future__ import annotations

from importlib.resources import files

import pytest
from twisted.logger import capturedLogs, eventAsText

from tests.unit import plainvendor
from tests.unit.console.browsing import DEVICE, Browser, Server
from tracker.console.files import static_files
from tracker.console.ports import NoInstance
from tracker.console.requests import CONSOLE_LIMITS, policy
from tracker.console.site import Tiles
from tracker.control.commands import BadArgument, ControlError, NotPermitted, RedisUnavailable
from tracker.control.connection import NotConnected
from tracker.errors import Refused, Unavailable
from tracker.observe.ratelimit import MAX_LINES

SEND = {"device_id": DEVICE, "text": "getinfo"}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def browser(server: Server) -> Browser:
    browser = Browser(server)
    browser.load_page()
    return browser


@pytest.mark.parametrize("path", ["/", "/static/none", "/api/session", "/nowhere", "/api/devices"])
def test_every_response_has_the_security_headers(browser: Browser, path: str) -> None:
    response = browser.get(path)
    assert "default-src 'none'" in response.header("content-security-policy")
    assert response.header("x-content-type-options") == "nosniff"
    assert response.header("referrer-policy") == "no-referrer"
    assert response.header("cross-origin-opener-policy") == "same-origin"
    assert response.header("cross-origin-resource-policy") == "same-origin"
    assert response.header("cache-control") == ("no-cache" if path == "/" else "no-store")
    assert "strict-transport-security" not in response.headers
    assert "server" not in response.headers
    assert "content-length" in response.headers


def test_content_security_policy_allows_only_the_consoles_own_origin() -> None:
    assert policy(None) == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
        "require-trusted-types-for 'script'"
    )


def test_content_security_policy_allows_images_from_the_host_of_the_tiles() -> None:
    tiles = Tiles("https://tile.example.org/a/{z}/{x}/{y}.png?key=1", "© Example Maps")
    browser = Browser(Server(tiles=tiles))
    found = browser.get("/").header("content-security-policy")
    assert "img-src 'self' data: https://tile.example.org; connect-src 'self'" in found
    assert browser.load_page()["tiles"] == {"url": tiles.url, "credit": "© Example Maps"}


def test_file_that_the_browser_has_cached_is_not_sent_again(browser: Browser) -> None:
    response = browser.get("/", If_None_Match='"1"')
    assert (response.status, response.body) == (304, "")


@pytest.mark.parametrize(
    "path", ["/static/..%2f..%2fsite.py", "/static/../site.py", "/static/index.html/", "/static/"]
)
def test_files_outside_the_static_folder_are_not_served(browser: Browser, path: str) -> None:
    assert browser.get(path).status in (404, 308)


def test_static_files_are_in_the_package() -> None:
    found = static_files()
    assert {"index.html", "console.css", "main.js", "icon.svg"} <= found.keys()
    assert found["main.js"].content_type.startswith("text/javascript")


def test_page_neither_parses_markup_nor_contacts_other_hosts() -> None:
    for entry in files("tracker.console").joinpath("static").iterdir():
        text = entry.read_text()
        for bad in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert bad not in text, entry.name
        without_namespace = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in without_namespace, entry.name
        assert "https://" not in without_namespace, entry.name
        assert " style=" not in text, entry.name


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("POST", "/api/devices", 405), ("GET", "/api/login", 405), ("GET", "/api/commands", 405)),
        *(("DELETE", "/", 405), ("GET", "/api", 404), ("GET", "/metrics", 404)),
        ("GET", "/api/devices/35630704244101x", 400),
        ("GET", "/api/devices/356307042441013%00", 400),
        ("GET", "/api/devices?limit=many", 400),
        ("GET", "/api/devices?text=*", 400),
        ("GET", f"/api/devices/{DEVICE}/track?hours=0", 400),
        ("GET", f"/api/devices/{DEVICE}/track?hours=169", 400),
        ("GET", f"/api/devices/{DEVICE}/track?hours=nan", 400),
        ("GET", f"/api/devices/{DEVICE}/track?hours=6", 503),
        ("GET", "/api/commands/%20", 400),
    ],
)
def test_response_to_a_request_that_cannot_be_served_has_an_error(
    browser: Browser, method: str, path: str, status: int
) -> None:
    response = browser.request(method, path)
    assert response.status == status
    assert response.json["error"]


def test_command_is_sent_through_a_control_port(browser: Browser, server: Server) -> None:
    response = browser.post("/api/commands", SEND)
    assert (response.status, response.json) == (200, {"command_id": "c1", "status": "queued"})
    assert server.ports.sent == [(DEVICE, "getinfo")]
    (known,) = server.commands.latest(1)
    assert (known["text"], known["by"]) == ("getinfo", "local user")


def test_device_id_in_a_request_is_normalised(
    browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainvendor.install(monkeypatch)
    assert browser.post("/api/commands", {"device_id": "00af", "text": "x"}).status == 200
    assert server.ports.sent == [("00AF", "x")]


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (NotPermitted("your permission is read"), 403),
        (BadArgument("text is too long"), 400),
    ],
)
def test_refusal_of_a_command_is_in_the_response(
    browser: Browser, server: Server, refusal: Exception, status: int
) -> None:
    server.ports.refusal = refusal
    response = browser.post("/api/commands", SEND)
    assert (response.status, response.json["error"]) == (status, str(refusal))
    assert server.commands.latest(1) == []


@pytest.mark.parametrize(
    "refusal",
    [
        NoInstance("one: unix:/run/tracker/control.sock: no such file"),
        RedisUnavailable("redis://user@10.0.0.1: no response"),
        NotConnected("Connection refused by 10.0.0.2"),
        ControlError("Traceback"),
        Refused("NOPERM user console"),
        Unavailable("redis://10.0.0.1"),
        ValueError("/var/lib/tracker"),
    ],
)
def test_error_that_names_servers_is_logged_and_not_in_the_response(
    browser: Browser, server: Server, refusal: Exception
) -> None:
    server.ports.refusal = refusal
    with capturedLogs() as logged:
        responses = [browser.post("/api/commands", SEND) for _ in range(3 * MAX_LINES)]
    (status,) = {response.status for response in responses}
    assert status == (500 if isinstance(refusal, ValueError) else 503)
    assert all(response.json["error"] for response in responses)
    assert str(refusal) not in responses[0].body
    lines = [event for event in logged if str(refusal) in eventAsText(event)]
    assert len(lines) == MAX_LINES
    assert server.commands.latest(1) == []


@pytest.mark.parametrize(
    "body",
    [
        *({}, [], {"device_id": DEVICE}, {"device_id": DEVICE, "text": ""}, {"text": "x"}),
        *({"device_id": DEVICE, "text": 7}, {"device_id": "3563", "text": "x"}),
        {"device_id": DEVICE, "text": "x" * 4097},
        {"device_id": DEVICE, "text": "unpaired surrogate: \ud800"},
    ],
)
def test_malformed_command_is_not_sent(browser: Browser, server: Server, body: object) -> None:
    assert browser.post("/api/commands", body).status == 400
    assert server.ports.sent == []


def test_body_that_is_not_json_is_refused(browser: Browser, server: Server) -> None:
    response = browser.post("/api/commands", SEND, Content_Type="text/plain")
    assert (response.status, response.json["error"]) == (400, "the body must be JSON")
    assert server.ports.sent == []


def test_deeply_nested_json_is_refused(browser: Browser, server: Server) -> None:
    connection = server.connect()
    connection.write("POST", "/api/login", browser.headers(), "[" * (CONSOLE_LIMITS.body - 1))
    response = connection.response()
    assert (response.status, response.json["error"]) == (400, "the body must be JSON")


def test_body_that_is_too_long_is_refused(browser: Browser, server: Server) -> None:
    connection = server.connect()
    headers = {**browser.headers(), "Content-Length": str(CONSOLE_LIMITS.body + 1)}
    connection.write("POST", "/api/commands", headers)
    response = connection.response()
    assert (response.status, connection.transport.disconnecting) == (413, True)
    assert response.json["error"]
    assert response.header("x-content-type-options") == "nosniff"


def test_command_is_sent_in_the_codec_that_was_chosen(browser: Browser) -> None:
    for codec in ("14", "", None):
        assert browser.post("/api/commands", {**SEND, "codec": codec}).status == 200
    assert browser.post("/api/commands", SEND).status == 200
    assert browser.server.ports.codecs == ["14", None, None, None]
    assert browser.post("/api/commands", {**SEND, "codec": 14}).status == 400


def test_console_that_may_not_send_refuses_commands() -> None:
    server = Server(may_send=False)
    browser = Browser(server)
    assert browser.load_page()["can_send"] is False
    assert browser.post("/api/commands", SEND).status == 403
    assert server.ports.sent == []
