"""Which events reach the log: by level, and by the part of the program they come from."""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.application.service import Service
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    globalLogPublisher,
)

#: The names of the levels, least important first.
LEVELS: Final = tuple(level.name for level in LogLevel.iterconstants())
DEFAULT: Final = "info"
#: The namespace of what is logged whatever the levels: who has changed what.
AUDIT: Final = "tracker.audit"

_NAMESPACE: Final = re.compile(r"(?=.{1,100}$)[A-Za-z_]\w*(\.\w+)*", re.ASCII)


class LogLevels(Service):
    """The levels of one process, from its start on.

    :raises ValueError: when there is no such level.
    """

    def __init__(self, level: str = DEFAULT) -> None:
        self._predicate = LogLevelFilterPredicate(defaultLogLevel=_level(level))

    def privilegedStartService(self) -> None:
        """Hold from now on."""
        super().privilegedStartService()
        self.install()

    def install(self, publisher: Any = globalLogPublisher) -> None:
        """Put a filter in front of all who observe the log now.

        twistd has begun to log by then, and lets nobody wrap what it has chosen.
        """
        audited: Any = _audited
        for observer in list(publisher._observers):
            publisher.removeObserver(observer)
            publisher.addObserver(FilteringLogObserver(observer, [audited, self._predicate]))

    def set(self, level: str, namespace: str = "") -> str:
        """Log what is of this level or above.

        :param namespace: of a module or package, as ``tracker.ingestion``; empty: of all that
            has no level of its own.
        :return: what held before.
        :raises ValueError: when there is no such level, or that is no namespace; in one line.
        """
        wanted = _level(level)
        if namespace and not _NAMESPACE.fullmatch(namespace):
            raise ValueError("the namespace must be that of a module, as tracker.ingestion")
        before: str = self._predicate.logLevelForNamespace(namespace).name
        self._predicate.setLogLevelForNamespace(namespace, wanted)
        return before


def _audited(event: Any) -> Any:
    """Whoever may lower a level must not thereby be able to hide what they do next."""
    return PredicateResult.yes if event.get("log_namespace") == AUDIT else PredicateResult.maybe


def _level(name: str) -> Any:
    if name not in LEVELS:
        raise ValueError(f"the level must be one of {', '.join(LEVELS)}, not {name!r}")
    return LogLevel.levelWithName(name)
