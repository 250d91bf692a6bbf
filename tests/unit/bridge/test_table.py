"""Rows of commands, whose status never goes back; the double stands for Directus."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.unit.bridge.conftest import Doubled, doubled
from tests.unit.bridge.double import Trouble
from tests.unit.bridge.items import create
from tests.unit.bridge.queries import Complaint
from tests.unit.fakes import FakeRedis
from tracker.bridge.rest import DirectusDown, DirectusError
from tracker.bridge.rows import fields_of, moment_of
from tracker.bridge.schema import PENDING, ROUTED
from tracker.bridge.table import CommandTable
from tracker.command import DELIVERED, EXPIRED, Reason, Status, StatusUpdate

T = TypeVar("T")

IMEI: Final = "356307042441013"
AT: Final = "2026-11-22T10:00:00+00:00"
GONE: Final = "00000000-0000-4000-8000-000000000000"

#: All that a row is ever told, by its name here.
NEWS: Final[dict[str, dict[str, Any]]] = {
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


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it returns, at once."""
    ended: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(ended.append)
    assert ended, "it waits for something"
    if hasattr(ended[0], "raiseException"):
        ended[0].raiseException()
    result: T = ended[0]
    return result


def rows_of(subject: Doubled, count: int) -> list[str]:
    made = [
        now(create(subject.admin, "commands", {"imei": IMEI, "text": "x"})) for _ in range(count)
    ]
    return [row["id"] for row in made if row is not None]


def status_of(subject: Doubled, key: str) -> str:
    status: str = subject.double.rows("commands")[key]["status"]
    return status


def kinds(told: dict[str, bool | DirectusError]) -> list[object]:
    """True, False, or the HTTP status of an error."""
    return [one.status if isinstance(one, DirectusError) else one for one in told.values()]


def tell(table: CommandTable, news: dict[str, Iterable[str]]) -> list[object]:
    return kinds(now(table.tell({key: [NEWS[one] for one in many] for key, many in news.items()})))


#: Rounds of what some rows are told together: row → what, in any order, any number of times.
ROUNDS: Final = st.lists(
    st.dictionaries(st.integers(0, 2), st.lists(st.sampled_from(sorted(NEWS)), min_size=1)),
    max_size=8,
)


@given(ROUNDS)
def test_a_status_never_goes_back_and_a_final_one_stays(rounds: list[dict[int, list[str]]]) -> None:
    subject = doubled()
    table = CommandTable(subject.bridge)
    keys = rows_of(subject, 3)
    for told in rounds:
        before = {key: status_of(subject, key) for key in keys}
        finished = {key: dict(subject.double.rows("commands")[key]) for key in keys}
        results = now(
            table.tell({keys[one]: [NEWS[name] for name in names] for one, names in told.items()})
        )
        for number, key in enumerate(keys):
            names = told.get(number, [])
            expected = before[key]
            for name in names:  # the model: whatever is further on, and nothing after an end
                if rank(expected) < min(rank(name), 3):
                    expected = name
            assert status_of(subject, key) == expected
            assert results.get(key, False) is (expected != before[key])
            if rank(before[key]) == 3:
                assert subject.double.rows("commands")[key] == finished[key]


@given(st.lists(st.sampled_from(sorted(NEWS)), min_size=1), st.booleans())
def test_together_or_one_by_one_is_the_same(names: list[str], other_way: bool) -> None:
    subject = doubled()
    table = CommandTable(subject.bridge)
    one, two = rows_of(subject, 2)
    tell(table, {one: names})
    for name in names:
        if other_way:
            now(table.change(two, NEWS[name]))
        else:
            tell(table, {two: [name]})
    rows = subject.double.rows("commands")
    # Reason and response are of what has ended it; the rest adds up.
    assert {**rows[one], "id": ""} == {**rows[two], "id": ""}


@given(st.text(), st.text(), st.text())
def test_whatever_an_instance_says_can_be_stored(name: str, text: str, at: str) -> None:
    subject = doubled()
    (key,) = rows_of(subject, 1)
    update = StatusUpdate(Status.FAILED, text, text)
    fields = fields_of(update, name * 20, moment_of(at) or AT)
    assert now(CommandTable(subject.bridge).change(key, fields)) is True


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T10:00:00.5Z", "2026-11-22T10:00:00.500000+00:00"),
        ("2026-11-22 11:00:00+01:00", "2026-11-22T11:00:00+01:00"),
        ("2026-W01-1T10:00", "2025-12-29T10:00:00+00:00"),
        ("", None),
        ("yesterday", None),
        ("2026-13-01T00:00:00Z", None),
    ],
)
def test_a_moment_is_one_that_every_database_takes(text: str, moment: str | None) -> None:
    assert moment_of(text) == moment


