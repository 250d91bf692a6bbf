"""Pending rows are sent to an instance, and get its status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from tests.unit import plainvendor
from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.dispatching import NOW, STAMP, Bench, device, stamp
from tests.unit.control.wire import no_traceback
from tracker.bridge.dispatcher import MAX_ANNOUNCED, STOP_TIMEOUT
from tracker.bridge.instances import NoInstance
from tracker.bridge.lanes import MAX_RUNNING, MAX_STARTED
from tracker.control.client import CannotSendBytes
from tracker.control.commands import BadArgument

LATER = "2026-11-18T11:31:40.000Z"


@pytest.fixture
def bench(subject: Doubled) -> Bench:
    return Bench(subject)


def test_command_is_sent_with_all_fields_of_its_row(bench: Bench) -> None:
    key = bench.row(text="setdigout 1", codec="14", timeout=5, expires_at=LATER)
    bench.start()
    (command,) = bench.instances.sent
    assert command == {
        "device_id": "356307042441013",
        "content": "setdigout 1",
        "command_id": key,
        "codec": "14",
        "expires_at": LATER,
        "sender": "Directus",
        "timeout": 5,
    }
    row = bench[key]
    assert (row["status"], row["instance"], row["routed_at"]) == ("routed", "one", STAMP)
    assert (row["reason"], row["finished_at"]) == (None, None)
    assert bench.reports[-1] is None


def test_bytes_of_a_row_are_sent(bench: Bench) -> None:
    keys = [bench.row(text=text, hex="0A 0b:FF\n") for text in (None, "")]
    bench.start()
    assert bench.instances.texts == [b"\x0a\x0b\xff"] * 2
    assert {bench[key]["status"] for key in keys} == {"routed"}


def test_bytes_wait_in_their_row_for_an_instance_that_can_send_them(bench: Bench) -> None:
    bench.instances.answer = lambda command: (
        CannotSendBytes() if isinstance(command["content"], bytes) else {"status": "queued"}
    )
    key, other = bench.row(text=None, hex="00"), bench.row(imei=device(1))
    bench.start()
    assert [bench[one]["status"] for one in (key, other)] == ["pending", "routed"]
    bench.instances.answer = lambda _: {"status": "queued"}
    bench.pass_(60)
    assert bench[key]["status"] == "routed"


def test_command_without_expiry_expires_after_an_hour(bench: Bench) -> None:
    bench.row()
    bench.start()
    assert bench.instances.sent[0]["expires_at"] == "2026-11-18T12:06:40.000Z"


def test_command_of_an_offline_device_is_routed_and_waits(bench: Bench) -> None:
    bench.instances.answer = lambda _: {"status": "waiting", "instance_id": None}
    key = bench.row()
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"], row["instance"]) == ("routed", "waiting", None)


@pytest.mark.parametrize("status", ["queued", "sent", "delivered"])
def test_command_in_progress_is_routed(bench: Bench, status: str) -> None:
    bench.instances.answer = lambda _: {"status": status}
    key = bench.row()
    bench.start()
    assert bench[key]["status"] == "routed"


@pytest.mark.parametrize("status", ["responded", "rejected", "failed", "expired"])
def test_finished_command_gets_its_final_status(bench: Bench, status: str) -> None:
    bench.instances.answer = lambda _: {"status": status, "reason": "why", "response": "what"}
    key = bench.row()
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"], row["response"]) == (status, "why", "what")
    assert (row["instance"], row["finished_at"]) == ("one", STAMP)


def test_commands_of_a_device_are_sent_in_order_whatever_the_case_of_its_id(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainvendor.install(monkeypatch)
    keys = [
        bench.row(imei=imei, date_created=stamp(number))
        for number, imei in enumerate(("00AF", "00af", "00aF"))
    ]
    bench.start()
    assert [one["command_id"] for one in bench.instances.sent] == keys
    assert {one["device_id"] for one in bench.instances.sent} == {"00AF"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"imei": "3563070424410"}, "imei: must be "),
        ({"imei": "35630704244101x"}, "imei"),
        ({"imei": None}, "imei"),
        ({"text": ""}, "text"),
        ({"text": None}, "text"),
        ({"text": "x" * 4097}, "text"),
        ({"text": "ё" * 2049}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"text": "getinfo", "hex": "00"}, "text and hex: one of them must be empty. "),
        ({"text": None, "hex": "0"}, "hex: must be pairs of hex digits"),
        ({"text": None, "hex": "00" * 4097}, "hex: must be 1 to 4096 bytes long. "),
        ({"text": None, "hex": "00  " * 40_000}, "hex: must be at most 16384 characters long. "),
        ({"codec": "no codec"}, "codec"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 86_401}, "timeout"),
        ({"date_created": None}, "expires_at"),
        ({"date_created": "9999-12-31T23:59:59Z"}, "expires_at"),
    ],
)
def test_malformed_row_fails_with_a_reason_and_is_not_sent(
    bench: Bench, fields: dict[str, Any], named: str
) -> None:
    key = bench.row(**fields)
    other = bench.row()
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"]) == ("failed", "malformed")
    assert row["response"].startswith(named)
    assert row["finished_at"] == STAMP
    assert [command["command_id"] for command in bench.instances.sent] == [other]
    assert bench.reports[-1] is None


def test_command_that_an_instance_rejects_fails_with_a_reason(bench: Bench) -> None:
    bench.instances.answer = lambda _: BadArgument("codec 13 is none")
    key = bench.row(codec="13")
    bench.start()
    row = bench[key]
    assert (row["status"], row["reason"]) == ("failed", "malformed")
    assert row["response"].startswith("codec 13 is none. ")


@pytest.mark.parametrize(
    "fields",
    [{"expires_at": STAMP}, {"date_created": "2026-11-18T10:06:40.000Z"}],
)
def test_expired_command_is_not_sent(bench: Bench, fields: dict[str, str]) -> None:
    key = bench.row(**fields)
    bench.start()
    assert not bench.instances.sent
    row = bench[key]
    assert (row["status"], row["reason"], row["finished_at"]) == ("expired", None, STAMP)
    assert row["response"].startswith("expires_at: ")
    assert STAMP in row["response"]


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ("sent commands:outbound:one 1-1", "routed"),
        ("delivered commands:outbound:one 1-1", "routed"),
        ("done responded 2-1", "responded"),
        ("done failed 2-1", "failed"),
    ],
)
def test_expired_row_gets_the_status_of_an_earlier_send(
    bench: Bench, record: str, status: str
) -> None:
    """The bridge was killed after it sent the command and before it changed the row."""
    key = bench.row(expires_at=STAMP)
    bench.redis.records[key] = record
    bench.start()
    assert not bench.instances.sent
    assert bench[key]["status"] == status
    assert bench[key]["instance"] == ("one" if status == "routed" else None)


def test_expired_row_stays_pending_while_redis_is_down(bench: Bench) -> None:
    key = bench.row(expires_at=STAMP)
    bench.redis.connected = False
    bench.start()
    assert bench[key]["status"] == "pending"
    bench.redis.connected = True
    bench.pass_(20)
    assert bench[key]["status"] == "expired"


def test_row_that_is_announced_repeatedly_is_sent_once(bench: Bench) -> None:
    answer: Deferred[dict[str, Any]] = Deferred()
    bench.instances.answer = lambda _: answer
    key = bench.row()
    bench.dispatcher.startService()
    for _ in range(50):
        assert bench.dispatcher.announce(key)
    bench.pass_(25)  # with two more polls
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


def test_row_that_is_being_sent_is_not_read_again(bench: Bench) -> None:
    bench.start()
    answer: Deferred[dict[str, Any]] = Deferred()
    bench.instances.answer = lambda _: answer
    for number in range(3):
        bench.dispatcher.announce(bench.row(text=f"{number}", date_created=stamp(number)))
        before = bench.requests
        bench.pass_()
        for key in list(bench.dispatcher.lanes.keys):
            bench.dispatcher.announce(key)
        bench.pass_()
        assert bench.requests == before + 2, "a row was read again while it was being sent"
    answer.callback({"status": "queued"})
    bench.pass_()
    assert bench.instances.texts == ["0", "1", "2"]


def test_rows_announced_together_are_read_together(bench: Bench) -> None:
    bench.start()
    keys = [bench.row(imei=device(number)) for number in range(100)]
    before = bench.requests
    for key in keys:
        assert bench.dispatcher.announce(key)
    bench.pass_()
    reads = [one for one in bench.double.requests[before:] if one[0] != "PATCH"]
    assert len(reads) == 2
    assert {command["command_id"] for command in bench.instances.sent} == set(keys)


def test_announcement_without_a_pending_row_is_ignored(bench: Bench) -> None:
    key = bench.row(status="routed")
    bench.start()
    assert bench.dispatcher.announce("00000000-0000-4000-8000-000000000000")
    assert bench.dispatcher.announce(key)
    bench.pass_()
    assert not bench.instances.sent
    assert bench.reports[-1] is None


def test_commands_of_a_device_are_sent_in_order_of_creation(bench: Bench) -> None:
    """The order of the announcements is irrelevant."""
    bench.start()
    old = [bench.row(text=f"{number}", date_created=stamp(number)) for number in range(3)]
    new = bench.row(text="3", date_created=stamp(3))
    for key in (new, old[2], old[0]):
        bench.dispatcher.announce(key)
    bench.pass_()
    assert bench.instances.texts == ["0", "1", "2", "3"]


def test_commands_of_a_device_are_sent_one_after_another(bench: Bench) -> None:
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


def test_order_of_commands_survives_a_failure(bench: Bench) -> None:
    """The commands after an unsent command of the same device wait for it."""
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
    other[1].callback(NoInstance("no instance"))
    bench.pass_(2)  # longer than the pause after the failure
    first[1].callback({"status": "queued"})
    bench.instances.answer = lambda _: {"status": "queued"}
    bench.pass_(2)
    sent = [text for text in bench.instances.texts if text != "other"]
    assert sent == ["0", "1", "2"]
    assert bench.pending == 0


def test_device_with_the_newest_command_comes_first(bench: Bench) -> None:
    for number in range(20):
        bench.row(text=f"{number}", imei=device(number), date_created=stamp(number))
    bench.start()
    assert bench.instances.texts == [f"{number}" for number in reversed(range(20))]


def test_number_of_announced_rows_is_limited(bench: Bench) -> None:
    assert not bench.dispatcher.announce("before it starts")
    bench.start()
    bench.double.silent = True
    for number in range(MAX_ANNOUNCED):
        assert bench.dispatcher.announce(f"{number}")
    assert not bench.dispatcher.announce("one more")


def test_reading_pauses_while_many_rows_are_being_sent(bench: Bench) -> None:
    bench.instances.answer = lambda _: Deferred()
    bench.start()
    for number in range(1000):
        assert bench.dispatcher.announce(bench.row(imei=device(number)))
    bench.pass_()
    held = len(bench.dispatcher.lanes.keys)
    assert MAX_STARTED <= held <= MAX_STARTED + 100
    assert len(bench.instances.sent) == MAX_RUNNING


def test_stop_waits_for_commands_being_sent(bench: Bench) -> None:
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


def test_stop_of_the_dispatcher_ends_after_its_timeout(
    bench: Bench, logged: Sequence[LogEvent]
) -> None:
    bench.instances.answer = lambda _: Deferred()
    keys = [bench.row(), bench.row(), bench.row(imei=device(1))]
    bench.start()
    stopped = bench.stop()
    bench.pass_(STOP_TIMEOUT - 0.1)
    assert not stopped
    bench.pass_(0.2)
    assert stopped == [None]
    assert [bench[key]["status"] for key in keys] == ["pending"] * 3
    assert no_traceback(logged)
    # The next start sends them again, with the same ids.
    bench.instances.answer = lambda _: {"status": "queued"}
    bench.start()
    assert bench.pending == 0


def test_stop_cancels_requests_to_directus(bench: Bench, logged: Any) -> None:
    bench.double.silent = True
    bench.row()
    bench.start()
    bench.dispatcher.announce("00000000-0000-4000-8000-000000000000")
    bench.pass_()
    assert bench.stop() == [None]
    assert not bench.clock.getDelayedCalls()
    assert no_traceback(logged)


def test_polls_for_pending_rows_do_not_overlap(bench: Bench) -> None:
    bench.double.silent = True
    bench.start()
    bench.pass_(9)  # less than the timeout of a request
    assert bench.double.waiting == 1
    assert bench.clock.seconds() == pytest.approx(NOW + 9)
