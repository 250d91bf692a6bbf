"""Responses are written to Directus, whatever errors it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import pytest
from twisted.logger import LogLevel, capturedLogs

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.double import BRIDGE_TOKEN, CannedResponse
from tests.unit.bridge.queries import RequestError
from tests.unit.bridge.test_table import GONE, rows_of, status_of
from tests.unit.log.memory import MemoryStream
from tracker.bridge.responses import (
    BATCH_SIZE,
    CLAIM_AFTER,
    MAX_ATTEMPTS,
    MAX_HELD,
    SET_ASIDE_TIMEOUT,
    ResponseWriter,
)
from tracker.bridge.table import CommandTable
from tracker.keys import RESPONSES
from tracker.observe.health import Condition
from tracker.runtime.backoff import Backoff

INTERNAL: Final = RequestError(500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred.")


class Writing:
    """A writer, its stream and its Directus; retries follow after 1, 2, 4 … 60 seconds."""

    def __init__(self, subject: Doubled) -> None:
        self.subject = subject
        self.double = subject.double
        self.clock = subject.clock
        self.stream = MemoryStream(subject.clock, RESPONSES, BATCH_SIZE)
        self.reports: list[str | None] = []
        self.backoffs: list[Backoff] = []
        self.writer = self._writer("this")

    def _writer(self, name: str) -> ResponseWriter:
        return ResponseWriter(
            self.clock,
            self.stream.reader(name),
            CommandTable(self.subject.bridge),
            backoff=self._backoff,
            condition=Condition(self.reports.append),
        )

    def _backoff(self) -> Backoff:
        self.backoffs.append(
            Backoff(self.clock, first_delay=1.0, max_delay=60.0, random=lambda: 1.0)
        )
        return self.backoffs[-1]

    def respond(self, command_id: str, status: str, **fields: str) -> str:
        """Append a response; return the ID of its entry."""
        content = {"command_id": command_id, "instance_id": "one", "status": status}
        return self.stream.append(content | {"at": "2026-11-22T10:00:00.000Z"} | fields)

    def rows(self, count: int) -> list[str]:
        return rows_of(self.subject, count)

    def status(self, key: str) -> str:
        return status_of(self.subject, key)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock from call to call, so that Directus responds in between."""
        end = self.clock.seconds() + seconds
        self.subject.agent.flush()
        while due := [
            call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= end
        ]:
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
            self.subject.agent.flush()
        self.clock.advance(end - self.clock.seconds())

    @property
    def requests(self) -> int:
        """Number of requests to Directus."""
        return len(self.double.requests)


@pytest.fixture
def writing(subject: Doubled) -> Iterator[Writing]:
    writing = Writing(subject)
    yield writing
    stopping = writing.writer.stopService()
    writing.subject.agent.flush()
    assert stopping.called
    assert not writing.clock.getDelayedCalls()


def errors(events: list[Any]) -> list[Any]:
    return [event for event in events if event["log_level"] >= LogLevel.error]


def test_response_is_written_and_acknowledged(writing: Writing) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "delivered")
    writing.writer.startService()
    assert writing.status(key) == "delivered"
    writing.respond(key, "responded", response="INI:1")
    assert writing.status(key) == "responded"
    assert not writing.stream.pending
    assert set(writing.reports) == {None}


def test_response_without_a_row_is_acknowledged(writing: Writing) -> None:
    (key,) = writing.rows(1)
    for command_id, status in (
        *((GONE, "responded"), ("no-uuid", "responded"), ("", "failed"), (key, "no status")),
        (f"{{{key}}}", "failed"),
    ):
        writing.respond(command_id, status)
    writing.respond(
        key.upper(), "responded", at="no time", response="\0\ud7ff", instance_id="x" * 999
    )
    with capturedLogs() as events:
        writing.writer.startService()
    assert not writing.stream.pending
    assert writing.status(key) == "responded"
    assert not errors(list(events))
    ids = [event["id"] for event in events if "not written" in event["log_format"]]
    assert ids == [GONE]


