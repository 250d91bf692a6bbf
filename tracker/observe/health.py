"""Whether a process can do its work: named conditions, each with a reason while it fails."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger


class Health:
    """The conditions under which a role is ready. It is not before all have been met."""

    _log = Logger()

    def __init__(self) -> None:
        self._reasons: dict[str, str | None] = {}

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

    @property
    def ready(self) -> bool:
        """Whether every condition is met."""
        return not self.reasons

    @property
    def reasons(self) -> dict[str, str]:
        """Condition → why it is not met; empty when ready."""
        return {name: reason for name, reason in self._reasons.items() if reason is not None}
