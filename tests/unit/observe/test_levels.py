"""Which events reach the log."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.logger import Logger, LogLevel, LogPublisher

from tracker.observe.levels import AUDIT, DEFAULT, LEVELS, LogLevels


class Log:
    """A log of its own, with loggers that write to it."""

    def __init__(self, levels: LogLevels) -> None:
        self.events: list[Any] = []
        self.others: list[Any] = []
        self.publisher = LogPublisher()
        for kept in (self.events, self.others):
            observer: Any = kept.append
            self.publisher.addObserver(observer)
        levels.install(self.publisher)

    def says(self, namespace: str, level: LogLevel = LogLevel.debug) -> bool:
        """Whether an event of there, and of that level, reaches the log."""
        self.events.clear()
        self.others.clear()
        Logger(namespace, observer=self.publisher).emit(level, "something")
        assert len(self.events) == len(self.others)
        return bool(self.events)

    def lowest(self, namespace: str) -> str:
        """The least important level of there that reaches the log."""
        name: str
        for name in LEVELS:
            if self.says(namespace, LogLevel.levelWithName(name)):
                return name
        return ""


def test_the_levels_are_those_of_twisted() -> None:
    assert LEVELS == ("debug", "info", "warn", "error", "critical")
    assert DEFAULT in LEVELS


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_of_a_level_or_above_is_logged(level: str) -> None:
    log = Log(LogLevels(level))
    said = [name for name in LEVELS if log.says("tracker", LogLevel.levelWithName(name))]
    assert said == list(LEVELS[LEVELS.index(level) :])


def test_the_level_changes_while_it_runs() -> None:
    levels = LogLevels()
    log = Log(levels)
    assert levels.set("debug") == "info"
    assert log.lowest("tracker.ingestion.gateway") == "debug"
    assert levels.set("critical") == "debug"
    assert log.lowest("tracker.ingestion.gateway") == "critical"


@pytest.mark.parametrize("namespace", ["", "tracker", AUDIT])
def test_no_level_hides_who_has_changed_what(namespace: str) -> None:
    levels = LogLevels("critical")
    levels.set("critical", namespace)
    log = Log(levels)
    assert log.says(AUDIT, LogLevel.info)
    assert not log.says(f"{AUDIT}s", LogLevel.info)


def test_a_part_may_have_a_level_of_its_own() -> None:
    levels = LogLevels()
    log = Log(levels)
    assert levels.set("debug", "tracker.ingestion") == "info"
    assert levels.set("warn", "tracker.ingestion.gateway") == "debug"
    assert log.lowest("tracker.ingestion") == "debug"
    assert log.lowest("tracker.ingestion.publisher") == "debug"
    assert log.lowest("tracker.ingestion.gateway") == "warn"
    assert log.lowest("tracker.ingestions") == "info"
    assert log.lowest("twisted.internet") == "info"
    # Which goes on when the level of all others changes.
    levels.set("error")
    assert log.lowest("tracker.ingestion.publisher") == "debug"
    assert log.lowest("tracker") == "error"


def test_what_held_before_is_told_for_a_part_without_a_level_of_its_own() -> None:
    levels = LogLevels("warn")
    assert levels.set("debug", "tracker.ingestion.gateway") == "warn"
    levels.set("error", "tracker")
    assert levels.set("info", "tracker.redis") == "error"
    assert levels.set("info", "tracker.redis") == "info"


def test_they_hold_from_the_start_of_the_process_on(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[object] = []
    monkeypatch.setattr(LogLevels, "install", lambda self: installed.append(self))
    levels, process = LogLevels(), MultiService()
    levels.setServiceParent(process)
    process.privilegedStartService()
    process.startService()
    assert installed == [levels]


@pytest.mark.parametrize("level", ["", "loud", "DEBUG", "info ", "debug\n"])
def test_there_are_no_other_levels(level: str) -> None:
    with pytest.raises(ValueError, match="must be one of debug, info, warn, error, critical"):
        LogLevels(level)
    levels = LogLevels()
    with pytest.raises(ValueError, match="must be one of debug"):
        levels.set(level, "tracker")
    assert levels.set("info", "tracker") == "info"


@pytest.mark.parametrize(
    "namespace", [" ", "a b", "a..b", ".a", "a.", "1a", "a\n", "*", "tracker/x", "a" * 101, "ä"]
)
def test_what_is_no_namespace_has_no_level(namespace: str) -> None:
    levels = LogLevels()
    with pytest.raises(ValueError, match="must be that of a module"):
        levels.set("debug", namespace)


@pytest.mark.parametrize("namespace", ["tracker", "tracker.ingestion", "_a.b_1.c", "a" * 100])
def test_what_may_be_a_module_may_have_a_level(namespace: str) -> None:
    levels = LogLevels()
    levels.set("debug", namespace)
    assert Log(levels).says(namespace)
