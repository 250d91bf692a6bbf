"""The dispatcher while Directus, Redis or instances fail, or single rows cause errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.dispatching import Bench, device, stamp
from tests.unit.bridge.double import BRIDGE_TOKEN, CannedResponse
from tests.unit.bridge.queries import RequestError
from tests.unit.control.wire import log_lines, no_traceback
from tracker.bridge.instances import NoInstance
from tracker.control.commands import InternalError


@pytest.fixture
def bench(subject: Doubled) -> Bench:
    return Bench(subject)


def test_requests_are_rare_while_directus_is_down(subject: Doubled, logged: Any) -> None:
    bench = Bench(subject, interval=0.1)
    key = bench.row()
    bench.double.canned += [CannedResponse(503, "DOWN", "not now")] * 1000
    bench.start()
    bench.pass_(120)
    assert bench.requests < 15
    assert set(bench.reports) == {
        "cannot read pending commands: SEARCH /items/commands: 503 not now"
    }
    assert bench.dispatcher.announce(key)
    before = bench.requests
    bench.pass_()
    assert bench.requests == before
    bench.double.canned.clear()
    bench.pass_(15)
    assert bench[key]["status"] == "routed"
    assert bench.reports[-1] is None
    assert no_traceback(logged)
    assert not log_lines(logged)


def test_sending_commands_respects_retry_after(subject: Doubled) -> None:
    bench = Bench(subject, interval=0.1)
    bench.row()
    bench.double.canned.append(
        CannedResponse(429, "REQUESTS_EXCEEDED", headers={"Retry-After": "60"})
    )
    bench.start()
    bench.pass_(60)
    assert bench.requests == 1
    bench.pass_(2)
    assert bench.pending == 0


def test_revoked_token_is_reported_until_it_is_restored(bench: Bench) -> None:
    key = bench.row()
    user = bench.double.users.pop(BRIDGE_TOKEN)
    bench.start()
    assert "401" in str(bench.reports[-1])
    bench.pass_(60)
    assert bench.requests < 10
    bench.double.users[BRIDGE_TOKEN] = user
    bench.pass_(15)
    assert (bench[key]["status"], bench.reports[-1]) == ("routed", None)


def test_concurrently_deleted_row_does_not_delay_others(bench: Bench) -> None:
    key, other = bench.row(), bench.row(imei=device(1))

    def vanish(_: Any) -> RequestError:
        del bench.double.rows("commands")[key]
        return RequestError(403, "FORBIDDEN", "no")

    bench.double.tables["commands"].rejections[key] = vanish
    bench.start()
    assert len(bench.instances.sent) == 2
    assert bench.double.rows("commands")[other]["status"] == "routed"
    assert set(bench.reports) == {None}


def test_failed_change_of_a_row_is_retried(bench: Bench) -> None:
    """The command was sent already, so that only its row changes."""
    key = bench.row()

    def answer(_: Any) -> dict[str, Any]:
        bench.double.canned.append(CannedResponse(503))
        return {"status": "queued"}

    bench.instances.answer = answer
    bench.start()
    assert bench[key]["status"] == "pending"
    assert "PATCH /items/commands: 503" in str(bench.reports[-1])
    bench.instances.answer = lambda _: {"status": "delivered"}
    bench.pass_(1)
    assert bench[key]["status"] == "routed"
    assert len({command["command_id"] for command in bench.instances.sent}) == 1


def test_rows_stay_pending_without_an_instance_and_are_not_logged(
    bench: Bench, logged: Any
) -> None:
    keys = [bench.row(imei=device(number)) for number in range(50)]
    bench.instances.answer = lambda _: NoInstance("no instance")
    bench.start()
    for key in keys:
        bench.dispatcher.announce(key)
    bench.pass_(120)
    assert len(bench.instances.sent) < 100  # not 50 each time
    assert bench.pending == 50
    assert set(bench.reports) == {"cannot send commands: no instance"}
    assert no_traceback(logged)
    assert not log_lines(logged)
    bench.instances.answer = lambda _: {"status": "queued"}
    bench.pass_(15)
    assert bench.pending == 0
    assert bench.reports[-1] is None


def test_row_that_causes_internal_errors_in_instances_does_not_delay_others(
    bench: Bench, logged: Any
) -> None:
    bad = bench.row(text="bad")
    for number in range(120):
        bench.row(imei=device(number))
    bench.instances.answer = lambda command: (
        InternalError("a fault") if command["content"] == "bad" else {"status": "queued"}
    )
    bench.start()
    assert (bench.pending, bench.reports[-1]) == (1, None)
    bench.pass_(60)
    assert bench[bad]["status"] == "pending"
    warnings = [event for event in logged if event["log_level"].name == "warn"]
    assert len(warnings) == 1
    assert warnings[0]["key"] == bad
    assert no_traceback(logged)


def fail_changes(bench: Bench, *texts: str) -> None:
    """Let Directus fail to change the rows of these commands (default: of all)."""

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        if not texts or command["content"] in texts:
            bench.double.canned.append(CannedResponse(500))
        return {"status": "queued"}

    bench.instances.answer = answer


def test_row_that_causes_errors_in_directus_does_not_delay_others(
    bench: Bench, logged: Any
) -> None:
    """The cause may be a trigger of the database, or a value that it cannot store."""
    for number in range(50):
        bench.row(imei=device(number), date_created=stamp(number))
    bad = bench.row(text="bad", date_created=stamp(900))
    fail_changes(bench, "bad")
    bench.start()
    assert (bench.pending, bench.reports[-1]) == (1, None)
    bench.pass_(60)
    assert [event["key"] for event in logged if event["log_level"].name == "warn"] == [bad]


def test_requests_are_rare_when_every_row_causes_errors_in_directus(subject: Doubled) -> None:
    bench = Bench(subject, interval=0.1)
    for number in range(50):
        bench.row(imei=device(number), date_created=stamp(number))
    fail_changes(bench)
    bench.start()
    bench.pass_(120)
    assert bench.requests < 300  # about five for each row
    assert "PATCH /items/commands: 500" in str(bench.reports[-1])


def reject(bench: Bench, keys: Iterable[str], status: int) -> None:
    """Let Directus always fail to change these rows."""
    error = RequestError(status, "X", "no")
    bench.double.tables["commands"].rejections.update(dict.fromkeys(keys, lambda _: error))


@pytest.mark.parametrize("status", [400, 403, 500, 502, 504])
def test_row_that_always_fails_delays_neither_others_nor_readiness(
    bench: Bench, logged: Any, status: int
) -> None:
    for number in range(50):
        bench.row(imei=device(number), date_created=stamp(number))
    bad = bench.row(text="bad", date_created=stamp(900))
    reject(bench, [bad], status)
    bench.start()
    bench.pass_(2)
    assert bench.pending == 1
    assert bench.reports[-1] is None
    reports = len(bench.reports)
    bench.pass_(200)
    assert set(bench.reports[reports:]) == {None}
    assert bench.instances.texts.count("bad") < 10, "it is retried without a delay"
    assert [event["key"] for event in logged if event["log_level"].name == "warn"] == [bad]
    bench.double.tables["commands"].rejections.clear()
    bench.pass_(300)
    assert bench.pending == 0


@pytest.mark.parametrize("status", [403, 500, 504])
def test_rows_behind_pages_of_failing_ones_are_sent(
    bench: Bench, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.bridge.pending.PAGE_SIZE", 10)
    bad = [bench.row(imei=device(number), date_created=stamp(900)) for number in range(25)]
    reject(bench, bad, status)
    good = bench.row(imei=device(999), date_created=stamp(1))
    bench.start()
    bench.pass_(20)
    assert bench[good]["status"] == "routed"
    bench.pass_(20)
    assert bench.reports[-1] is None


def test_newest_command_of_a_device_is_sent_behind_failing_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.bridge.pending.PAGE_SIZE", 10)
    reject(bench, [bench.row(date_created=stamp(number)) for number in range(25)], 500)
    bench.row(imei=device(1), date_created=stamp(901))
    newest = bench.row(date_created=stamp(900))
    bench.start()
    bench.pass_(30)
    assert bench[newest]["status"] == "routed"


def test_missing_permission_is_reported_until_a_row_is_changed(bench: Bench) -> None:
    bad = bench.row()
    reject(bench, [bad], 403)
    bench.start()
    bench.pass_(100)
    assert "403" in str(bench.reports[-1])
    bench.row(imei=device(1))
    bench.pass_(20)
    assert (bench.pending, bench.reports[-1]) == (1, None)


@pytest.mark.parametrize("status", [403, 500, 504])
def test_directus_that_changes_no_row_is_reported_until_it_recovers(
    bench: Bench, status: int
) -> None:
    keys = [bench.row(imei=device(number), date_created=stamp(number)) for number in range(20)]
    reject(bench, keys, status)
    bench.start()
    bench.pass_(300)
    assert str(status) in str(bench.reports[-1])
    assert bench.requests < 300
    bench.double.tables["commands"].rejections.clear()
    bench.pass_(60)
    assert (bench.pending, bench.reports[-1]) == (0, None)


@pytest.mark.parametrize("status", [403, 500])
def test_row_that_is_alone_and_always_fails_is_set_aside(bench: Bench, status: int) -> None:
    reject(bench, [bench.row()], status)
    bench.start()
    bench.pass_(2)
    assert str(status) in str(bench.reports[-1])
    bench.pass_(600)
    assert bench.reports[-1] is None
    assert bench.pending == 1


def test_failing_row_that_was_deleted_is_no_longer_reported(bench: Bench) -> None:
    bad = bench.row()
    reject(bench, [bad], 403)
    bench.start()
    assert bench.reports[-1] is not None
    del bench.double.rows("commands")[bad]
    bench.pass_(20)
    assert bench.reports[-1] is None


def test_row_that_cannot_be_read_does_not_delay_others(bench: Bench, logged: Any) -> None:
    keys = [bench.row(imei=device(number), date_created=stamp(number)) for number in range(150)]
    bench.double.tables["commands"].unreadable = {keys[100], keys[10]}
    bench.start()
    bench.pass_(20)
    assert (bench.pending, bench.reports[-1]) == (2, None)
    assert no_traceback(logged)
    announced = bench.row(imei=device(999))
    bench.dispatcher.announce(keys[10])
    bench.dispatcher.announce(announced)
    bench.pass_(1)
    assert bench[announced]["status"] == "routed"


def test_polling_continues_after_an_unexpected_error(bench: Bench, logged: Any) -> None:
    bench.double.canned.append(CannedResponse(200, body=b'{"data": [{"id": "and nothing else"}]}'))
    bench.start()
    assert [event for event in logged if "log_failure" in event]
    key = bench.row()
    bench.pass_(11)
    assert bench[key]["status"] == "routed"
