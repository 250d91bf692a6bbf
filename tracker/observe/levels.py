"""Log levels: of the process, and of single namespaces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    globalLogPublisher,
)

from tracker.untrusted import listed

#: Names of the levels, least important first.
LEVELS: Final = tuple(level.name for level in LogLevel.iterconstants())
DEFAULT: Final = "info"
#: Namespace of the audit log (who has changed what), which no level suppresses.
AUDIT: Final = "tracker.audit"

#: Namespaces that are not modules: the audit log, and Twisted's old functions of logging.
_OTHERS: Final = (AUDIT, "log_legacy")
#: Maximum number of namespaces in a message.
_MAX_KNOWN: Final = 20
#: Packages that are named where nothing of a namespace is known.
_PACKAGES: Final = ("tracker", "twisted")
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
        :raises ValueError: if the level is unknown; the message is one line.
        """
        new_level = _level(level)
        previous: str = self._predicate.logLevelForNamespace(namespace).name
        self._predicate.setLogLevelForNamespace(namespace, new_level)
        return previous


def check_namespace(namespace: str, modules: Mapping[str, Any]) -> None:
    """Check that a namespace is a loaded module or package, or a class in one.

    :param modules: name → module, see ``sys.modules``.
    :raises ValueError: if it is not; the message is one line that lists known ones beside it.
    """
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError("the namespace must be a module name, such as tracker.ingestion")
    parent, _, name = namespace.rpartition(".")
    if namespace in modules or namespace in _OTHERS:
        return
    if isinstance(getattr(modules.get(parent), name, None), type):
        return
    while parent and parent not in modules:
        parent = parent.rpartition(".")[0]
    beside = sorted(one for one in tuple(modules) if one.rpartition(".")[0] == parent)
    packages = [one for one in beside if hasattr(modules[one], "__path__")]
    known = listed((packages or beside) if parent else _PACKAGES, _MAX_KNOWN)
    raise ValueError(
        f"unknown namespace {namespace!r}; known: {known or f'{parent} and its classes'}"
    )


def _audited(event: Any) -> Any:
    # An operator who may change a level must not be able to hide later actions by that.
    return PredicateResult.yes if event.get("log_namespace") == AUDIT else PredicateResult.maybe


def _level(name: str) -> Any:
    if name not in LEVELS:
        *others, last = LEVELS
        raise ValueError(f"the level must be {', '.join(others)} or {last}, not {name!r}")
    return LogLevel.levelWithName(name)
