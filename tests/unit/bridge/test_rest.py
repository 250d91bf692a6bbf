"""The client of Directus, with a Directus that is in trouble."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionRefusedError, DNSLookupError  # noqa: A004
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.web._newclient import RequestNotSent
from twisted.web.iweb import IAgent
from zope.interface import implementer

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.double import BRIDGE_TOKEN, Trouble
from tracker.bridge.rest import (
    LARGEST_ANSWER,
    LONGEST_MESSAGE,
    DirectusClient,
    DirectusDenied,
    DirectusDown,
    DirectusError,
    DirectusRefused,
    DirectusTooLong,
    checked_token,
    checked_url,
)


def failed(deferred: Deferred[Any]) -> Any:
    """What it has failed with."""
    caught: list[Failure] = []
    deferred.addErrback(caught.append)
    assert caught, "it has not failed"
    return caught[0].value


def ask(subject: Doubled) -> Deferred[Any]:
    return Deferred.fromCoroutine(subject.bridge.get_items("commands"))


def error_of(subject: Doubled, trouble: Trouble) -> Any:
    subject.double.troubles.append(trouble)
    return failed(ask(subject))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 425])
def test_what_may_go_well_later(subject: Doubled, status: int) -> None:
    error = error_of(subject, Trouble(status, "UNDER_PRESSURE", "Under pressure."))
    assert type(error) is DirectusDown
    assert (error.status, error.code, error.retry_after) == (status, "UNDER_PRESSURE", None)
    assert str(error) == f"SEARCH /items/commands: {status} Under pressure."


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (" 1.5 ", 1.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("Thu, 99 Foo", None),
        ("", None),
    ],
)
def test_how_long_it_wants_to_be_left_alone(
    subject: Doubled, value: str, seconds: float | None
) -> None:
    subject.clock.advance(40)
    error = error_of(subject, Trouble(429, headers={"Retry-After": value}))
    assert type(error) is DirectusDown
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [401, 403])
def test_what_it_does_not_allow(subject: Doubled, status: int) -> None:
    error = error_of(subject, Trouble(status, "FORBIDDEN", "No."))
    assert type(error) is DirectusDenied
    assert (error.status, error.code) == (status, "FORBIDDEN")


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_what_it_refuses(subject: Doubled, status: int) -> None:
    error = error_of(subject, Trouble(status, "FAILED_VALIDATION", "Nonsense."))
    assert type(error) is DirectusRefused
    assert (error.status, error.code) == (status, "FAILED_VALIDATION")
    assert str(error) == f"SEARCH /items/commands: {status} Nonsense."


def test_a_token_is_not_carried_elsewhere(subject: Doubled) -> None:
    elsewhere = {"Location": "http://elsewhere.example/items/commands"}
    error = error_of(subject, Trouble(302, headers=elsewhere, body=b""))
    assert type(error) is DirectusRefused
    assert "only Directus' own address" in str(error)
    assert len(subject.double.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Bad gateway</html>",
        b'{"data": [',
        b"\xff",
        b"[" * 100_000,
        b'{"data": 1}',
        b'{"data": [1]}',
        b"3",
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
def test_an_answer_that_is_none(subject: Doubled, body: bytes) -> None:
    assert type(error_of(subject, Trouble(200, body=body))) is DirectusDown


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"errors": []}', b'{"errors": [1]}', b'{"errors": {"a": 1}}'],
)
def test_an_error_that_says_nothing(subject: Doubled, body: bytes) -> None:
    error = error_of(subject, Trouble(400, body=body))
    assert type(error) is DirectusRefused
    assert (str(error), error.code) == ("SEARCH /items/commands: 400", "")


def test_what_it_says_is_one_short_line_without_the_token(subject: Doubled) -> None:
    message = f"Bad\r\n\tquery\x1b[31m {BRIDGE_TOKEN} " + "x" * 1000
    with capturedLogs() as events:
        error = error_of(subject, Trouble(400, message=message))
    text = str(error)
    assert text.startswith("SEARCH /items/commands: 400 Bad query?[31m … xxx")
    assert text.isprintable()
    assert len(text) == LONGEST_MESSAGE + 1
    assert BRIDGE_TOKEN not in repr(error) + repr(subject.bridge) + str(list(events))


def test_an_answer_that_is_too_long(subject: Doubled) -> None:
    body = json.dumps({"data": "x" * LARGEST_ANSWER}).encode()
    error = error_of(subject, Trouble(200, body=body))
    assert type(error) is DirectusTooLong
    assert str(error) == f"SEARCH /items/commands: more than {LARGEST_ANSWER:,} bytes"


def test_an_answer_that_is_as_long_as_it_may_be(subject: Doubled) -> None:
    body = json.dumps({"data": []}).encode()
    subject.double.troubles.append(Trouble(200, body=body.ljust(LARGEST_ANSWER)))
    results: list[Any] = []
    ask(subject).addCallback(results.append)
    assert results == [[]]


def test_no_answer(subject: Doubled) -> None:
    subject.double.silent = True
    asked = ask(subject)
    assert subject.double.waiting == 1
    subject.clock.advance(9.9)
    assert not asked.called
    subject.clock.advance(0.1)
    error = failed(asked)
    assert type(error) is DirectusDown
    assert str(error) == "SEARCH /items/commands: no response within 10 s"
    assert error.status is None
    subject.agent.flush()
    assert subject.double.waiting == 0, "the connection was closed"
    assert not subject.clock.getDelayedCalls()


def test_an_answer_that_does_not_end(subject: Doubled) -> None:
    subject.double.troubles.append(Trouble(200, body=b'{"da', complete=False))
    asked = ask(subject)
    subject.clock.advance(10)
    assert str(failed(asked)) == "SEARCH /items/commands: no response within 10 s"


def test_a_late_answer_is_one(subject: Doubled) -> None:
    subject.double.silent = True
    results: list[Any] = []
    ask(subject).addCallback(results.append)
    subject.clock.advance(9)
    subject.double.speak()
    subject.agent.flush()
    assert results == [[]]
    assert not subject.clock.getDelayedCalls()


def test_who_asks_may_lose_interest(subject: Doubled) -> None:
    subject.double.silent = True
    asked = ask(subject)
    asked.cancel()
    assert type(failed(asked)) is CancelledError
    subject.agent.flush()
    assert subject.double.waiting == 0
    assert not subject.clock.getDelayedCalls()


@implementer(IAgent)
class Broken:
    """An agent that cannot connect."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Any = None,
        bodyProducer: Any = None,  # noqa: N803
    ) -> Any:
        return fail(self._error)


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError(), DNSLookupError("no such name"), RequestNotSent("was closed")],
    ids=lambda error: type(error).__name__,
)
def test_nobody_is_there(error: Exception) -> None:
    client = DirectusClient(Clock(), "http://directus.example", "token", agent=Broken(error))
    caught = failed(Deferred.fromCoroutine(client.get_items("commands")))
    assert type(caught) is DirectusDown
    assert str(caught) == f"SEARCH /items/commands: {error}"