def test_response_after_the_final_status_changes_nothing(writing: Writing) -> None:
    one, two = writing.rows(2)
    for key in (one, two):
        writing.respond(key, "responded", response="INI:1")
    writing.writer.startService()
    before = {key: dict(writing.double.rows("commands")[key]) for key in (one, two)}
    writing.respond(one, "delivered")
    writing.respond(two, "failed", reason="timeout")
    assert writing.double.rows("commands") == before
    assert not writing.stream.pending


CANNED_RESPONSES: Final = {
    "503": CannedResponse(503, "SERVICE_UNAVAILABLE"),
    "502": CannedResponse(502, body=b"<html>"),
    "500": CannedResponse(500, "INTERNAL_SERVER_ERROR"),
    "429": CannedResponse(429, "REQUESTS_EXCEEDED"),
    "401": CannedResponse(401, "INVALID_CREDENTIALS"),
    "403": CannedResponse(403, "FORBIDDEN"),
    "redirect": CannedResponse(301, headers={"Location": "https://elsewhere.example/"}, body=b""),
    "404": CannedResponse(404, "ROUTE_NOT_FOUND"),
    "405": CannedResponse(405, body=b"<html>"),
    "incomplete body": CannedResponse(200, body=b'{"data": [', complete=False),
    "not JSON": CannedResponse(200, body=b"<html>It works!"),
}


@pytest.mark.parametrize("canned", CANNED_RESPONSES.values(), ids=CANNED_RESPONSES)
@pytest.mark.parametrize("count", [1, 30])
def test_responses_survive_any_error_of_directus(
    writing: Writing, canned: CannedResponse, count: int
) -> None:
    keys = writing.rows(count)
    entries = [writing.respond(key, "responded", response="INI:1") for key in keys]
    writing.double.canned += [canned] * 1000
    writing.writer.startService()
    writing.pass_time(300)
    assert list(writing.stream.pending) == entries
    assert writing.reports[-1] is not None
    assert writing.requests < 60, "Directus gets too many requests"
    writing.double.canned.clear()
    writing.pass_time(80)
    assert not writing.stream.pending
    rows = writing.double.rows("commands")
    assert {(rows[key]["status"], rows[key]["response"]) for key in keys} == {
        ("responded", "INI:1")
    }
    assert writing.reports[-1] is None


def test_delays_between_retries_of_a_write_increase(writing: Writing) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "responded")
    writing.double.canned += [CannedResponse(503)] * 5
    before = writing.requests
    writing.writer.startService()
    counts = []
    for seconds in (1, 2, 4, 8, 16):
        counts.append(writing.requests - before)
        writing.pass_time(seconds)
    assert counts == [1, 2, 3, 4, 5]
    assert writing.status(key) == "responded"


def test_writing_responses_respects_retry_after(writing: Writing) -> None:
    keys = writing.rows(200)
    for key in keys:
        writing.respond(key, "responded")
    before = writing.requests
    writing.double.canned.append(CannedResponse(429, headers={"Retry-After": "30"}))
    writing.writer.startService()
    writing.pass_time(30.5)
    assert writing.requests - before == 1, "Directus gets more than one request"
    writing.pass_time(1)
    assert {writing.status(key) for key in keys} == {"responded"}


def test_retry_after_is_respected_for_a_held_command(writing: Writing) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "responded")
    internal = CannedResponse(500, "INTERNAL_SERVER_ERROR", headers={"Retry-After": "30"})
    # Changing the row fails, reading it succeeds, and changing it alone fails again.
    writing.double.canned += [internal, None, internal]
    writing.writer.startService()
    writing.pass_time(1)
    assert key in str(writing.reports[-1])
    before = writing.requests
    writing.pass_time(29.5)
    assert writing.requests == before
    writing.pass_time(2)
    assert writing.status(key) == "responded"


