"""Many rows that are pending: page by page, in an order that makes sense, with little memory."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.dispatching import DEVICE, STAMP, Bench, device, stamp
from tracker.bridge import rest
from tracker.bridge.pending import MOST_LEFT, PAGE
from tracker.control.commands import InternalError


@pytest.fixture
def bench(subject: Doubled) -> Bench:
    return Bench(subject)


def all_stay(bench: Bench) -> Counter[str]:
    """Have no row leave its place; how often each is tried."""
    bench.instances.answer = lambda _: InternalError("a fault")
    bench.start()
    return Counter(command["command_id"] for command in bench.instances.sent)


def test_all_pages_are_gone_through(bench: Bench) -> None:
    for number in range(3 * PAGE + 50):
        bench.row(imei=device(number), date_created=stamp(number))
    bench.start()
    assert bench.pending == 0
    assert len(bench.instances.sent) == 3 * PAGE + 50


def test_rows_that_stay_are_passed_over_once_each(bench: Bench) -> None:
    keys = [bench.row(imei=device(n), date_created=stamp(n)) for n in range(4 * PAGE)]
    assert all_stay(bench) == Counter(keys)


def test_so_are_those_of_one_moment_across_pages(bench: Bench) -> None:
    """And those before and behind them."""
    moments = [1] * 50 + [2] * (PAGE + 70) + [3] * 50
    keys = [bench.row(imei=device(n), date_created=stamp(at)) for n, at in enumerate(moments)]
    assert all_stay(bench) == Counter(keys)


def test_and_those_whose_moment_is_unknown(bench: Bench) -> None:
    """A database may have them first, as here: they must not hide the others."""
    soon = "2026-11-18T11:30:00.000Z"
    moments = [None] * (PAGE + 30) + [stamp(n) for n in range(2 * PAGE)]
    keys = [
        bench.row(imei=device(n), date_created=at, expires_at=soon) for n, at in enumerate(moments)
    ]
    assert all_stay(bench) == Counter(keys)


@pytest.mark.parametrize("moment", [stamp(2), None])
def test_too_many_of_one_moment_that_stay_are_left_to_another_look(
    bench: Bench, moment: str | None
) -> None:
    """What is remembered of them is bounded, and what is behind them is seen all the same."""
    for number in range(MOST_LEFT + 3 * PAGE):
        bench.row(imei=device(number), date_created=moment, expires_at="2026-11-18T11:30:00Z")
    behind = bench.row(imei=device(999), date_created=stamp(1))
    tried = all_stay(bench)
    assert max(tried.values()) == 1
    assert MOST_LEFT < len(tried) <= MOST_LEFT + 2 * PAGE
    if moment is not None:
        assert behind in tried
    longest = max(len(json.dumps(body)) for _, _, body in bench.double.asked if body)
    assert longest < 50 * (MOST_LEFT + 2 * PAGE)


def test_what_is_held_is_a_page_or_two_however_many_there_are(bench: Bench) -> None:
    bench.instances.answer = lambda _: Deferred()
    for number in range(20 * PAGE):
        bench.row(imei=device(number), date_created=stamp(number // 10))
    bench.start()
    bench.pass_(30)
    assert len(bench.dispatcher.lanes.keys) == PAGE
    assert bench.asked <= 3


def test_a_devices_older_commands_come_before_its_newer_ones(bench: Bench) -> None:
    """Also where they are pages behind; those of other devices do not wait for them."""
    old = [f"{number}" for number in range(3 * PAGE)]
    for number, text in enumerate(old):
        bench.row(text=text, date_created=stamp(number))
    for number in range(PAGE - 1):
        bench.row(text="other", imei=device(number), date_created=stamp(500 + number))
    bench.row(text="last", date_created=stamp(800))
    bench.start()
    bench.pass_(1)
    of_device = [one["text"] for one in bench.instances.sent if one["device_id"] == DEVICE]
    assert of_device == [*old, "last"]
    others = [n for n, one in enumerate(bench.instances.sent) if one["text"] == "other"]
    assert max(others) < 2 * PAGE
    assert bench.pending == 0


def test_a_new_command_is_not_sent_before_what_was_missed(bench: Bench) -> None:
    """A webhook tells of the one; of those before it, none did."""
    bench.start()
    for number in range(2 * PAGE):
        bench.row(text=f"{number}", date_created=stamp(number))
    bench.dispatcher.announce(bench.row(text="last", date_created=stamp(500)))
    bench.pass_(1)  # no need to wait for the next look
    assert bench.instances.texts == [*(f"{number}" for number in range(2 * PAGE)), "last"]


def test_what_comes_during_a_long_look_need_not_wait_for_its_end(bench: Bench) -> None:
    def slow(command: dict[str, Any]) -> Any:
        answer: Deferred[dict[str, Any]] = Deferred()
        bench.clock.callLater(1, answer.callback, {"status": "queued"})
        return answer

    bench.instances.answer = slow
    for number in range(6 * PAGE):
        bench.row(text="old", imei=device(number), date_created=stamp(number))
    bench.start()
    new = bench.row(text="new", imei=device(999), date_created=STAMP)
    bench.pass_(30)
    assert bench[new]["status"] == "routed"
    assert bench.pending > 2 * PAGE
    bench.pass_(80)
    assert bench.pending == 0
    assert len(bench.instances.sent) == 6 * PAGE + 1


def test_devices_that_are_all_behind_end_no_walk_and_begin_no_endless_one(bench: Bench) -> None:
    for number in range(4 * PAGE):
        bench.row(date_created=stamp(number))
    tried = all_stay(bench)
    assert tried
    before = bench.asked
    bench.pass_(5)
    assert bench.asked == before


def test_rows_that_are_too_long_to_be_read_together(
    subject: Doubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "LARGEST_ANSWER", 20_000)
    bench = Bench(subject)
    small = [bench.row(text=f"{number}", imei=device(number)) for number in range(10)]
    large = [bench.row(text="x" * size, imei=device(99)) for size in (10_000, 15_000, 30_000)]
    bench.start()
    assert {bench[key]["status"] for key in small} == {"routed"}
    assert {bench[key]["reason"] for key in large} == {"malformed"}
    assert {bench[key]["response"][:30] for key in large} == {"text: must be 1 to 4096 bytes "}
    assert bench.reports[-1] is None
