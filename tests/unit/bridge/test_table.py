"""Rows of commands, whose status never goes back; with the double of Directus."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.unit.bridge.conftest import Doubled, doubled
from tests.unit.bridge.double import CannedResponse
from tests.unit.bridge.items import create
from tests.unit.bridge.queries import RequestError
from tests.unit.fakes import FakeRedis
from tracker.bridge.rest import DirectusDown, DirectusError
from tracker.bridge.rows import fields_of, timestamp_of
from tracker.bridge.schema import PENDING, ROUTED
from tracker.bridge.table import CommandTable
from tracker.command import DELIVERED, EXPIRED, Reason, Status, StatusUpdate

T = TypeVar("T")

IMEI: Final = "356307042441013"
AT: Final = "2026-11-22T10:00:00+00:00"
GONE: Final = "00000000-0000-4000-8000-000000000000"

#: Every kind of update of a row, by name.
UPDATES: Final[dict[str, dict[str, Any]]] = {
    "routed": {"status": ROUTED, "instance": "one", "reason": None, "routed_at": AT},
    "delivered": fields_of(DELIVERED, "one", AT),
    "responded": fields_of(StatusUpdate(Status.RESPONDED, "", "INI:1"), "one", AT),
    "rejected": fields_of(StatusUpdate(Status.REJECTED), "one", AT),
    "failed": fields_of(StatusUpdate.failed(Reason.TIMEOUT), "one", AT),
    "expired": fields_of(EXPIRED, "", AT),
}
RANK: Final = {PENDING: 0, ROUTED: 1, "delivered": 2}  # the others: 3


def rank(status: str) -> int:
    return RANK.get(status, 3)


def result_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that must end at once, and return its result."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "the coroutine has not ended"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    result: T = results[0]
    return result


def rows_of(subject: Doubled, count: int) -> list[str]:
    made = [
        result_now(create(subject.admin, "commands", {"imei": IMEI, "text": "x"}))
        for _ in range(count)
    ]
    return [row["id"] for row in made if row is not None]


def status_of(subject: Doubled, key: str) -> str:
    status: str = subject.double.rows("commands")[key]["status"]
    return status


def results_of(results: dict[str, bool | DirectusError]) -> list[object]:
    """Return True, False, or the HTTP status of the error, for each row."""
    return [one.status if isinstance(one, DirectusError) else one for one in results.values()]


def write(table: CommandTable, updates: dict[str, Iterable[str]]) -> list[object]:
    return results_of(
        result_now(
            table.write({key: [UPDATES[one] for one in many] for key, many in updates.items()})
        )
    )


#: Rounds of updates of three rows: number of the row → names of its updates, in any order.
ROUNDS: Final = st.lists(
    st.dictionaries(st.integers(0, 2), st.lists(st.sampled_from(sorted(UPDATES)), min_size=1)),
    max_size=8,
)


@given(ROUNDS)
def test_status_never_goes_back_and_a_final_status_never_changes(
    rounds: list[dict[int, list[str]]],
) -> None:
    subject = doubled()
    table = CommandTable(subject.bridge)
    keys = rows_of(subject, 3)
    for updates in rounds:
        before = {key: status_of(subject, key) for key in keys}
        finished = {key: dict(subject.double.rows("commands")[key]) for key in keys}
        results = result_now(
            table.write(
                {keys[one]: [UPDATES[name] for name in names] for one, names in updates.items()}
            )
        )
        for number, key in enumerate(keys):
            names = updates.get(number, [])
            expected = before[key]
            for name in names:  # the model: a higher rank replaces a lower one
                if rank(expected) < min(rank(name), 3):
                    expected = name
            assert status_of(subject, key) == expected
            assert results.get(key, False) is (expected != before[key])
            if rank(before[key]) == 3:
                assert subject.double.rows("commands")[key] == finished[key]


@given(st.lists(st.sampled_from(sorted(UPDATES)), min_size=1), st.booleans())
def test_updates_together_and_one_by_one_give_the_same_row(
    names: list[str], by_change: bool
) -> None:
    subject = doubled()
    table = CommandTable(subject.bridge)
    one, two = rows_of(subject, 2)
    write(table, {one: names})
    for name in names:
        if by_change:
            result_now(table.change(two, UPDATES[name]))
        else:
            write(table, {two: [name]})
    rows = subject.double.rows("commands")
    # Apart from their ids, both rows have the same values.
    assert {**rows[one], "id": ""} == {**rows[two], "id": ""}


@given(st.text(), st.text(), st.text())
def test_any_text_of_an_instance_can_be_stored(name: str, text: str, at: str) -> None:
    subject = doubled()
    (key,) = rows_of(subject, 1)
    update = StatusUpdate(Status.FAILED, text, text)
    fields = fields_of(update, name * 20, timestamp_of(at) or AT)
    assert result_now(CommandTable(subject.bridge).change(key, fields)) is True


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("2026-11-22T10:00:00.5Z", "2026-11-22T10:00:00.500000+00:00"),
        ("2026-11-22 11:00:00+01:00", "2026-11-22T11:00:00+01:00"),
        ("2026-W01-1T10:00", "2025-12-29T10:00:00+00:00"),
        ("", None),
        ("yesterday", None),
        ("2026-13-01T00:00:00Z", None),
    ],
)
def test_timestamp_has_the_form_that_every_database_accepts(
    text: str, timestamp: str | None
) -> None:
    assert timestamp_of(text) == timestamp


def test_many_rows_take_two_reads_and_one_change(subject: Doubled) -> None:
    keys = rows_of(subject, 50)
    subject.double.requests.clear()
    results = write(
        CommandTable(subject.bridge), {key: ["delivered", "responded"] for key in [*keys, GONE]}
    )
    assert results == [True] * 50 + [False]
    assert [one[0] for one in subject.double.requests] == ["SEARCH", "SEARCH", "PATCH"]
    row = subject.double.rows("commands")[keys[0]]
    assert (row["status"], row["response"]) == ("responded", "INI:1")
    assert row["delivered_at"] == row["finished_at"] == "2026-11-22T10:00:00.000Z"


def test_one_row_takes_one_request(subject: Doubled) -> None:
    (key,) = rows_of(subject, 1)
    subject.double.requests.clear()
    assert write(CommandTable(subject.bridge), {key: ["responded"]}) == [True]
    assert [one[0] for one in subject.double.requests] == ["PATCH"]


def test_all_rows_are_changed_when_directus_limits_rows(subject: Doubled) -> None:
    keys = rows_of(subject, 12)
    subject.double.tables["commands"].max_rows = 5
    assert write(CommandTable(subject.bridge), {key: ["responded"] for key in keys}) == [True] * 12
    assert {status_of(subject, key) for key in keys} == {"responded"}


@pytest.mark.parametrize("status", [400, 403, 500])
def test_refused_row_does_not_affect_others(subject: Doubled, status: int) -> None:
    keys = rows_of(subject, 5)
    subject.double.tables["commands"].rejections[keys[2]] = lambda _: RequestError(
        status, "X", "no"
    )
    results = write(CommandTable(subject.bridge), {key: ["responded"] for key in keys})
    assert results == [True, True, status, True, True]
    assert write(CommandTable(subject.bridge), {keys[2]: ["responded"]}) == [status]
    assert [status_of(subject, key) for key in keys].count("responded") == 4


def test_concurrently_deleted_row_counts_as_not_changed(subject: Doubled) -> None:
    """Directus responds with 403, as for a row that the bridge must not change."""
    one, two, three = rows_of(subject, 3)

    def vanish(key: str) -> Callable[[Any], RequestError]:
        def forbid(_: Any) -> RequestError:
            subject.double.rows("commands").pop(key, None)
            return RequestError(403, "FORBIDDEN", "no")

        return forbid

    subject.double.tables["commands"].rejections |= {key: vanish(key) for key in (two, three)}
    table = CommandTable(subject.bridge)
    assert write(table, {one: ["responded"], two: ["responded"]}) == [True, False]
    assert result_now(table.change(three, UPDATES["routed"])) is False


@pytest.mark.parametrize(
    ("status", "after"), [*((one, 0) for one in (401, 429, 502, 503)), (401, 1), (429, 1), (503, 1)]
)
def test_error_that_concerns_no_row_is_raised(subject: Doubled, status: int, after: int) -> None:
    keys = rows_of(subject, 3)
    subject.double.canned += [*[None] * after, CannedResponse(status)]
    with pytest.raises(DirectusError) as caught:
        write(CommandTable(subject.bridge), {key: ["responded"] for key in keys})
    assert caught.value.status == status
    assert {status_of(subject, key) for key in keys} == {PENDING}


def test_changes_one_by_one_stop_when_directus_is_down(subject: Doubled) -> None:
    keys = rows_of(subject, 4)
    subject.double.requests.clear()
    # The read succeeds, the change of all rows fails, and the change of the first row succeeds.
    subject.double.canned += [None, CannedResponse(500), None, CannedResponse(503)]
    results = write(CommandTable(subject.bridge), {key: ["responded"] for key in keys})
    assert results == [True, 503, 503, 503]
    assert len(subject.double.requests) == 4


class Contended:
    """A row that another bridge changes while this bridge changes it."""

    def __init__(self, subject: Doubled, *, redis: bool = True) -> None:
        self.subject = subject
        self.redis = FakeRedis()
        self.table = CommandTable(
            subject.bridge,
            self.redis if redis else None,  # type: ignore[arg-type]
        )
        (self.key,) = rows_of(subject, 1)
        subject.double.tables["commands"].rejections[self.key] = self._overtake
        self.overtaken = False

    @property
    def row(self) -> dict[str, Any]:
        return self.subject.double.rows("commands")[self.key]

    def _overtake(self, _: Any) -> None:
        if not self.overtaken:
            self.overtaken = True
            self.row.update(UPDATES["rejected"])

    def answer(self, answer: Any) -> tuple[Any, ...]:
        """Answer the oldest command to Redis, and return its arguments."""
        arguments, deferred = self.redis.commands.pop(0)
        deferred.callback(answer)
        return arguments


@pytest.mark.parametrize("late", ["routed", "delivered"])
@pytest.mark.parametrize("together", [True, False])
def test_overwritten_final_status_is_restored(subject: Doubled, late: str, together: bool) -> None:
    contended = Contended(subject)
    key = contended.key
    if together:
        (more,) = rows_of(subject, 1)
        results: Any = contended.table.write({key: [UPDATES[late]], more: [UPDATES[late]]})
    else:
        results = contended.table.change(key, UPDATES[late])
    changing = Deferred.fromCoroutine(results)
    assert contended.row["status"] == late
    assert contended.answer(b"done rejected 5-1") == ("GET", f"commands:sent:{key}")
    fields = {"command_id": key, "instance_id": "two", "status": "rejected", "at": AT}
    content = [text.encode() for pair in fields.items() for text in pair]
    assert contended.answer([(b"5-1", content)])[0] == "XRANGE"
    assert changing.called
    assert (contended.row["status"], contended.row["instance"]) == ("rejected", "two")
    assert write(contended.table, {key: ["delivered"]}) == [False]


def test_final_status_is_restored_after_its_response_was_trimmed(subject: Doubled) -> None:
    contended = Contended(subject)
    Deferred.fromCoroutine(contended.table.change(contended.key, UPDATES["delivered"]))
    contended.answer(b"done rejected 5-1")
    contended.answer([])
    assert contended.row["status"] == "rejected"
    assert contended.row["finished_at"] is not None


def test_final_status_is_restored_after_redis_was_down(subject: Doubled) -> None:
    contended = Contended(subject)
    contended.redis.connected = False
    with pytest.raises(DirectusDown):
        result_now(contended.table.write({contended.key: [UPDATES["delivered"]]}))
    contended.redis.connected = True
    telling = Deferred.fromCoroutine(contended.table.write({contended.key: [UPDATES["delivered"]]}))
    contended.answer(b"done rejected 5-1")
    contended.answer([])
    assert telling.called
    assert contended.row["status"] == "rejected"


@pytest.mark.parametrize("record", [None, b"delivered commands:outbound:one 1-1", b"nonsense"])
def test_row_that_a_user_has_reset_is_not_restored(subject: Doubled, record: bytes | None) -> None:
    contended = Contended(subject)
    Deferred.fromCoroutine(contended.table.change(contended.key, UPDATES["delivered"]))
    contended.answer(record)
    assert contended.row["status"] == "delivered"


def test_changes_of_one_row_do_not_overlap(subject: Doubled) -> None:
    table = CommandTable(subject.bridge)
    one, two = rows_of(subject, 2)
    subject.double.silent = True
    both = Deferred.fromCoroutine(
        table.write({one: [UPDATES["responded"]], two: [UPDATES["failed"]]})
    )
    late = Deferred.fromCoroutine(table.change(two, UPDATES["delivered"]))
    assert subject.double.waiting == 1, "the second change has not begun"
    subject.double.resume()
    subject.agent.flush()
    results: list[Any] = []
    both.addCallback(results.append)
    late.addCallback(results.append)
    assert results == [{one: True, two: True}, False]
    assert status_of(subject, two) == "failed"


def test_cancelled_write_releases_its_locks(subject: Doubled) -> None:
    table = CommandTable(subject.bridge)
    one, two = rows_of(subject, 2)
    subject.double.silent = True
    updates = {one: [UPDATES["responded"]], two: [UPDATES["failed"]]}
    writes = [Deferred.fromCoroutine(table.write(updates)) for _ in range(3)]
    for each in writes:
        each.addErrback(lambda _: None)
        each.cancel()
    subject.agent.flush()
    subject.double.resume()
    assert write(table, {one: ["responded"], two: ["failed"]}) == [True, True]
    assert not table._locks
