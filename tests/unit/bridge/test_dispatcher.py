"""From a pending row to an instance, and what stands on the row then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, capturedLogs

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.dispatching import NOW, STAMP, Bench, device, stamp
from tests.unit.bridge.double import BRIDGE_TOKEN, Trouble
from tests.unit.bridge.queries import Complaint
from tests.unit.control.wire import quiet, told
from tracker.bridge.dispatcher import GRACE, MOST_ANNOUNCED
from tracker.bridge.instances import NoInstance
from tracker.bridge.lanes import MAX_BEGUN, MAX_RUNNING
from tracker.control.commands import BadArgument, InternalError

LATER = "2026-11-18T11:31:40.000Z"


@pytest.fixture
def bench(subject: Doubled) -> Bench:
    return Bench(subject)


@pytest.fixture
def logged() -> Any:
    with capturedLogs() as events:
        yield events


def test_a_row_is_sent_as_it_stands_there(bench: Bench) -> None:
    key = bench.row(text="setdigout 1", codec="14", timeout=5, expires_at=LATER)
    bench.start()
    (command,) = bench.instances.sent
    assert command == {
        "device_id": "356307042441013",
        "text": "setdigout 1",
        "command_id": key,
        "codec": "14",
        "expires_at": LATER,
        "timeout": 5,
    }
    row = bench[key]
    assert (row["status"], row["instance"], row["routed_at"]) == ("routed", "one", STAMP)
    assert (row["reason"], row["finished_at"]) == (None, None)
    assert bench.reports[-1] is None


def test_it_holds_for_an_hour_unless_it_says_how_long(bench: Bench) -> None:
    bench.row()
    bench.start()
    assert bench.instances.sent[0]["expires_at"] == "2026-11-18T12:06:40.000Z"


def test_a_device_that_is_nowhere_is_waited_for(bench: Bench) -> None:
    bench.instances.answer = lambda _: {"status": "waiting", "instance_id": None}
    key = bench.row()
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"], row["instance"]) == ("routed", "waiting", None)


@pytest.mark.parametrize("status", ["queued", "sent", "delivered"])
def test_what_was_sent_before_and_goes_on_is_routed(bench: Bench, status: str) -> None:
    bench.instances.answer = lambda _: {"status": status}
    key = bench.row()
    bench.start()
    assert bench[key]["status"] == "routed"


@pytest.mark.parametrize("status", ["responded", "rejected", "failed", "expired"])
def test_what_was_sent_before_and_has_ended_is_told(bench: Bench, status: str) -> None:
    bench.instances.answer = lambda _: {"status": status, "reason": "why", "response": "what"}
    key = bench.row()
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"], row["response"]) == (status, "why", "what")
    assert (row["instance"], row["finished_at"]) == ("one", STAMP)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"imei": "35630704244101"}, "imei: must be an IMEI of 15 digits"),
        ({"imei": "35630704244101x"}, "imei: must be an IMEI of 15 digits"),
        ({"imei": None}, "imei: must be an IMEI of 15 digits"),
        ({"text": ""}, "text: must be 1 to 4096 bytes long"),
        ({"text": None}, "text: must be 1 to 4096 bytes long"),
        ({"text": "x" * 4097}, "text: must be 1 to 4096 bytes long"),
        ({"text": "ё" * 2049}, "text: must be 1 to 4096 bytes long"),
        ({"text": "\ud800"}, "text is not UTF-8"),
        ({"codec": "no codec"}, "codec: must be at most 16 letters"),
        ({"expires_at": "tomorrow"}, "expires_at: must have the form 2026-11-22T10:00:00Z"),
        ({"timeout": 0}, "timeout: must be a number of seconds up to 86400"),
        ({"timeout": 86_401}, "timeout: must be a number of seconds up to 86400"),
        ({"date_created": None}, "expires_at: is missing, and date_created is no time"),
        ({"date_created": "9999-12-31T23:59:59Z"}, "expires_at: is missing, and date_created"),
    ],
)
def test_what_makes_no_sense_is_never_sent_and_says_why(
    bench: Bench, fields: dict[str, Any], why: str
) -> None:
    key = bench.row(**fields)
    other = bench.row()
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"]) == ("failed", "malformed")
    assert row["response"].startswith(why)
    assert row["response"].endswith("nothing was sent: create it anew")
    assert row["finished_at"] == STAMP
    assert [command["command_id"] for command in bench.instances.sent] == [other]
    assert bench.reports[-1] is None


def test_what_makes_no_sense_to_an_instance_says_why(bench: Bench) -> None:
    bench.instances.answer = lambda _: BadArgument("codec 13 is none")
    key = bench.row(codec="13")
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"]) == ("failed", "malformed")
    assert row["response"] == "codec 13 is none; nothing was sent: create it anew"


@pytest.mark.parametrize(
    "fields",
    [{"expires_at": STAMP}, {"date_created": "2026-11-18T10:06:40.000Z"}],
)
def test_what_is_too_late_is_never_sent(bench: Bench, fields: dict[str, str]) -> None:
    key = bench.row(**fields)
    bench.start()
    assert not bench.instances.sent
    row = bench[key]
    assert (row["status"], row["reason"], row["finished_at"]) == ("expired", None, STAMP)
    assert row["response"].startswith(f"expires_at: {STAMP} was over before")


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        ("sent commands:outbound:one 1-1", "routed"),
        ("delivered commands:outbound:one 1-1", "routed"),
        ("done responded 2-1", "responded"),
        ("done failed 2-1", "failed"),
    ],
)
def test_an_expired_row_whose_command_was_sent_before_is_not_called_expired(
    bench: Bench, begun: str, status: str
) -> None:
    """The bridge was killed after it sent the command and before it changed the row."""
    key = bench.row(expires_at=STAMP)
    bench.statuses.begun[key] = begun
    bench.start()
    assert not bench.instances.sent
    assert bench[key]["status"] == status
    assert bench[key]["instance"] == ("one" if status == "routed" else None)


def test_an_expired_row_stays_pending_until_redis_says_whether_it_was_sent(bench: Bench) -> None:
    key = bench.row(expires_at=STAMP)
    bench.statuses.connected = False
    bench.start()
    assert bench[key]["status"] == "pending"
    bench.statuses.connected = True
    bench.pass_(20)
    assert bench[key]["status"] == "expired"


def test_a_row_that_is_told_of_again_and_again_is_sent_once(bench: Bench) -> None:
    answer: Deferred[dict[str, Any]] = Deferred()
    bench.instances.answer = lambda _: answer
    key = bench.row()
    bench.dispatcher.startService()
    for _ in range(50):
        assert bench.dispatcher.announce(key)
    bench.pass_(25)  # and two further looks
    for _ in range(50):
        assert bench.dispatcher.announce(key)
    bench.pass_()
    assert len(bench.instances.sent) == 1
    answer.callback({"status": "queued"})
    bench.flush()
    for _ in range(50):
        assert bench.dispatcher.announce(key)
    bench.pass_(25)
    assert len(bench.instances.sent) == 1
    assert bench[key]["status"] == "routed"


def test_what_is_being_sent_is_sent_once_when_its_device_is_told_more(bench: Bench) -> None:
    bench.start()
    answer: Deferred[dict[str, Any]] = Deferred()
    bench.instances.answer = lambda _: answer
    for number in range(3):
        bench.dispatcher.announce(bench.row(text=f"{number}", date_created=stamp(number)))
        before = bench.asked
        bench.pass_()
        for key in list(bench.dispatcher.lanes.keys):
            bench.dispatcher.announce(key)
        bench.pass_()
        assert bench.asked == before + 2, "read again for nothing"
    answer.callback({"status": "queued"})
    bench.pass_()
    assert bench.instances.texts == ["0", "1", "2"]


def test_those_that_are_announced_together_are_read_together(bench: Bench) -> None:
    bench.start()
    keys = [bench.row(imei=device(number)) for number in range(100)]
    before = bench.asked
    for key in keys:
        assert bench.dispatcher.announce(key)
    bench.pass_()
    reads = [one for one in bench.double.asked[before:] if one[0] != "PATCH"]
    assert len(reads) == 2
    assert {command["command_id"] for command in bench.instances.sent} == set(keys)


def test_a_name_of_no_pending_row_is_let_go(bench: Bench) -> None:
    key = bench.row(status="routed")
    bench.start()
    assert bench.dispatcher.announce("00000000-0000-4000-8000-000000000000")
    assert bench.dispatcher.announce(key)
    bench.pass_()
    assert not bench.instances.sent
    assert bench.reports[-1] is None


def test_a_device_is_told_in_the_order_of_creation(bench: Bench) -> None:
    """Whoever is told of its last word first must not have it done first."""
    bench.start()
    old = [bench.row(text=f"{number}", date_created=stamp(number)) for number in range(3)]
    new = bench.row(text="3", date_created=stamp(3))
    for key in (new, old[2], old[0]):
        bench.dispatcher.announce(key)
    bench.pass_()
    assert bench.instances.texts == ["0", "1", "2", "3"]


def test_it_is_told_one_after_the_other(bench: Bench) -> None:
    answers: list[Deferred[dict[str, Any]]] = []

    def answer(_: Any) -> Deferred[dict[str, Any]]:
        answers.append(Deferred())
        return answers[-1]

    bench.instances.answer = answer
    for number in range(2):
        bench.row(text=f"{number}", date_created=stamp(number))
    bench.row(text="other", imei=device(1))
    bench.start()
    assert sorted(bench.instances.texts) == ["0", "other"]
    for one in list(answers):
        one.callback({"status": "queued"})
    bench.flush()
    assert bench.instances.texts[-1] == "1"


def test_a_failure_changes_nothing_in_that_order(bench: Bench) -> None:
    """What stands behind a command that was not sent waits for it."""
    answers: list[Deferred[Any]] = []

    def answer(_: Any) -> Deferred[Any]:
        answers.append(Deferred())
        return answers[-1]

    bench.instances.answer = answer
    for number in range(3):
        bench.row(text=f"{number}", date_created=stamp(number))
    bench.row(text="other", imei=device(1))
    bench.start()
    first, other = sorted(zip(bench.instances.texts, answers, strict=True))
    assert (first[0], other[0]) == ("0", "other")
    other[1].callback(NoInstance("none lives"))
    bench.pass_(2)  # longer than nothing is tried
    first[1].callback({"status": "queued"})
    bench.instances.answer = lambda _: {"status": "queued"}
    bench.pass_(2)
    sent = [text for text in bench.instances.texts if text != "other"]
    assert sent == ["0", "1", "2"]
    assert bench.pending == 0


def test_the_device_with_the_latest_word_comes_first(bench: Bench) -> None:
    for number in range(20):
        bench.row(text=f"{number}", imei=device(number), date_created=stamp(number))
    bench.start()
    assert bench.instances.texts == [f"{number}" for number in reversed(range(20))]


def test_a_directus_that_is_down_is_asked_seldom(subject: Doubled, logged: Any) -> None:
    bench = Bench(subject, interval=0.1)
    key = bench.row()
    bench.double.troubles += [Trouble(503, "DOWN", "not now")] * 1000
    bench.start()
    bench.pass_(120)
    assert bench.asked < 15
    assert set(bench.reports) == {
        "pending commands cannot be read: SEARCH /items/commands: 503 not now"
    } or set(bench.reports) == {"pending commands cannot be read: GET /items/commands: 503 not now"}
    assert bench.dispatcher.announce(key)
    before = bench.asked
    bench.pass_()
    assert bench.asked == before
    bench.double.troubles.clear()
    bench.pass_(15)
    assert bench[key]["status"] == "routed"
    assert bench.reports[-1] is None
    assert quiet(logged)
    assert not told(logged)


def test_it_is_left_alone_for_as_long_as_it_asks(subject: Doubled) -> None:
    bench = Bench(subject, interval=0.1)
    bench.row()
    bench.double.troubles.append(Trouble(429, "REQUESTS_EXCEEDED", headers={"Retry-After": "60"}))
    bench.start()
    bench.pass_(60)
    assert bench.asked == 1
    bench.pass_(2)
    assert bench.pending == 0


def test_a_token_that_is_revoked_is_told_and_noticed_when_it_is_back(bench: Bench) -> None:
    key = bench.row()
    user = bench.double.users.pop(BRIDGE_TOKEN)
    bench.start()
    assert "401" in str(bench.reports[-1])
    bench.pass_(60)
    assert bench.asked < 10
    bench.double.users[BRIDGE_TOKEN] = user
    bench.pass_(15)
    assert (bench[key]["status"], bench.reports[-1]) == ("routed", None)


def test_a_row_that_is_removed_while_it_is_changed_holds_up_nobody(bench: Bench) -> None:
    key, other = bench.row(), bench.row(imei=device(1))

    def vanish(_: Any) -> Complaint:
        del bench.double.rows("commands")[key]
        return Complaint(403, "FORBIDDEN", "no")

    bench.double.tables["commands"].poisoned[key] = vanish
    bench.start()
    assert len(bench.instances.sent) == 2
    assert bench.double.rows("commands")[other]["status"] == "routed"
    assert set(bench.reports) == {None}


def test_a_change_that_directus_does_not_take_is_made_later(bench: Bench) -> None:
    """The command was sent; its row says so when it can."""
    key = bench.row()

    def answer(_: Any) -> dict[str, Any]:
        bench.double.troubles.append(Trouble(503))
        return {"status": "queued"}

    bench.instances.answer = answer
    bench.start()
    assert bench[key]["status"] == "pending"
    assert str(bench.reports[-1]).startswith("Directus: PATCH")
    bench.instances.answer = lambda _: {"status": "delivered"}
    bench.pass_(1)
    assert bench[key]["status"] == "routed"
    assert len({command["command_id"] for command in bench.instances.sent}) == 1


def test_without_an_instance_rows_wait_and_the_log_stays_small(bench: Bench, logged: Any) -> None:
    keys = [bench.row(imei=device(number)) for number in range(50)]
    bench.instances.answer = lambda _: NoInstance("no instance lives")
    bench.start()
    for key in keys:
        bench.dispatcher.announce(key)
    bench.pass_(120)
    assert len(bench.instances.sent) < 100  # not 50 each time
    assert bench.pending == 50
    assert set(bench.reports) == {"commands are not sent: no instance lives"}
    assert quiet(logged)
    assert not told(logged)
    bench.instances.answer = lambda _: {"status": "queued"}
    bench.pass_(15)
    assert bench.pending == 0
    assert bench.reports[-1] is None


def test_a_row_that_cannot_be_dealt_with_holds_up_no_other(bench: Bench, logged: Any) -> None:
    bad = bench.row(text="bad")
    for number in range(120):
        bench.row(imei=device(number))
    bench.instances.answer = lambda command: (
        InternalError("a fault") if command["text"] == "bad" else {"status": "queued"}
    )
    bench.start()
    assert (bench.pending, bench.reports[-1]) == (1, None)
    bench.pass_(60)
    assert bench[bad]["status"] == "pending"
    warnings = [event for event in logged if event["log_level"].name == "warn"]
    assert len(warnings) == 1
    assert warnings[0]["key"] == bad
    assert quiet(logged)


def spoil(bench: Bench, *texts: str) -> None:
    """Have Directus fail with the rows of these commands."""

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        if not texts or command["text"] in texts:
            bench.double.troubles.append(Trouble(500))
        return {"status": "queued"}

    bench.instances.answer = answer


def test_a_row_that_directus_fails_with_holds_up_no_other(bench: Bench, logged: Any) -> None:
    """As with a trigger of the database, or a value that it does not take."""
    for number in range(50):
        bench.row(imei=device(number), date_created=stamp(number))
    bad = bench.row(text="bad", date_created=stamp(900))
    spoil(bench, "bad")
    bench.start()
    assert (bench.pending, bench.reports[-1]) == (1, None)
    bench.pass_(60)
    assert [event["key"] for event in logged if event["log_level"].name == "warn"] == [bad]


def test_where_it_fails_with_all_it_is_left_alone(subject: Doubled) -> None:
    bench = Bench(subject, interval=0.1)
    for number in range(50):
        bench.row(imei=device(number), date_created=stamp(number))
    spoil(bench)
    bench.start()
    bench.pass_(120)
    assert bench.asked < 200  # less than ten in each of some fifteen tries
    assert str(bench.reports[-1]).startswith("Directus: PATCH")


def test_a_fault_of_ours_is_told_and_the_next_look_comes(bench: Bench, logged: Any) -> None:
    bench.double.troubles.append(Trouble(200, body=b'{"data": [{"id": "and nothing else"}]}'))
    bench.start()
    assert [event for event in logged if "log_failure" in event]
    key = bench.row()
    bench.pass_(11)
    assert bench[key]["status"] == "routed"


def test_too_many_announcements_are_not_kept(bench: Bench) -> None:
    assert not bench.dispatcher.announce("before it starts")
    bench.start()
    bench.double.silent = True
    for number in range(MOST_ANNOUNCED):
        assert bench.dispatcher.announce(f"{number}")
    assert not bench.dispatcher.announce("one more")


def test_no_more_is_read_than_can_be_sent(bench: Bench) -> None:
    bench.instances.answer = lambda _: Deferred()
    bench.start()
    for number in range(1000):
        assert bench.dispatcher.announce(bench.row(imei=device(number)))
    bench.pass_()
    held = len(bench.dispatcher.lanes.keys)
    assert MAX_BEGUN <= held <= MAX_BEGUN + 100
    assert len(bench.instances.sent) == MAX_RUNNING


def test_a_stop_waits_for_what_is_being_sent(bench: Bench) -> None:
    answer: Deferred[dict[str, Any]] = Deferred()
    bench.instances.answer = lambda _: answer
    key = bench.row(date_created=stamp(0))
    waits = bench.row(date_created=stamp(1))
    bench.start()
    stopped = bench.stop()
    assert not stopped
    assert not bench.dispatcher.announce(key)
    answer.callback({"status": "queued"})
    bench.flush()
    assert stopped == [None]
    assert (bench[key]["status"], bench[waits]["status"]) == ("routed", "pending")
    assert not bench.clock.getDelayedCalls()


def test_it_does_not_wait_for_ever(bench: Bench, logged: Sequence[LogEvent]) -> None:
    bench.instances.answer = lambda _: Deferred()
    keys = [bench.row(), bench.row(), bench.row(imei=device(1))]
    bench.start()
    stopped = bench.stop()
    bench.pass_(GRACE - 0.1)
    assert not stopped
    bench.pass_(0.2)
    assert stopped == [None]
    assert [bench[key]["status"] for key in keys] == ["pending"] * 3
    assert quiet(logged)
    # After another start they are sent again; their ids say that it is not twice.
    bench.instances.answer = lambda _: {"status": "queued"}
    bench.start()
    assert bench.pending == 0


def test_a_stop_in_the_middle_of_a_question_is_quick(bench: Bench, logged: Any) -> None:
    bench.double.silent = True
    bench.row()
    bench.start()
    bench.dispatcher.announce("00000000-0000-4000-8000-000000000000")
    bench.pass_()
    assert bench.stop() == [None]
    assert not bench.clock.getDelayedCalls()
    assert quiet(logged)


def test_no_look_begins_before_the_last_has_ended(bench: Bench) -> None:
    bench.double.silent = True
    bench.start()
    bench.pass_(9)  # less than the question may take
    assert bench.double.waiting == 1
    assert bench.clock.seconds() == pytest.approx(NOW + 9)
