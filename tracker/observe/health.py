"""Whether a process can do its work: named conditions, each with a reason while it fails.

Beside them stand details: what is good to know, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger


class Health:
    """The conditions under which a role is ready. It is not before all have been met."""

    _log = Logger()

    def __init__(self) -> None:
        self._reasons: dict[str, str | None] = {}
        self._details: dict[str, Callable[[], Any]] = {}

    def condition(self, name: str) -> Callable[[str | None], None]:
        """Add a condition, not met yet.

        :return: how to report on it: None when it is met, else one line why not.
            A change is logged, a repetition is not.
        :raises ValueError: when there is one of this name.
        """
        if name in self._reasons:
            raise ValueError(f"two conditions of one name: {name}")
        self._reasons[name] = "starting"

        def report(reason: str | None) -> None:
            if reason == self._reasons[name]:
                return
            self._reasons[name] = reason
            if reason is not None:
                self._log.warn("not ready: {name}: {reason}", name=name, reason=reason)
            elif self.ready:
                self._log.info("ready")

        return report

    def detail(self, name: str, tell: Callable[[], Any]) -> None:
        """Add something to be told; it makes no difference to readiness.

        :param tell: asked each time; its answer is what JSON can hold.
        :raises ValueError: when there is one of this name.
        """
        if name in self._details:
            raise ValueError(f"two details of one name: {name}")
        self._details[name] = tell

    @property
    def details(self) -> dict[str, Any]:
        """Name → what is to be told now."""
        return {name: tell() for name, tell in self._details.items()}

    @property
    def conditions(self) -> dict[str, bool]:
        """Condition → whether it is met."""
        return {name: reason is None for name, reason in self._reasons.copy().items()}

    @property
    def ready(self) -> bool:
        """Whether every condition is met."""
        return not self.reasons

    @property
    def reasons(self) -> dict[str, str]:
        """Condition → why it is not met; empty when ready."""
        return {name: reason for name, reason in self._reasons.items() if reason is not None}
