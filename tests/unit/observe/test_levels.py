"""Log levels."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.logger import Logger, LogLevel, LogPublisher

from tracker.observe.levels import AUDIT, DEFAULT, LEVELS, LogLevels, check_namespace


class Log:
    """A log publisher with two observers, filtered by the levels."""

    def __init__(self, levels: LogLevels) -> None:
        self.events: list[Any] = []
        self.others: list[Any] = []
        self.publisher = LogPublisher()
        for kept in (self.events, self.others):
            observer: Any = kept.append
            self.publisher.addObserver(observer)
        levels.install(self.publisher)

    def shows(self, namespace: str, level: LogLevel = LogLevel.debug) -> bool:
        """Return True if an event of the namespace and level reaches the observers."""
        self.events.clear()
        self.others.clear()
        Logger(namespace, observer=self.publisher).emit(level, "something")
        assert len(self.events) == len(self.others)
        return bool(self.events)

    def lowest(self, namespace: str) -> str:
        """Return the least important level of the namespace that reaches the observers."""
        name: str
        for name in LEVELS:
            if self.shows(namespace, LogLevel.levelWithName(name)):
                return name
        return ""


def test_log_levels_are_those_of_twisted() -> None:
    assert LEVELS == ("debug", "info", "warn", "error", "critical")
    assert DEFAULT in LEVELS


@pytest.mark.parametrize("level", LEVELS)
def test_events_of_a_level_or_above_are_logged(level: str) -> None:
    log = Log(LogLevels(level))
    shown = [name for name in LEVELS if log.shows("tracker", LogLevel.levelWithName(name))]
    assert shown == list(LEVELS[LEVELS.index(level) :])


def test_log_level_can_change_at_run_time() -> None:
    levels = LogLevels()
    log = Log(levels)
    assert levels.set("debug") == "info"
    assert log.lowest("tracker.ingestion.gateway") == "debug"
    assert levels.set("critical") == "debug"
    assert log.lowest("tracker.ingestion.gateway") == "critical"


@pytest.mark.parametrize("namespace", ["", "tracker", AUDIT])
def test_no_level_suppresses_the_audit_log(namespace: str) -> None:
    levels = LogLevels("critical")
    levels.set("critical", namespace)
    log = Log(levels)
    assert log.shows(AUDIT, LogLevel.info)
    assert not log.shows(f"{AUDIT}s", LogLevel.info)


def test_namespace_can_have_its_own_log_level() -> None:
    levels = LogLevels()
    log = Log(levels)
    assert levels.set("debug", "tracker.ingestion") == "info"
    assert levels.set("warn", "tracker.ingestion.gateway") == "debug"
    assert log.lowest("tracker.ingestion") == "debug"
    assert log.lowest("tracker.ingestion.publisher") == "debug"
    assert log.lowest("tracker.ingestion.gateway") == "warn"
    assert log.lowest("tracker.ingestions") == "info"
    assert log.lowest("twisted.internet") == "info"
    # A change of the default level does not affect namespaces with their own levels.
    levels.set("error")
    assert log.lowest("tracker.ingestion.publisher") == "debug"
    assert log.lowest("tracker") == "error"


def test_setting_a_level_returns_the_former_or_inherited_level() -> None:
    levels = LogLevels("warn")
    assert levels.set("debug", "tracker.ingestion.gateway") == "warn"
    levels.set("error", "tracker")
    assert levels.set("info", "tracker.redis") == "error"
    assert levels.set("info", "tracker.redis") == "info"


def test_levels_are_installed_once_at_process_start(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[object] = []
    monkeypatch.setattr(LogLevels, "install", lambda self: installed.append(self))
    levels, process = LogLevels(), MultiService()
    levels.setServiceParent(process)
    process.privilegedStartService()
    process.startService()
    assert installed == [levels]


@pytest.mark.parametrize("level", ["", "loud", "DEBUG", "info ", "debug\n"])
def test_unknown_log_level_is_rejected(level: str) -> None:
    with pytest.raises(ValueError, match="must be debug, info, warn, error or critical"):
        LogLevels(level)
    levels = LogLevels()
    with pytest.raises(ValueError, match="must be debug"):
        levels.set(level, "tracker")
    assert levels.set("info", "tracker") == "info"


@pytest.mark.parametrize(
    "namespace", [" ", "a b", "a..b", ".a", "a.", "1a", "a\n", "*", "tracker/x", "a" * 101, "ä"]
)
def test_malformed_namespace_is_rejected(namespace: str) -> None:
    with pytest.raises(ValueError, match="must be a module name"):
        check_namespace(namespace, {namespace: None})


@pytest.mark.parametrize("namespace", ["tracker", "tracker.ingestion", "_a.b_1.c", "a" * 100])
def test_loaded_module_is_accepted_as_namespace(namespace: str) -> None:
    check_namespace(namespace, {namespace: None})
    levels = LogLevels()
    levels.set("debug", namespace)
    assert Log(levels).shows(namespace)


@pytest.mark.parametrize("namespace", [f"{LogLevels.__module__}.LogLevels", AUDIT, "log_legacy"])
def test_class_that_logs_and_the_audit_log_are_accepted_as_namespaces(namespace: str) -> None:
    check_namespace(namespace, sys.modules)


@pytest.mark.parametrize(
    ("namespace", "known"),
    [
        ("tracker.ingestoin", "tracker.a, tracker.ingestion"),
        ("tracker.ingestoin.gateway", "tracker.a, tracker.ingestion"),
        ("tracker.a.b", "tracker.a and its classes"),
        ("trakcer", "tracker, twisted"),
    ],
)
def test_namespace_that_is_not_loaded_is_rejected_and_its_neighbours_listed(
    namespace: str, known: str
) -> None:
    modules = dict.fromkeys(("os", "tracker", "tracker.ingestion", "tracker.a"))
    with pytest.raises(ValueError, match=f"^unknown namespace '{namespace}'; known: {known}$"):
        check_namespace(namespace, modules)
