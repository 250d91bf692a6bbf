"""The client of Directus, and the errors of Directus."""

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
from tests.unit.bridge.double import BRIDGE_TOKEN, CannedResponse
from tracker.bridge.rest import (
    MAX_MESSAGE_LENGTH,
    MAX_RESPONSE_BYTES,
    DirectusClient,
    DirectusDenied,
    DirectusDown,
    DirectusError,
    DirectusRefused,
    DirectusTooLong,
    DirectusUnreachable,
    checked_token,
    checked_url,
)


def failure_of(deferred: Deferred[Any]) -> Any:
    """Return the exception with which a Deferred has failed."""
    caught: list[Failure] = []
    deferred.addErrback(caught.append)
    assert caught, "the Deferred has not failed"
    return caught[0].value


def query(subject: Doubled) -> Deferred[Any]:
    return Deferred.fromCoroutine(subject.bridge.get_items("commands"))


def error_of(subject: Doubled, canned: CannedResponse) -> Any:
    subject.double.canned.append(canned)
    return failure_of(query(subject))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 425])
def test_temporary_error_raises_directus_down(subject: Doubled, status: int) -> None:
    error = error_of(subject, CannedResponse(status, "UNDER_PRESSURE", "Under pressure."))
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
def test_retry_after_is_parsed(subject: Doubled, value: str, seconds: float | None) -> None:
    subject.clock.advance(40)
    error = error_of(subject, CannedResponse(429, headers={"Retry-After": value}))
    assert type(error) is DirectusDown
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [401, 403])
def test_missing_permission_raises_directus_denied(subject: Doubled, status: int) -> None:
    error = error_of(subject, CannedResponse(status, "FORBIDDEN", "No."))
    assert type(error) is DirectusDenied
    assert (error.status, error.code) == (status, "FORBIDDEN")


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_invalid_request_raises_directus_refused(subject: Doubled, status: int) -> None:
    error = error_of(subject, CannedResponse(status, "FAILED_VALIDATION", "Nonsense."))
    assert type(error) is DirectusRefused
    assert (error.status, error.code) == (status, "FAILED_VALIDATION")
    assert str(error) == f"SEARCH /items/commands: {status} Nonsense."


def test_client_does_not_follow_a_redirect(subject: Doubled) -> None:
    elsewhere = {"Location": "http://elsewhere.example/items/commands"}
    error = error_of(subject, CannedResponse(302, headers=elsewhere, body=b""))
    assert type(error) is DirectusRefused
    assert error.status == 302
    assert len(subject.double.requests) == 1


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
def test_malformed_response_raises_directus_down(subject: Doubled, body: bytes) -> None:
    assert type(error_of(subject, CannedResponse(200, body=body))) is DirectusDown


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"errors": []}', b'{"errors": [1]}', b'{"errors": {"a": 1}}'],
)
def test_error_response_without_a_message_is_reported_by_its_status_code(
    subject: Doubled, body: bytes
) -> None:
    error = error_of(subject, CannedResponse(400, body=body))
    assert type(error) is DirectusRefused
    assert (str(error), error.code) == ("SEARCH /items/commands: 400", "")


def test_error_text_is_one_short_line_without_the_token(subject: Doubled) -> None:
    message = f"Bad\r\n\tquery\x1b[31m {BRIDGE_TOKEN} " + "x" * 1000
    with capturedLogs() as events:
        error = error_of(subject, CannedResponse(400, message=message))
    text = str(error)
    assert text.startswith("SEARCH /items/commands: 400 Bad query?[31m … xxx")
    assert text.isprintable()
    assert len(text) == MAX_MESSAGE_LENGTH + 1
    assert BRIDGE_TOKEN not in repr(error) + repr(subject.bridge) + str(list(events))


def test_response_beyond_the_size_limit_is_refused(subject: Doubled) -> None:
    body = json.dumps({"data": "x" * MAX_RESPONSE_BYTES}).encode()
    error = error_of(subject, CannedResponse(200, body=body))
    assert type(error) is DirectusTooLong
    assert str(error) == f"SEARCH /items/commands: more than {MAX_RESPONSE_BYTES:,} bytes"