def test_hanging_directus_gets_one_request(writing: Writing) -> None:
    keys = writing.rows(150)
    for key in keys:
        writing.respond(key, "responded")
    writing.double.silent = True
    writing.writer.startService()
    writing.pass_time(35)
    assert writing.double.waiting <= 1
    assert len(writing.stream.pending) == BATCH_SIZE, "more than one batch was read"
    writing.double.resume()
    writing.pass_time(80)
    assert {writing.status(key) for key in keys} == {"responded"}
    assert not writing.stream.pending


def test_stop_does_not_wait_for_a_hanging_write_of_a_response(writing: Writing) -> None:
    (key,) = writing.rows(1)
    entry = writing.respond(key, "responded")
    writing.double.silent = True
    writing.writer.startService()
    stopping = writing.writer.stopService()
    writing.subject.agent.flush()
    assert stopping.called
    assert writing.stream.pending == {entry: "this"}
    writing.double.resume()
    writing.writer = writing._writer("this")
    writing.writer.startService()
    assert writing.status(key) == "responded"
    assert not writing.stream.pending


def reject(writing: Writing, keys: Iterable[str], status: int) -> None:
    """Let Directus always fail to change these rows."""
    error = RequestError(status, "X", "no")
    writing.double.tables["commands"].rejections.update(dict.fromkeys(keys, lambda _: error))


@pytest.mark.parametrize("status", [500, 502, 504, 403, 413])
def test_command_that_always_fails_delays_neither_others_nor_readiness(
    writing: Writing, status: int
) -> None:
    bad, *others = writing.rows(5)
    reject(writing, [bad], status)
    kept = [writing.respond(bad, "delivered")]
    for key in others:
        writing.respond(key, "responded")
    with capturedLogs() as events:
        writing.writer.startService()
        assert {writing.status(key) for key in others} == {"responded"}
        kept.append(writing.respond(bad, "responded"))
        (later,) = writing.rows(1)
        writing.respond(later, "responded")
        assert writing.status(later) == "responded"
        writing.pass_time(SET_ASIDE_TIMEOUT - 200)
    assert list(writing.stream.pending) == kept, "a held response was acknowledged"
    assert len([event for event in events if event.get("id") == bad]) == 1
    assert set(writing.reports) == {None}
    writing.double.tables["commands"].rejections.clear()
    writing.pass_time(80)
    assert writing.status(bad) == "responded"
    assert writing.double.rows("commands")[bad]["delivered_at"] is not None
    assert not writing.stream.pending


def test_responses_of_a_failing_command_become_dead_letters(writing: Writing) -> None:
    bad, good = writing.rows(2)
    reject(writing, [bad], 403)
    kept = [writing.respond(bad, "delivered"), writing.respond(bad, "responded")]
    writing.respond(good, "responded")
    writing.writer.startService()
    with capturedLogs() as events:
        writing.pass_time(SET_ASIDE_TIMEOUT + 70)
    assert not writing.stream.pending
    assert writing.stream.dead == dict.fromkeys(kept, "Directus: 403 X")
    assert [error["id"] for error in errors(list(events))] == [bad]
    before = writing.requests
    writing.pass_time(600)
    assert writing.requests == before


def test_lone_command_that_always_fails_is_blamed_after_many_attempts(writing: Writing) -> None:
    (bad,) = writing.rows(1)
    reject(writing, [bad], 504)
    entry = writing.respond(bad, "responded")
    writing.writer.startService()
    writing.pass_time(30)
    assert bad in str(writing.reports[-1])
    writing.pass_time(2 ** (MAX_ATTEMPTS + 1))
    assert writing.reports[-1] is None
    assert list(writing.stream.pending) == [entry]


