"""Log levels: of the process, and of single namespaces."""

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

#: Names of the levels, least important first.
LEVELS: Final = tuple(level.name for level in LogLevel.iterconstants())
DEFAULT: Final = "info"
#: Namespace of the audit log (who has changed what), which no level suppresses.
AUDIT: Final = "tracker.audit"

_NAMESPACE: Final = re.compile(r"(?=.{1,100}$)[A-Za-z_]\w*(\.\w+)*", re.ASCII)


class LogLevels(Service):
    """Log levels of a process, in force from its start.

    :raises ValueError: if the level is unknown.
    """

    def __init__(self, level: str = DEFAULT) -> None:
        self._predicate = LogLevelFilterPredicate(defaultLogLevel=_level(level))

    def privilegedStartService(self) -> None:
        """Put the levels in force."""
        super().privilegedStartService()
        self.install()

    def install(self, publisher: Any = globalLogPublisher) -> None:
        """Put a filter in front of all current observers of the log.

        twistd chooses its observer before this is called, and has no option to wrap it.
        """
        audited: Any = _audited
        for observer in list(publisher._observers):
            publisher.removeObserver(observer)
            publisher.addObserver(FilteringLogObserver(observer, [audited, self._predicate]))

    def set(self, level: str, namespace: str = "") -> str:
        """Log events of this level or above.

        :param namespace: a module or package, such as ``tracker.ingestion``; empty: all that have
            no level of their own.
        :return: the previous level.
        :raises ValueError: if the level is unknown, or the namespace malformed; the
            message is one line.
        """
        new_level = _level(level)
        if namespace and not _NAMESPACE.fullmatch(namespace):
            raise ValueError("the namespace must be a module name, such as tracker.ingestion")
        previous: str = self._predicate.logLevelForNamespace(namespace).name
        self._predicate.setLogLevelForNamespace(namespace, new_level)
        return previous


def _audited(event: Any) -> Any:
    # An operator who may change a level must not be able to hide later actions by that.
    return PredicateResult.yes if event.get("log_namespace") == AUDIT else PredicateResult.maybe


def _level(name: str) -> Any:
    if name not in LEVELS:
        *others, last = LEVELS
        raise ValueError(f"the level must be {', '.join(others)} or {last}, not {name!r}")
    return LogLevel.levelWithName(name)
