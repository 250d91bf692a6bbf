"""What has become of commands is told to Directus, however little that likes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from twisted.logger import LogLevel, capturedLogs

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.double import BRIDGE_TOKEN, Trouble
from tests.unit.bridge.queries import Complaint
from tests.unit.bridge.test_table import GONE, rows_of, status_of
from tests.unit.log.memory import MemoryStream
from tracker.bridge.responses import BATCH, CLAIM_AFTER, MOST_HELD, PATIENCE, ResponseWriter
from tracker.bridge.table import CommandTable
from tracker.keys import RESPONSES
from tracker.observe.health import Condition
from tracker.runtime.backoff import Backoff

INTERNAL: Final = Complaint(500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred.")


class Writing:
    """A writer, its stream and its Directus; backoffs are 1, 2, 4 … 60 s."""

    def __init__(self, subject: Doubled) -> None:
        self.subject = subject
        self.double = subject.double
        self.clock = subject.clock
        self.stream = MemoryStream(subject.clock, RESPONSES, BATCH)
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
        """Step by step, so that Directus answers in between."""
        end = self.clock.seconds() + seconds
        self.subject.agent.flush()
        while due := [
            call.getTime() for call in self.clock.getDelayedCalls() if call.getTime() <= end
        ]:
            self.clock.advance(max(0.0, min(due) - self.clock.seconds()))
            self.subject.agent.flush()
        self.clock.advance(end - self.clock.seconds())

    @property
    def asked(self) -> int:
        """How often Directus was."""
        return len(self.double.asked)


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


def test_it_is_told_and_acknowledged(writing: Writing) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "delivered")
    writing.writer.startService()
    assert writing.status(key) == "delivered"
    writing.respond(key, "responded", response="INI:1")
    assert writing.status(key) == "responded"
    assert not writing.stream.pending
    assert set(writing.reports) == {None}


def test_what_no_row_can_be_told_is_let_go(writing: Writing) -> None:
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
    told = [event["id"] for event in events if "no row takes" in event["log_format"]]
    assert told == [GONE]


def test_what_comes_late_changes_nothing(writing: Writing) -> None:
    one, two = writing.rows(2)
    for key in (one, two):
        writing.respond(key, "responded", response="INI:1")
    writing.writer.startService()
    before = {key: dict(writing.double.rows("commands")[key]) for key in (one, two)}
    writing.respond(one, "delivered")
    writing.respond(two, "failed", reason="timeout")
    assert writing.double.rows("commands") == before
    assert not writing.stream.pending


TROUBLES: Final = {
    "slow or down": Trouble(503, "SERVICE_UNAVAILABLE"),
    "no gateway": Trouble(502, body=b"<html>"),
    "an internal error": Trouble(500, "INTERNAL_SERVER_ERROR"),
    "leave me alone": Trouble(429, "REQUESTS_EXCEEDED"),
    "who are you": Trouble(401, "INVALID_CREDENTIALS"),
    "you may not": Trouble(403, "FORBIDDEN"),
    "elsewhere": Trouble(301, headers={"Location": "https://elsewhere.example/"}, body=b""),
    "nowhere": Trouble(404, "ROUTE_NOT_FOUND"),
    "not so": Trouble(405, body=b"<html>"),
    "broken off": Trouble(200, body=b'{"data": [', complete=False),
    "nonsense": Trouble(200, body=b"<html>It works!"),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
@pytest.mark.parametrize("count", [1, 30])
def test_nothing_is_lost_whatever_directus_answers(
    writing: Writing, trouble: Trouble, count: int
) -> None:
    keys = writing.rows(count)
    entries = [writing.respond(key, "responded", response="INI:1") for key in keys]
    writing.double.troubles += [trouble] * 1000
    writing.writer.startService()
    writing.pass_time(300)
    assert list(writing.stream.pending) == entries
    assert writing.reports[-1] is not None
    assert writing.asked < 60, "it was hammered"
    writing.double.troubles.clear()
    writing.pass_time(80)
    assert not writing.stream.pending
    rows = writing.double.rows("commands")
    assert {(rows[key]["status"], rows[key]["response"]) for key in keys} == {
        ("responded", "INI:1")
    }
    assert writing.reports[-1] is None


def test_it_waits_longer_each_time(writing: Writing) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "responded")
    writing.double.troubles += [Trouble(503)] * 5
    before = writing.asked
    writing.writer.startService()
    counts = []
    for seconds in (1, 2, 4, 8, 16):
        counts.append(writing.asked - before)
        writing.pass_time(seconds)
    assert counts == [1, 2, 3, 4, 5]
    assert writing.status(key) == "responded"


def test_it_is_left_alone_as_long_as_it_wants(writing: Writing) -> None:
    keys = writing.rows(200)
    for key in keys:
        writing.respond(key, "responded")
    before = writing.asked
    writing.double.troubles.append(Trouble(429, headers={"Retry-After": "30"}))
    writing.writer.startService()
    writing.pass_time(30.5)
    assert writing.asked - before == 1, "one for all that wait"
    writing.pass_time(1)
    assert {writing.status(key) for key in keys} == {"responded"}


def test_a_held_command_is_left_alone_as_long_as_directus_asks(writing: Writing) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "responded")
    internal = Trouble(500, "INTERNAL_SERVER_ERROR", headers={"Retry-After": "30"})
    # Changing the row fails, reading it succeeds, and changing it alone fails again.
    writing.double.troubles += [internal, None, internal]
    writing.writer.startService()
    writing.pass_time(1)
    assert key in str(writing.reports[-1])
    before = writing.asked
    writing.pass_time(29.5)
    assert writing.asked == before
    writing.pass_time(2)
    assert writing.status(key) == "responded"


def test_a_directus_that_hangs_is_asked_one_thing(writing: Writing) -> None:
    keys = writing.rows(150)
    for key in keys:
        writing.respond(key, "responded")
    writing.double.silent = True
    writing.writer.startService()
    writing.pass_time(35)
    assert writing.double.waiting <= 1
    assert len(writing.stream.pending) == BATCH, "no more is read than it can be told"
    writing.double.speak()
    writing.pass_time(80)
    assert {writing.status(key) for key in keys} == {"responded"}
    assert not writing.stream.pending


def test_its_end_does_not_wait_for_a_directus_that_hangs(writing: Writing) -> None:
    (key,) = writing.rows(1)
    entry = writing.respond(key, "responded")
    writing.double.silent = True
    writing.writer.startService()
    stopping = writing.writer.stopService()
    writing.subject.agent.flush()
    assert stopping.called
    assert writing.stream.pending == {entry: "this"}
    writing.double.speak()
    writing.writer = writing._writer("this")
    writing.writer.startService()
    assert writing.status(key) == "responded"
    assert not writing.stream.pending


@pytest.mark.parametrize("status", [500, 403, 413])
def test_one_that_is_never_taken_holds_back_no_other(writing: Writing, status: int) -> None:
    bad, *others = writing.rows(5)
    writing.double.tables["commands"].poisoned[bad] = lambda _: Complaint(status, "X", "no")
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
        writing.pass_time(3600)
    assert list(writing.stream.pending) == kept, "it is not lost"
    assert any(event.get("id") == bad for event in events)
    assert bad in str(writing.reports[-1])
    writing.double.tables["commands"].poisoned.clear()
    writing.pass_time(80)
    assert writing.status(bad) == "responded"
    assert writing.double.rows("commands")[bad]["delivered_at"] is not None
    assert not writing.stream.pending
    assert writing.reports[-1] is None


def without_texts(data: Any) -> Complaint | None:
    """What Directus says to a response that the database does not take."""
    return INTERNAL if data.get("response") else None


def too_long(data: Any) -> Complaint | None:
    return Complaint(400, "VALUE_TOO_LONG", "secret") if data.get("response") else None


def test_a_text_that_is_refused_leaves_its_status(writing: Writing) -> None:
    bad, good = writing.rows(2)
    writing.double.tables["commands"].poisoned[bad] = too_long
    writing.respond(bad, "responded", response="secret")
    writing.respond(good, "responded")
    with capturedLogs() as events:
        writing.writer.startService()
    assert [writing.status(key) for key in (bad, good)] == ["responded"] * 2
    assert writing.double.rows("commands")[bad]["finished_at"] is not None
    assert not writing.stream.pending
    (error,) = errors(list(events))
    assert (error["id"], error["why"]) == (bad, "400 VALUE_TOO_LONG")
    assert "secret" not in str(events)


def test_a_text_that_is_an_internal_error_leaves_its_status_after_many_tries(
    writing: Writing,
) -> None:
    bad, good = writing.rows(2)
    writing.double.tables["commands"].poisoned[bad] = without_texts
    writing.respond(bad, "responded", response="x")
    writing.respond(good, "responded")
    writing.writer.startService()
    writing.pass_time(60)
    assert writing.status(bad) == "pending", "it might go well yet"
    assert writing.status(good) == "responded"
    with capturedLogs() as events:
        writing.pass_time(2 ** (PATIENCE + 1))
    assert writing.status(bad) == "responded"
    assert not writing.stream.pending
    assert [error["id"] for error in errors(list(events))] == [bad]


def test_a_text_that_may_not_be_written_is_kept_until_it_may(writing: Writing) -> None:
    (key,) = writing.rows(1)
    forbidden = Complaint(403, "FORBIDDEN", "You don't have permission to access this.")
    poisoned = writing.double.tables["commands"].poisoned
    poisoned[key] = lambda data: forbidden if data.get("response") else None
    writing.respond(key, "responded", response="INI:1")
    writing.writer.startService()
    writing.pass_time(2 ** (PATIENCE + 1))
    assert writing.stream.pending
    assert str(writing.reports[-1]).endswith(f"not of 1 commands, as {key}: 403 FORBIDDEN")
    poisoned.clear()
    writing.pass_time(80)
    row = writing.double.rows("commands")[key]
    assert (row["status"], row["response"]) == ("responded", "INI:1")
    assert not writing.stream.pending


def test_a_status_that_is_refused_is_let_go_and_told(writing: Writing) -> None:
    (bad,) = writing.rows(1)
    refusal = Complaint(400, "FAILED_VALIDATION", "no")
    writing.double.tables["commands"].poisoned[bad] = lambda _: refusal
    writing.respond(bad, "responded", response="x")
    with capturedLogs() as events:
        writing.writer.startService()
    assert not writing.stream.pending
    (error,) = errors(list(events))
    assert "let go" in error["fate"]


def test_a_text_is_kept_when_directus_comes_to_itself_in_between(writing: Writing) -> None:
    (key,) = writing.rows(1)
    failures = 0

    def until_the_last_try(_: Any) -> Complaint | None:
        nonlocal failures
        failures += 1
        return INTERNAL if failures <= 2 * PATIENCE + 2 else None

    writing.double.tables["commands"].poisoned[key] = until_the_last_try
    writing.respond(key, "responded", response="INI:1")
    with capturedLogs() as events:
        writing.writer.startService()
        writing.pass_time(2 ** (PATIENCE + 1))
    row = writing.double.rows("commands")[key]
    assert (row["status"], row["response"]) == ("responded", "INI:1")
    assert not errors(list(events))


def test_too_many_that_wait_and_nothing_else_is_read(writing: Writing) -> None:
    keys = writing.rows(2 * MOST_HELD)
    for key in keys:
        writing.double.tables["commands"].poisoned[key] = lambda _: INTERNAL
        writing.respond(key, "responded")
    writing.writer.startService()
    writing.pass_time(10)
    assert MOST_HELD <= len(writing.stream.pending) < MOST_HELD + BATCH
    writing.double.tables["commands"].poisoned.clear()
    writing.pass_time(70)
    assert {writing.status(key) for key in keys} == {"responded"}
    assert not writing.stream.pending


def test_what_was_flushed_begins_anew(writing: Writing) -> None:
    one, two = writing.rows(2)
    writing.double.troubles.append(Trouble(503))
    writing.respond(one, "responded")
    writing.writer.startService()
    writing.stream.flush()
    writing.pass_time(3)
    assert writing.status(one) == "responded", "it was at hand"
    writing.respond(two, "responded")
    writing.pass_time(3)
    assert writing.status(two) == "responded"
    assert not writing.stream.pending


def test_what_another_bridge_has_left_is_taken_over(writing: Writing) -> None:
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


def test_what_directus_lets_it_wait_with_stays_its_own(writing: Writing) -> None:
    bad, good = writing.rows(2)
    writing.double.tables["commands"].poisoned[bad] = lambda _: INTERNAL
    held = writing.respond(bad, "responded")
    writing.writer.startService()
    writing.double.troubles += [Trouble(503)] * 1000
    waits = writing.respond(good, "responded")
    writing.pass_time(CLAIM_AFTER)
    assert len(writing.stream.kept) >= 2
    assert writing.stream.kept[-1] == [held, waits]


def test_whatever_goes_wrong_is_tried_again(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = writing.rows(1)
    writing.respond(key, "responded")

    async def broken(_: Any) -> Any:
        raise KeyError("id")

    with monkeypatch.context() as broke, capturedLogs() as events:
        broke.setattr(CommandTable, "tell", broken)
        writing.writer.startService()
        assert writing.reports[-1] == "responses are not told: see the log"
    assert errors(list(events))
    writing.pass_time(2)
    assert writing.status(key) == "responded"
    assert writing.reports[-1] is None


def test_a_token_that_comes_back(writing: Writing) -> None:
    (key,) = writing.rows(1)
    user = writing.double.users.pop(BRIDGE_TOKEN)
    writing.respond(key, "responded")
    writing.writer.startService()
    writing.pass_time(10)
    assert "401" in str(writing.reports[-1])
    writing.double.users[BRIDGE_TOKEN] = user
    writing.pass_time(20)
    assert writing.status(key) == "responded"
