"""Many pending rows are read page by page, sent in order, and need little memory."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.dispatching import DEVICE, STAMP, Bench, device, stamp
from tests.unit.bridge.double import BRIDGE_TOKEN
from tracker.bridge import rest
from tracker.bridge.pending import PAGE_SIZE
from tracker.control.commands import InternalError


@pytest.fixture
def bench(subject: Doubled) -> Bench:
    return Bench(subject)


def send_to_failing_instances(bench: Bench) -> Counter[str]:
    """Start with instances that fail; return how often each row was tried."""
    bench.instances.answer = lambda _: InternalError("a fault")
    bench.start()
    return Counter(command["command_id"] for command in bench.instances.sent)


def test_commands_of_all_pages_are_sent(bench: Bench) -> None:
    for number in range(3 * PAGE_SIZE + 50):
        bench.row(imei=device(number), date_created=stamp(number))
    bench.start()
    assert bench.pending == 0
    assert len(bench.instances.sent) == 3 * PAGE_SIZE + 50


def test_rows_that_stay_pending_are_tried_once_each(bench: Bench) -> None:
    keys = [bench.row(imei=device(n), date_created=stamp(n)) for n in range(4 * PAGE_SIZE)]
    assert send_to_failing_instances(bench) == Counter(keys)


def test_rows_with_the_same_time_across_pages_are_tried_once_each(bench: Bench) -> None:
    """Rows before and after them are tried once, too."""
    moments = [1] * 50 + [2] * (PAGE_SIZE + 70) + [3] * 50
    keys = [bench.row(imei=device(n), date_created=stamp(at)) for n, at in enumerate(moments)]
    assert send_to_failing_instances(bench) == Counter(keys)


@pytest.mark.parametrize("are_last", [False, True])
@pytest.mark.parametrize("count", [30, PAGE_SIZE, 2 * PAGE_SIZE + 30])
def test_rows_without_a_creation_time_are_tried_once_each(
    bench: Bench, are_last: bool, count: int
) -> None:
    """The database may sort them first or last; they and the others must not hide each other."""
    bench.double.tables["commands"].null_is_least = are_last
    soon = "2026-11-18T11:30:00.000Z"
    moments = [None] * count + [stamp(n) for n in range(2 * PAGE_SIZE)]
    keys = [
        bench.row(imei=device(n), date_created=at, expires_at=soon) for n, at in enumerate(moments)
    ]
    assert send_to_failing_instances(bench) == Counter(keys)


@pytest.mark.parametrize("moment", [stamp(2), None])
def test_many_rows_with_the_same_time_are_tried_once_each(bench: Bench, moment: str | None) -> None:
    """The requests do not grow with the number of rows, and later rows are tried, too."""
    for number in range(5 * PAGE_SIZE):
        bench.row(imei=device(number), date_created=moment, expires_at="2026-11-18T11:30:00Z")
    behind = bench.row(imei=device(999), date_created=stamp(1))
    tried = send_to_failing_instances(bench)
    assert max(tried.values()) == 1
    assert len(tried) == 5 * PAGE_SIZE + 1
    assert behind in tried
    longest = max(len(json.dumps(body)) for _, _, body in bench.double.requests if body)
    assert longest < 100 * PAGE_SIZE


def test_only_one_page_of_rows_is_in_memory(bench: Bench) -> None:
    bench.instances.answer = lambda _: Deferred()
    for number in range(20 * PAGE_SIZE):
        bench.row(imei=device(number), date_created=stamp(number // 10))
    bench.start()
    bench.pass_(30)
    assert len(bench.dispatcher.lanes.keys) == PAGE_SIZE
    assert bench.requests <= 3


def test_older_commands_of_a_device_are_sent_first(bench: Bench) -> None:
    """The order holds across pages, and other devices do not wait."""
    old = [f"{number}" for number in range(3 * PAGE_SIZE)]
    for number, text in enumerate(old):
        bench.row(text=text, date_created=stamp(number))
    for number in range(PAGE_SIZE - 1):
        bench.row(text="other", imei=device(number), date_created=stamp(500 + number))
    bench.row(text="last", date_created=stamp(800))
    bench.start()
    bench.pass_(1)
    of_device = [one["content"] for one in bench.instances.sent if one["device_id"] == DEVICE]
    assert of_device == [*old, "last"]
    others = [n for n, one in enumerate(bench.instances.sent) if one["content"] == "other"]
    assert max(others) < 2 * PAGE_SIZE
    assert bench.pending == 0


def test_announced_command_is_sent_after_older_unannounced_ones(bench: Bench) -> None:
    bench.start()
    for number in range(2 * PAGE_SIZE):
        bench.row(text=f"{number}", date_created=stamp(number))
    bench.dispatcher.announce(bench.row(text="last", date_created=stamp(500)))
    bench.pass_(1)  # less than the interval of the polls
    assert bench.instances.texts == [*(f"{number}" for number in range(2 * PAGE_SIZE)), "last"]


def test_new_row_does_not_wait_for_the_end_of_a_long_poll(bench: Bench) -> None:
    def slow(command: dict[str, Any]) -> Any:
        answer: Deferred[dict[str, Any]] = Deferred()
        bench.clock.callLater(1, answer.callback, {"status": "queued"})
        return answer

    bench.instances.answer = slow
    for number in range(6 * PAGE_SIZE):
        bench.row(text="old", imei=device(number), date_created=stamp(number))
    bench.start()
    new = bench.row(text="new", imei=device(999), date_created=STAMP)
    bench.pass_(30)
    assert bench[new]["status"] == "routed"
    assert bench.pending > 2 * PAGE_SIZE
    bench.pass_(80)
    assert bench.pending == 0
    assert len(bench.instances.sent) == 6 * PAGE_SIZE + 1


def test_poll_ends_when_all_rows_of_a_page_are_postponed(bench: Bench) -> None:
    for number in range(4 * PAGE_SIZE):
        bench.row(date_created=stamp(number))
    tried = send_to_failing_instances(bench)
    assert tried
    before = bench.requests
    bench.pass_(5)
    assert bench.requests == before


def test_rows_that_exceed_one_response_are_read_one_by_one(
    subject: Doubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "MAX_RESPONSE_BYTES", 20_000)
    bench = Bench(subject)
    small = [bench.row(text=f"{number}", imei=device(number)) for number in range(10)]
    large = [bench.row(text="x" * size, imei=device(99)) for size in (10_000, 15_000, 30_000)]
    bench.start()
    assert {bench[key]["status"] for key in small} == {"routed"}
    assert {bench[key]["reason"] for key in large} == {"malformed"}
    assert {bench[key]["response"][:30] for key in large} == {"text: must be 1 to 4096 bytes "}
    assert bench.reports[-1] is None


def test_bytes_that_exceed_one_response_are_read_one_by_one(
    subject: Doubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "MAX_RESPONSE_BYTES", 20_000)
    bench = Bench(subject)
    small = [bench.row(text=None, hex="00 " * 4096, imei=device(number)) for number in range(3)]
    large = bench.row(text=None, hex="00 " * 10_000, imei=device(9))
    bench.start()
    assert {bench[key]["status"] for key in small} == {"routed"}
    assert bench.instances.texts == [bytes(4096)] * 3
    assert bench[large]["reason"] == "malformed"


def test_texts_are_sent_if_directus_has_no_field_for_bytes(bench: Bench) -> None:
    """An earlier version of Tracker has set it up."""
    user = bench.double.users[BRIDGE_TOKEN]
    assert user.permissions is not None
    readable = [name for name in user.permissions["commands", "read"] if name != "hex"]
    permissions = {**user.permissions, ("commands", "read"): readable}
    bench.double.users[BRIDGE_TOKEN] = evolve(user, permissions=permissions)
    key = bench.row(text="getinfo")
    bench.start()
    assert bench[key]["status"] == "routed"
    assert bench.reports[-1] is None