def test_responses_behind_more_failing_ones_than_are_held_are_written(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    max_held = 10  # each failing response costs hundreds of requests
    monkeypatch.setattr("tracker.bridge.responses.MAX_HELD", max_held)
    monkeypatch.setattr("tracker.bridge.responses.BATCH_SIZE", max_held)
    writing.stream.batch = max_held
    *bad, good = writing.rows(2 * max_held + 5)
    reject(writing, bad, 403)
    for key in (*bad, good):
        writing.respond(key, "responded")
    writing.writer.startService()
    writing.pass_time(60)
    assert writing.reports[-1] is not None
    assert len(writing.stream.pending) <= 2 * max_held
    writing.pass_time(400)
    assert writing.status(good) == "responded"
    writing.stream.idle = True  # the released entries can be claimed
    writing.pass_time(200)
    assert writing.reports[-1] is None
    writing.double.tables["commands"].rejections.clear()
    writing.pass_time(100)
    assert {writing.status(key) for key in bad} == {"responded"}
    assert not writing.stream.pending


def without_texts(data: Any) -> RequestError | None:
    """Return an error for an update with a response text, as if the database refused it."""
    return INTERNAL if data.get("response") else None


def too_long(data: Any) -> RequestError | None:
    return RequestError(400, "VALUE_TOO_LONG", "secret") if data.get("response") else None


def test_status_is_written_without_a_refused_text(writing: Writing) -> None:
    bad, good = writing.rows(2)
    writing.double.tables["commands"].rejections[bad] = too_long
    writing.respond(bad, "responded", response="secret")
    writing.respond(good, "responded")
    with capturedLogs() as events:
        writing.writer.startService()
    assert [writing.status(key) for key in (bad, good)] == ["responded"] * 2
    assert writing.double.rows("commands")[bad]["finished_at"] is not None
    assert not writing.stream.pending
    (error,) = errors(list(events))
    assert (error["id"], error["error"]) == (bad, "400 VALUE_TOO_LONG")
    assert "secret" not in str(events)


def test_status_is_written_alone_after_many_internal_errors(
    writing: Writing,
) -> None:
    bad, good = writing.rows(2)
    writing.double.tables["commands"].rejections[bad] = without_texts
    writing.respond(bad, "responded", response="x")
    writing.respond(good, "responded")
    writing.writer.startService()
    writing.pass_time(60)
    assert writing.status(bad) == "pending", "the status was written too early"
    assert writing.status(good) == "responded"
    with capturedLogs() as events:
        writing.pass_time(2 ** (MAX_ATTEMPTS + 1))
    assert writing.status(bad) == "responded"
    assert not writing.stream.pending
    assert [error["id"] for error in errors(list(events))] == [bad]


def test_text_is_held_until_permission_is_restored(writing: Writing) -> None:
    (key,) = writing.rows(1)
    forbidden = RequestError(403, "FORBIDDEN", "You don't have permission to access this.")
    rejections = writing.double.tables["commands"].rejections
    rejections[key] = lambda data: forbidden if data.get("response") else None
    writing.respond(key, "responded", response="INI:1")
    writing.writer.startService()
    writing.pass_time(2 ** (MAX_ATTEMPTS + 1))
    assert writing.stream.pending
    assert str(writing.reports[-1]).endswith(f"{key}: 403 FORBIDDEN")
    rejections.clear()
    writing.pass_time(80)
    row = writing.double.rows("commands")[key]
    assert (row["status"], row["response"]) == ("responded", "INI:1")
    assert not writing.stream.pending


def test_refused_status_is_discarded_and_logged(writing: Writing) -> None:
    (bad,) = writing.rows(1)
    refusal = RequestError(400, "FAILED_VALIDATION", "no")
    writing.double.tables["commands"].rejections[bad] = lambda _: refusal
    writing.respond(bad, "responded", response="x")
    with capturedLogs() as events:
        writing.writer.startService()
    assert not writing.stream.pending
    (error,) = errors(list(events))
    assert "discarded" in error["action"]


def test_text_is_written_when_directus_recovers_before_the_last_attempt(writing: Writing) -> None:
    (key,) = writing.rows(1)
    failures = 0

    def until_the_last_try(_: Any) -> RequestError | None:
        nonlocal failures
        failures += 1
        return INTERNAL if failures <= 2 * MAX_ATTEMPTS + 2 else None

    writing.double.tables["commands"].rejections[key] = until_the_last_try
    writing.respond(key, "responded", response="INI:1")
    with capturedLogs() as events:
        writing.writer.startService()
        writing.pass_time(2 ** (MAX_ATTEMPTS + 1))
    row = writing.double.rows("commands")[key]
    assert (row["status"], row["response"]) == ("responded", "INI:1")
    assert not errors(list(events))


def test_reading_pauses_while_many_commands_are_held(writing: Writing) -> None:
    keys = writing.rows(2 * MAX_HELD)
    for key in keys:
        writing.double.tables["commands"].rejections[key] = lambda _: INTERNAL
        writing.respond(key, "responded")
    writing.writer.startService()
    writing.pass_time(10)
    assert MAX_HELD <= len(writing.stream.pending) < MAX_HELD + BATCH_SIZE
    writing.double.tables["commands"].rejections.clear()
    writing.pass_time(70)
    assert {writing.status(key) for key in keys} == {"responded"}
    assert not writing.stream.pending


def test_responses_are_read_again_after_a_flush_of_redis(writing: Writing) -> None:
    one, two = writing.rows(2)
    writing.double.canned.append(CannedResponse(503))
    writing.respond(one, "responded")
    writing.writer.startService()
    writing.stream.flush()
    writing.pass_time(3)
    assert writing.status(one) == "responded", "the response that was already read is lost"
    writing.respond(two, "responded")
    writing.pass_time(3)
    assert writing.status(two) == "responded"
    assert not writing.stream.pending


def test_responses_of_a_stopped_bridge_are_claimed(writing: Writing) -> None:
    one, two = writing.rows(2)
    entry = writing.respond(one, "responded")
    writing.stream.joined, writing.stream.delivered = True, 1
    writing.stream.pending[entry] = "gone"
    writing.writer.startService()
    assert writing.status(one) == "pending"
    writing.stream.idle = True
    writing.respond(two, "responded")
    assert writing.status(one) == "responded"
    assert not writing.stream.pending


def test_claims_of_unwritten_responses_are_kept(writing: Writing) -> None:
    bad, good = writing.rows(2)
    writing.double.tables["commands"].rejections[bad] = lambda _: INTERNAL
    held = writing.respond(bad, "responded")
    writing.writer.startService()
    writing.double.canned += [CannedResponse(503)] * 1000
    waits = writing.respond(good, "responded")
    writing.pass_time(CLAIM_AFTER)
    assert len(writing.stream.kept) >= 2
    assert writing.stream.kept[-1] == [held, waits]


def test_writing_continues_after_an_unexpected_error(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "responded")

    async def broken(_: Any) -> Any:
        raise KeyError("id")

    with monkeypatch.context() as broke, capturedLogs() as events:
        broke.setattr(CommandTable, "write", broken)
        writing.writer.startService()
        assert "see the log" in str(writing.reports[-1])
    assert errors(list(events))
    writing.pass_time(2)
    assert writing.status(key) == "responded"
    assert writing.reports[-1] is None


def test_responses_are_written_after_a_token_is_restored(writing: Writing) -> None:
    (key,) = writing.rows(1)
    user = writing.double.users.pop(BRIDGE_TOKEN)
    writing.respond(key, "responded")
    writing.writer.startService()
    writing.pass_time(10)
    assert "401" in str(writing.reports[-1])
    writing.double.users[BRIDGE_TOKEN] = user
    writing.pass_time(20)
    assert writing.status(key) == "responded"
