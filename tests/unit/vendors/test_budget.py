"""Budgets refill with time, go into debt, and take a fixed amount of memory."""

from __future__ import annotations

import sys

import pytest

from tracker.limits import Limits
from tracker.vendors.budget import (
    MAX_KNOWN_SOURCES,
    OWN_BURST,
    Bucket,
    DatagramBudget,
    MessageBudget,
    Verdict,
)

HERE = ("192.0.2.1", 1)
LIMITS = Limits(peer_work=0.1, spare_work=0.1)


def test_bucket_is_full_at_first_and_refills_up_to_its_burst() -> None:
    bucket = Bucket(rate=2, burst=4, now=0)
    assert bucket.level(100) == 4
    bucket.take(3)
    assert bucket.level(100.5) == 2
    assert bucket.level(200) == 4


def test_bucket_in_debt_reports_the_time_until_it_has_tokens() -> None:
    bucket = Bucket(rate=2, burst=4, now=0)
    bucket.take(6)
    wait = bucket.wait(0)
    assert wait == pytest.approx(1)
    assert bucket.level(wait) > 0
    assert bucket.wait(wait) == 0


def test_debt_of_a_bucket_is_limited_to_its_burst() -> None:
    bucket = Bucket(rate=2, burst=4, now=0)
    bucket.take(1000)
    assert bucket.level(0) == -4


def test_clock_set_back_neither_refills_nor_stops_a_bucket() -> None:
    bucket = Bucket(rate=2, burst=4, now=100)
    bucket.take(4)
    assert bucket.level(50) == 0
    assert bucket.level(51) == 2


def test_source_is_admitted_again_after_the_clock_was_set_back() -> None:
    budget = DatagramBudget(LIMITS, 1000)
    budget.worked(HERE, None, OWN_BURST, 1000)
    assert [budget.check_source(HERE, now) for now in (100, 101, 102)] == [
        *(Verdict.SOURCE, Verdict.UNKNOWN_SOURCES, Verdict.ADMITTED)
    ]


@pytest.mark.parametrize(("size", "number"), [(1, 20), (100, 10)])
def test_messages_are_limited_by_number_and_by_bytes(size: int, number: int) -> None:
    budget = MessageBudget(Limits(message_rate=10, message_bytes_rate=500, message_burst=2), 0)
    taken = 0
    while not budget.wait(0):
        budget.take(1, size)
        taken += 1
    assert taken == number
    assert budget.wait(budget.wait(0)) == 0


def test_source_over_its_budget_is_refused_until_it_refills() -> None:
    budget = DatagramBudget(LIMITS, 1)
    assert budget.check_source(HERE, 1) is Verdict.ADMITTED
    budget.worked(HERE, None, OWN_BURST, 1)
    assert budget.check_source(HERE, 1) is Verdict.SOURCE
    assert budget.check_source(HERE, 1.1) is Verdict.ADMITTED


def test_unknown_sources_cannot_use_up_the_budget_of_known_ones() -> None:
    budget = DatagramBudget(LIMITS, 1)
    budget.remember_source(HERE, "one")
    for port in range(100):
        budget.worked(("198.51.100.1", port), None, OWN_BURST / 10, 1)
    assert budget.check_source(("198.51.100.2", 7), 1) is Verdict.UNKNOWN_SOURCES
    assert budget.check_source(HERE, 1) is Verdict.ADMITTED
    assert budget.check_source(("198.51.100.2", 7), 2) is Verdict.ADMITTED


def test_budget_of_a_device_is_shared_by_its_sources() -> None:
    budget = DatagramBudget(LIMITS, 1)
    for port in range(10):
        source = ("192.0.2.1", port)
        budget.remember_source(source, str(source))
        budget.worked(source, "one", OWN_BURST * 0.9, 1)
    assert budget.check_source(("192.0.2.1", 3), 1) is Verdict.ADMITTED
    assert budget.check_device("one", 1) is Verdict.DEVICE
    assert budget.check_device("two", 1) is Verdict.ADMITTED
    assert budget.check_device("one", 2) is Verdict.ADMITTED


def memory(budget: DatagramBudget) -> int:
    parts = [budget._known, budget._source_of]
    for places in (budget._sources, budget._devices):
        parts += [places._levels, places._times]
    return sum(map(sys.getsizeof, parts))


def test_forged_sources_and_devices_take_no_memory() -> None:
    budget = DatagramBudget(LIMITS, 1)
    before = memory(budget)
    for number in range(100_000):
        source = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number & 65_535)
        budget.check_source(source, 1)
        budget.check_device(str(number), 1)
        budget.worked(source, str(number), 1e-9, 1)
    assert memory(budget) == before


def test_number_of_known_sources_is_limited() -> None:
    budget = DatagramBudget(LIMITS, 1)
    for number in range(MAX_KNOWN_SOURCES + 10):
        budget.remember_source((f"host {number}", 1), str(number))
        budget.remember_source(("host 5", 1), "5")  # a source that sends all the time
    assert len(budget._known) == MAX_KNOWN_SOURCES
    assert ("host 5", 1) in budget._known
    assert ("host 6", 1) not in budget._known


def test_device_that_changes_its_source_displaces_no_other_source() -> None:
    budget = DatagramBudget(LIMITS, 1)
    budget.remember_source(HERE, "honest")
    for number in range(MAX_KNOWN_SOURCES + 10):
        budget.remember_source(("192.0.2.2", number), "busy")
    assert HERE in budget._known
    assert list(budget._known)[-1] == ("192.0.2.2", MAX_KNOWN_SOURCES + 9)
    assert len(budget._known) == len(budget._source_of) == 2


def test_source_shared_by_devices_stays_known() -> None:
    budget = DatagramBudget(LIMITS, 1)
    for device in ("one", "two", "one", "two"):
        budget.remember_source(HERE, device)
        assert HERE in budget._known
    budget.remember_source(("192.0.2.2", 1), "one")
    assert HERE in budget._known
    assert len(budget._known) == len(budget._source_of) == 2