def test_many_rows_take_two_questions(subject: Doubled) -> None:
    keys = rows_of(subject, 50)
    subject.double.asked.clear()
    told = tell(
        CommandTable(subject.bridge), {key: ["delivered", "responded"] for key in [*keys, GONE]}
    )
    assert told == [True] * 50 + [False]
    assert [one[0] for one in subject.double.asked] == ["SEARCH", "SEARCH", "PATCH"]
    row = subject.double.rows("commands")[keys[0]]
    assert (row["status"], row["response"]) == ("responded", "INI:1")
    assert row["delivered_at"] == row["finished_at"] == "2026-11-22T10:00:00.000Z"


def test_one_row_takes_one_question(subject: Doubled) -> None:
    (key,) = rows_of(subject, 1)
    subject.double.asked.clear()
    assert tell(CommandTable(subject.bridge), {key: ["responded"]}) == [True]
    assert [one[0] for one in subject.double.asked] == ["PATCH"]


def test_no_row_is_missed_where_answers_are_short(subject: Doubled) -> None:
    keys = rows_of(subject, 12)
    subject.double.tables["commands"].most = 5
    assert tell(CommandTable(subject.bridge), {key: ["responded"] for key in keys}) == [True] * 12
    assert {status_of(subject, key) for key in keys} == {"responded"}


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_row_that_is_refused_holds_back_no_other(subject: Doubled, status: int) -> None:
    keys = rows_of(subject, 5)
    subject.double.tables["commands"].poisoned[keys[2]] = lambda _: Complaint(status, "X", "no")
    told = tell(CommandTable(subject.bridge), {key: ["responded"] for key in keys})
    assert told == [True, True, status, True, True]
    assert tell(CommandTable(subject.bridge), {keys[2]: ["responded"]}) == [status]
    assert [status_of(subject, key) for key in keys].count("responded") == 4


def test_a_row_that_is_removed_while_it_is_changed_is_gone(subject: Doubled) -> None:
    """Directus says 403 then, as of a row that may not be changed."""
    one, two, three = rows_of(subject, 3)

    def vanish(key: str) -> Callable[[Any], Complaint]:
        def forbid(_: Any) -> Complaint:
            subject.double.rows("commands").pop(key, None)
            return Complaint(403, "FORBIDDEN", "no")

        return forbid

    subject.double.tables["commands"].poisoned |= {key: vanish(key) for key in (two, three)}
    table = CommandTable(subject.bridge)
    assert tell(table, {one: ["responded"], two: ["responded"]}) == [True, False]
    assert now(table.change(three, NEWS["routed"])) is False


@pytest.mark.parametrize("status", [401, 429, 502, 503])
@pytest.mark.parametrize("after", [0, 1])
def test_what_is_about_no_row_ends_it(subject: Doubled, status: int, after: int) -> None:
    keys = rows_of(subject, 3)
    subject.double.troubles += [*[None] * after, Trouble(status)]
    with pytest.raises(DirectusError) as caught:
        tell(CommandTable(subject.bridge), {key: ["responded"] for key in keys})
    assert caught.value.status == status
    assert {status_of(subject, key) for key in keys} == {PENDING}


def test_one_by_one_ends_when_directus_does(subject: Doubled) -> None:
    keys = rows_of(subject, 4)
    subject.double.asked.clear()
    # It is read, and refused together; one is told alone, and then no more is.
    subject.double.troubles += [None, Trouble(500), None, Trouble(503)]
    told = tell(CommandTable(subject.bridge), {key: ["responded"] for key in keys})
    assert told == [True, 503, 503, 503]
    assert len(subject.double.asked) == 4


