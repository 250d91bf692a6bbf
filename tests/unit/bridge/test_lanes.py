"""Tasks of many devices, of which a few run at the same time."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from tracker.bridge.lanes import MAX_RUNNING, MAX_STARTED, Lanes


class Bench:
    """Lanes, and tasks that end when the test fires their Deferred."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.running: dict[str, Deferred[bool]] = {}
        self.results: dict[str, Any] = {}

    def start(self, key: str, device: str) -> None:
        def task() -> Coroutine[Deferred[Any], Any, bool]:
            return self.run(key)

        ended = self.lanes.start(key, device, task)
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
        bench.start(key, "1")
    bench.start("x", "2")
    assert list(bench.running) == ["a", "x"]
    bench.running["a"].callback(True)
    assert bench.results == {"a": True}
    assert set(bench.running) == {"x", "b"}
    bench.running["b"].errback(RuntimeError("a fault"))
    assert set(bench.running) == {"x", "c"}
    assert set(bench.lanes.keys) == {"x", "c"}


def test_number_of_running_tasks_is_limited() -> None:
    bench = Bench()
    for number in range(MAX_RUNNING + 2):
        bench.start(f"{number}", f"{number}")
    assert len(bench.running) == MAX_RUNNING
    bench.running["0"].callback(False)
    assert len(bench.running) == MAX_RUNNING
    assert f"{MAX_RUNNING}" in bench.running


def test_running_or_waiting_task_is_not_started_again() -> None:
    bench = Bench()
    for _ in range(3):
        bench.start("a", "1")
    assert list(bench.lanes.keys) == ["a"]
    bench.running["a"].callback(True)
    assert not bench.running
    bench.start("a", "1")
    assert list(bench.running) == ["a"]


def test_room_is_available_until_the_maximum_number_of_tasks_is_started() -> None:
    bench = Bench()
    for number in range(MAX_STARTED):
        assert bench.lanes.room.called
        bench.start(f"{number}", "1")
    assert not bench.lanes.room.called
    bench.running["0"].callback(True)
    assert bench.lanes.room.called


def test_all_done_fires_when_all_tasks_have_ended() -> None:
    bench = Bench()
    ended: list[Any] = []
    bench.lanes.all_done().addCallback(ended.append)
    assert ended
    bench.start("a", "1")
    bench.start("b", "1")
    ended.clear()
    bench.lanes.all_done().addCallback(ended.append)
    bench.running["a"].callback(True)
    assert not ended
    bench.running["b"].callback(True)
    assert ended


def test_cancelling_a_result_cancels_its_task() -> None:
    bench = Bench()
    results = [bench.lanes.start(key, "1", lambda key=key: bench.run(key)) for key in "abc"]  # type: ignore[misc]
    failed: list[Any] = []
    for result in results[:2]:
        result.addErrback(failed.append)
    results[1].cancel()
    results[0].cancel()
    assert len(failed) == 2
    assert list(bench.running) == ["c"]
    assert list(bench.lanes.keys) == ["c"]
