"""What is answered to each question, and with what headers."""

from __future__ import annotations

from importlib.resources import files

import pytest
from twisted.logger import capturedLogs, eventAsText

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
    browser.arrive()
    return browser


@pytest.mark.parametrize("path", ["/", "/static/none", "/api/session", "/nowhere", "/api/devices"])
def test_every_answer_has_the_headers_that_protect_the_page(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert "default-src 'none'" in answer.header("content-security-policy")
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("cross-origin-opener-policy") == "same-origin"
    assert answer.header("cross-origin-resource-policy") == "same-origin"
    assert answer.header("cache-control") == ("no-cache" if path == "/" else "no-store")
    assert "strict-transport-security" not in answer.headers
    assert "server" not in answer.headers
    assert "content-length" in answer.headers


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    assert policy(None) == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
        "require-trusted-types-for 'script'"
    )


def test_with_tiles_images_may_come_from_their_host_and_nothing_else() -> None:
    tiles = Tiles("https://tile.example.org/a/{z}/{x}/{y}.png?key=1", "© Somebody")
    browser = Browser(Server(tiles=tiles))
    found = browser.get("/").header("content-security-policy")
    assert "img-src 'self' data: https://tile.example.org; connect-src 'self'" in found
    assert browser.arrive()["tiles"] == {"url": tiles.url, "credit": "© Somebody"}


def test_a_file_that_the_browser_has_is_not_sent_again(browser: Browser) -> None:
    answer = browser.get("/", If_None_Match='"1"')
    assert (answer.status, answer.body) == (304, "")


@pytest.mark.parametrize(
    "path", ["/static/..%2f..%2fsite.py", "/static/../site.py", "/static/index.html/", "/static/"]
)
def test_there_are_no_files_but_those_of_the_page(browser: Browser, path: str) -> None:
    assert browser.get(path).status in (404, 308)


def test_the_files_of_the_page_stand_in_the_package() -> None:
    found = static_files()
    assert {"index.html", "console.css", "main.js", "icon.svg"} <= found.keys()
    assert found["main.js"].content_type.startswith("text/javascript")


def test_nothing_in_the_page_makes_markup_of_text_or_asks_anybody_else() -> None:
    for entry in files("tracker.console").joinpath("static").iterdir():
        text = entry.read_text()
        for bad in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert bad not in text, entry.name
        others = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in others, entry.name
        assert "https://" not in others, entry.name
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
def test_what_makes_no_sense_is_told(browser: Browser, method: str, path: str, status: int) -> None:
    answer = browser.ask(method, path)
    assert answer.status == status
    assert answer.json["error"]


def test_a_command_is_sent_by_a_control_port(browser: Browser, server: Server) -> None:
    answer = browser.post("/api/commands", SEND)
    assert (answer.status, answer.json) == (200, {"command_id": "c1", "status": "queued"})
    assert server.ports.sent == [(DEVICE, "getinfo")]
    (known,) = server.commands.latest(1)
    assert (known["text"], known["by"]) == ("getinfo", "somebody on this machine")


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (NotPermitted("your permission is read"), 403),
        (BadArgument("text is too long"), 400),
    ],
)
def test_why_a_command_is_not_sent_is_told(
    browser: Browser, server: Server, refusal: Exception, status: int
) -> None:
    server.ports.refusal = refusal
    answer = browser.post("/api/commands", SEND)
    assert (answer.status, answer.json["error"]) == (status, str(refusal))
    assert server.commands.latest(1) == []


@pytest.mark.parametrize(
    "refusal",
    [
        NoInstance("one: unix:/run/tracker/control.sock: no such file"),
        RedisUnavailable("redis://user@10.0.0.1: no answer"),
        NotConnected("Connection refused by 10.0.0.2"),
        ControlError("Traceback"),
        Refused("NOPERM user console"),
        Unavailable("redis://10.0.0.1"),
        ValueError("/var/lib/tracker"),
    ],
)
def test_what_names_servers_stands_in_the_log_and_not_in_the_answer(
    browser: Browser, server: Server, refusal: Exception
) -> None:
    server.ports.refusal = refusal
    with capturedLogs() as logged:
        answers = [browser.post("/api/commands", SEND) for _ in range(3 * MAX_LINES)]
    (status,) = {answer.status for answer in answers}
    assert status == (500 if isinstance(refusal, ValueError) else 503)
    assert all(answer.json["error"] for answer in answers)
    assert str(refusal) not in answers[0].body
    lines = [event for event in logged if str(refusal) in eventAsText(event)]
    assert len(lines) == MAX_LINES
    assert server.commands.latest(1) == []


@pytest.mark.parametrize(
    "body",
    [
        *({}, [], {"device_id": DEVICE}, {"device_id": DEVICE, "text": ""}, {"text": "x"}),
        *({"device_id": DEVICE, "text": 7}, {"device_id": "3563", "text": "x"}),
        {"device_id": DEVICE, "text": "x" * 4097},
        {"device_id": DEVICE, "text": "half a character: \ud800"},
    ],
)
def test_what_is_no_command_is_not_sent(browser: Browser, server: Server, body: object) -> None:
    assert browser.post("/api/commands", body).status == 400
    assert server.ports.sent == []


def test_a_body_that_is_not_json_is_refused(browser: Browser, server: Server) -> None:
    answer = browser.post("/api/commands", SEND, Content_Type="text/plain")
    assert (answer.status, answer.json["error"]) == (400, "must be JSON")
    assert server.ports.sent == []


def test_brackets_within_brackets_are_no_fault_of_ours(browser: Browser, server: Server) -> None:
    connection = server.connect()
    connection.write("POST", "/api/login", browser.headers(), "[" * (CONSOLE_LIMITS.body - 1))
    answer = connection.answer()
    assert (answer.status, answer.json["error"]) == (400, "must be JSON")


def test_a_body_that_is_too_long_is_not_read(browser: Browser, server: Server) -> None:
    connection = server.connect()
    headers = {**browser.headers(), "Content-Length": str(CONSOLE_LIMITS.body + 1)}
    connection.write("POST", "/api/commands", headers)
    answer = connection.answer()
    assert (answer.status, connection.transport.disconnecting) == (413, True)
    assert answer.json["error"]
    assert answer.header("x-content-type-options") == "nosniff"


def test_a_console_may_be_told_to_send_nothing() -> None:
    server = Server(may_send=False)
    browser = Browser(server)
    assert browser.arrive()["sends"] is False
    assert browser.post("/api/commands", SEND).status == 403
    assert server.ports.sent == []