def test_the_name_of_a_collection_is_quoted(subject: Doubled) -> None:
    asked = subject.admin.update_where("../users?x#y", {}, {})
    assert isinstance(failed(Deferred.fromCoroutine(asked)), DirectusError)
    assert [path for _, path, _ in subject.double.asked] == ["/items/..%2Fusers%3Fx%23y"]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8055", "http://127.0.0.1:8055"),
        ("https://directus.example/sub/", "https://directus.example/sub"),
        ("http://[::1]:8055/", "http://[::1]:8055"),
    ],
)
def test_a_url(text: str, url: str) -> None:
    assert checked_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "directus", "ftp://host", "http://", "http://:8055", "http://host:x", "http://[::1"),
        *("http://host:99999", "http://ho st", "http://host/\n", "http://me:secret@host"),
        *("http://host?x", "http://host#x"),
    ],
)
def test_a_url_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="must ") as caught:
        checked_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "ä", "a\x00"])
def test_a_token_that_makes_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="the token must be "):
        checked_token(text)


def test_who_is_cancelled_while_it_connects_is_told_so() -> None:
    reactor: Any = MemoryReactorClock()
    client = DirectusClient(reactor, "http://127.0.0.1:8055", BRIDGE_TOKEN)
    asked = Deferred.fromCoroutine(client.get_items("commands"))
    assert reactor.tcpClients
    asked.cancel()
    failures: list[Failure] = []
    asked.addErrback(failures.append)
    assert failures[0].type is CancelledError