def test_response_at_the_size_limit_is_accepted(subject: Doubled) -> None:
    body = json.dumps({"data": []}).encode()
    subject.double.canned.append(CannedResponse(200, body=body.ljust(MAX_RESPONSE_BYTES)))
    results: list[Any] = []
    query(subject).addCallback(results.append)
    assert results == [[]]


def test_request_without_a_response_times_out(subject: Doubled) -> None:
    subject.double.silent = True
    deferred = query(subject)
    assert subject.double.waiting == 1
    subject.clock.advance(9.9)
    assert not deferred.called
    subject.clock.advance(0.1)
    error = failure_of(deferred)
    assert type(error) is DirectusUnreachable
    assert str(error) == (
        "Directus at http://directus.example:8055: SEARCH /items/commands: no response within 10s"
    )
    assert error.status is None
    subject.agent.flush()
    assert subject.double.waiting == 0, "the connection is still open"
    assert not subject.clock.getDelayedCalls()


def test_response_that_does_not_end_times_out(subject: Doubled) -> None:
    subject.double.canned.append(CannedResponse(200, body=b'{"da', complete=False))
    deferred = query(subject)
    subject.clock.advance(10)
    assert "commands: no response within 10s" in str(failure_of(deferred))


def test_response_before_the_timeout_is_returned(subject: Doubled) -> None:
    subject.double.silent = True
    results: list[Any] = []
    query(subject).addCallback(results.append)
    subject.clock.advance(9)
    subject.double.resume()
    subject.agent.flush()
    assert results == [[]]
    assert not subject.clock.getDelayedCalls()


def test_request_can_be_cancelled(subject: Doubled) -> None:
    subject.double.silent = True
    deferred = query(subject)
    deferred.cancel()
    assert type(failure_of(deferred)) is CancelledError
    subject.agent.flush()
    assert subject.double.waiting == 0
    assert not subject.clock.getDelayedCalls()


@implementer(IAgent)
class FailingAgent:
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
def test_failed_connection_raises_directus_down(error: Exception) -> None:
    client = DirectusClient(Clock(), "http://directus.example", "token", agent=FailingAgent(error))
    caught = failure_of(Deferred.fromCoroutine(client.get_items("commands")))
    assert type(caught) is DirectusUnreachable
    assert str(caught) == (f"Directus at http://directus.example: SEARCH /items/commands: {error}")


def test_collection_name_is_quoted_in_the_url(subject: Doubled) -> None:
    change = subject.admin.update_where("../users?x#y", {}, {})
    assert isinstance(failure_of(Deferred.fromCoroutine(change)), DirectusError)
    assert [path for _, path, _ in subject.double.requests] == ["/items/..%2Fusers%3Fx%23y"]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8055", "http://127.0.0.1:8055"),
        ("https://directus.example/sub/", "https://directus.example/sub"),
        ("http://[::1]:8055/", "http://[::1]:8055"),
    ],
)
def test_valid_url_is_accepted_without_its_final_slash(text: str, url: str) -> None:
    assert checked_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "directus", "ftp://host", "http://", "http://:8055", "http://host:x", "http://[::1"),
        *("http://host:99999", "http://ho st", "http://host/\n", "http://me:secret@host"),
        *("http://host?x", "http://host#x"),
    ],
)
def test_malformed_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must ") as caught:
        checked_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "ä", "a\x00"])
def test_malformed_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the token must be "):
        checked_token(text)


def test_request_can_be_cancelled_while_connecting() -> None:
    reactor: Any = MemoryReactorClock()
    client = DirectusClient(reactor, "http://127.0.0.1:8055", BRIDGE_TOKEN)
    deferred = Deferred.fromCoroutine(client.get_items("commands"))
    assert reactor.tcpClients
    deferred.cancel()
    failures: list[Failure] = []
    deferred.addErrback(failures.append)
    assert failures[0].type is CancelledError