class Contended:
    """A row that another bridge changes between the look at it and its change."""

    def __init__(self, subject: Doubled, *, redis: bool = True) -> None:
        self.subject = subject
        self.redis = FakeRedis()
        self.table = CommandTable(
            subject.bridge,
            self.redis if redis else None,  # type: ignore[arg-type]
        )
        (self.key,) = rows_of(subject, 1)
        subject.double.tables["commands"].poisoned[self.key] = self._overtake
        self.overtaken = False

    @property
    def row(self) -> dict[str, Any]:
        return self.subject.double.rows("commands")[self.key]

    def _overtake(self, _: Any) -> None:
        if not self.overtaken:
            self.overtaken = True
            self.row.update(NEWS["rejected"])

    def answer(self, answer: Any) -> tuple[Any, ...]:
        """What Redis is asked, and answers."""
        arguments, deferred = self.redis.commands.pop(0)
        deferred.callback(answer)
        return arguments


@pytest.mark.parametrize("late", ["routed", "delivered"])
@pytest.mark.parametrize("together", [True, False])
def test_a_final_status_that_was_overwritten_comes_back(
    subject: Doubled, late: str, together: bool
) -> None:
    contended = Contended(subject)
    key = contended.key
    if together:
        (more,) = rows_of(subject, 1)
        told: Any = contended.table.tell({key: [NEWS[late]], more: [NEWS[late]]})
    else:
        told = contended.table.change(key, NEWS[late])
    changing = Deferred.fromCoroutine(told)
    assert contended.row["status"] == late
    assert contended.answer(b"done rejected 5-1") == ("GET", f"commands:sent:{key}")
    fields = {"command_id": key, "instance_id": "two", "status": "rejected", "at": AT}
    content = [text.encode() for pair in fields.items() for text in pair]
    assert contended.answer([(b"5-1", content)])[0] == "XRANGE"
    assert changing.called
    assert (contended.row["status"], contended.row["instance"]) == ("rejected", "two")
    assert tell(contended.table, {key: ["delivered"]}) == [False]


def test_it_comes_back_though_its_response_was_trimmed(subject: Doubled) -> None:
    contended = Contended(subject)
    Deferred.fromCoroutine(contended.table.change(contended.key, NEWS["delivered"]))
    contended.answer(b"done rejected 5-1")
    contended.answer([])
    assert contended.row["status"] == "rejected"
    assert contended.row["finished_at"] is not None


def test_it_comes_back_later_when_redis_does(subject: Doubled) -> None:
    contended = Contended(subject)
    contended.redis.connected = False
    with pytest.raises(DirectusDown):
        now(contended.table.tell({contended.key: [NEWS["delivered"]]}))
    contended.redis.connected = True
    telling = Deferred.fromCoroutine(contended.table.tell({contended.key: [NEWS["delivered"]]}))
    contended.answer(b"done rejected 5-1")
    contended.answer([])
    assert telling.called
    assert contended.row["status"] == "rejected"


@pytest.mark.parametrize("fate", [None, b"delivered commands:outbound:one 1-1", b"nonsense"])
def test_who_sets_a_row_back_may_have_it_sent_again(subject: Doubled, fate: bytes | None) -> None:
    contended = Contended(subject)
    Deferred.fromCoroutine(contended.table.change(contended.key, NEWS["delivered"]))
    contended.answer(fate)
    assert contended.row["status"] == "delivered"


def test_those_of_one_row_wait_for_each_other(subject: Doubled) -> None:
    table = CommandTable(subject.bridge)
    one, two = rows_of(subject, 2)
    subject.double.silent = True
    both = Deferred.fromCoroutine(table.tell({one: [NEWS["responded"]], two: [NEWS["failed"]]}))
    late = Deferred.fromCoroutine(table.change(two, NEWS["delivered"]))
    assert subject.double.waiting == 1, "the second one has not asked"
    subject.double.speak()
    subject.agent.flush()
    results: list[Any] = []
    both.addCallback(results.append)
    late.addCallback(results.append)
    assert results == [{one: True, two: True}, False]
    assert status_of(subject, two) == "failed"


def test_who_loses_interest_leaves_no_lock(subject: Doubled) -> None:
    table = CommandTable(subject.bridge)
    one, two = rows_of(subject, 2)
    subject.double.silent = True
    news = {one: [NEWS["responded"]], two: [NEWS["failed"]]}
    asked = [Deferred.fromCoroutine(table.tell(news)) for _ in range(3)]
    for each in asked:
        each.addErrback(lambda _: None)
        each.cancel()
    subject.agent.flush()
    subject.double.speak()
    assert tell(table, {one: ["responded"], two: ["failed"]}) == [True, True]
    assert not table._locks
