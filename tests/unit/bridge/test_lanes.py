"""Tasks of many devices, few at a time."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from tracker.bridge.lanes import MAX_BEGUN, MAX_RUNNING, Lanes


class Bench:
    """Lanes, and tasks that end when the test says so."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.running: dict[str, Deferred[bool]] = {}
        self.results: dict[str, Any] = {}

    def begin(self, key: str, device: str) -> None:
        def task() -> Coroutine[Deferred[Any], Any, bool]:
            return self.run(key)

        ended = self.lanes.begin(key, device, task)
        ended.addBoth(lambda result: self.results.setdefault(key, result))

    async def run(self, key: str) -> bool:
        self.running[key] = Deferred()
        try:
            return await self.running[key]
        finally:
            del self.running[key]


def test_tasks_of_one_device_run_one_after_the_other() -> None:
    bench = Bench()
    for key in "abc":
        bench.begin(key, "1")
    bench.begin("x", "2")
    assert list(bench.running) == ["a", "x"]
    bench.running["a"].callback(True)
    assert bench.results == {"a": True}
    assert set(bench.running) == {"x", "b"}
    bench.running["b"].errback(RuntimeError("a fault"))
    assert set(bench.running) == {"x", "c"}
    assert set(bench.lanes.keys) == {"x", "c"}


def test_few_tasks_run_at_a_time() -> None:
    bench = Bench()
    for number in range(MAX_RUNNING + 2):
        bench.begin(f"{number}", f"{number}")
    assert len(bench.running) == MAX_RUNNING
    bench.running["0"].callback(False)
    assert len(bench.running) == MAX_RUNNING
    assert f"{MAX_RUNNING}" in bench.running


def test_task_that_runs_or_waits_is_not_begun_again() -> None:
    bench = Bench()
    for _ in range(3):
        bench.begin("a", "1")
    assert list(bench.lanes.keys) == ["a"]
    bench.running["a"].callback(True)
    assert not bench.running
    bench.begin("a", "1")
    assert list(bench.running) == ["a"]


def test_there_is_room_until_many_tasks_are_begun() -> None:
    bench = Bench()
    for number in range(MAX_BEGUN):
        assert bench.lanes.room.called
        bench.begin(f"{number}", "1")
    assert not bench.lanes.room.called
    bench.running["0"].callback(True)
    assert bench.lanes.room.called


def test_end_of_all_tasks_is_told() -> None:
    bench = Bench()
    ended: list[Any] = []
    bench.lanes.all_done().addCallback(ended.append)
    assert ended
    bench.begin("a", "1")
    bench.begin("b", "1")
    ended.clear()
    bench.lanes.all_done().addCallback(ended.append)
    bench.running["a"].callback(True)
    assert not ended
    bench.running["b"].callback(True)
    assert ended


def test_task_is_cancelled_by_its_result() -> None:
    bench = Bench()
    results = [bench.lanes.begin(key, "1", lambda key=key: bench.run(key)) for key in "abc"]  # type: ignore[misc]
    failed: list[Any] = []
    for result in results[:2]:
        result.addErrback(failed.append)
    results[1].cancel()
    results[0].cancel()
    assert len(failed) == 2
    assert list(bench.running) == ["c"]
    assert list(bench.lanes.keys) == ["c"]
