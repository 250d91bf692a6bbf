"""Rows that Directus fails to change, as opposed to failures of Directus as a whole.

A trigger of the database, a Flow, or a permission for single items may make Directus fail with one
row every time. Such a row must not delay the others, nor make the bridge look out of order. That it
is the row's fault is known once another row was changed after its first failure; it is assumed of a
few rows that fail repeatedly while Directus responds to other requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import FORBIDDEN, SERVICE_UNAVAILABLE, UNAUTHORIZED

from tracker.bridge.rest import DirectusError, DirectusRefused

#: Number of rows that may fail although no other row succeeds, before Directus is blamed.
MAX_SUSPECTS: Final = 8
#: Number of rows that are remembered; of more, those that failed first are forgotten.
MAX_ROWS: Final = 1000
#: Seconds until a row is tried again: none after its first failure, then doubling delays. With many
#: suspects there is a delay after the first failure, too, so that other rows get their turn.
FIRST_DELAY: Final = 10.0
MAX_DELAY: Final = 300.0
#: Further failures, some minutes, after which a row is blamed that fails with 403.
FORBIDDEN_PATIENCE: Final = 3

_TOO_MANY_REQUESTS: Final = 429
#: Responses to any request: Directus asks to wait, or does not accept the token.
_OF_DIRECTUS: Final = (UNAUTHORIZED, _TOO_MANY_REQUESTS, SERVICE_UNAVAILABLE)


def calls_for_a_pause(error: DirectusError) -> bool:
    """Return True if a further request would probably fail, too, or wait in vain."""
    return error.status is None or error.status in _OF_DIRECTUS


@define
class _Row:
    attempts: int
    successes_before: int
    """Successes of other rows before its first failure."""
    due: float
    error: DirectusError


class FailingRows:
    """The rows that Directus has failed to change.

    :param patience: failures of a row after which it is blamed without proof.
    :param may_forbid: blame a row without proof after failures with 403, too. A missing permission
        mostly concerns all rows, so this takes :data:`FORBIDDEN_PATIENCE` more of them.
    """

    def __init__(self, clock: IReactorTime, patience: int = 3, *, may_forbid: bool = True) -> None:
        self.successes = 0
        """Number of rows that were changed."""
        self.failures = 0
        """Number of failures since then."""
        self._clock = clock
        self._patience = patience
        self._may_forbid = may_forbid
        self._rows: OrderedDict[str, _Row] = OrderedDict()

    @property
    def keys(self) -> Collection[str]:
        """IDs of the rows."""
        return self._rows.keys()

    def failed(self, key: str, error: DirectusError, successes_before: int | None = None) -> None:
        """Count a failure to change a row.

        :param successes_before: :attr:`successes` before the request; None: it is unchanged.
        """
        if successes_before is None:
            successes_before = self.successes
        row = self._rows.setdefault(key, _Row(0, successes_before, 0.0, error))
        row.attempts += 1
        row.error = error
        self.failures += 1
        doublings = min(max(0, row.attempts - 2), 32)
        delay = min(MAX_DELAY, FIRST_DELAY * 2.0**doublings)
        if row.attempts == 1 and self._suspects <= MAX_SUSPECTS:
            delay = 0.0
        row.due = self._clock.seconds() + delay
        if len(self._rows) > MAX_ROWS:
            self._rows.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Record that a row was changed."""
        if self.blames_all:  # they may succeed now, too
            for row in self._rows.values():
                row.due = 0.0
        self.successes += 1
        self.failures = 0
        self.forget(key)

    def forget(self, key: str) -> None:
        """Remove a row that needs no change."""
        self._rows.pop(key, None)

    def is_waiting(self, key: str) -> bool:
        """Return True if a row is not to be tried yet."""
        row = self._rows.get(key)
        return row is not None and row.due > self._clock.seconds()

    @property
    def waiting(self) -> list[str]:
        """IDs of the rows that are not to be tried yet."""
        return [key for key in self._rows if self.is_waiting(key)]

    def is_at_fault(self, key: str) -> bool:
        """Return True if a row fails, and Directus as a whole does not."""
        row = self._rows.get(key)
        return row is not None and self._is_at_fault(row, self._suspects)

    @property
    def blames_all(self) -> bool:
        """True if rows fail and it is not known that they are at fault themselves."""
        return self.blamed is not None

    @property
    def at_fault(self) -> list[str]:
        """IDs of the rows that fail although Directus as a whole does not."""
        suspects = self._suspects
        return [key for key, row in self._rows.items() if self._is_at_fault(row, suspects)]

    @property
    def blamed(self) -> DirectusError | None:
        """An error of Directus that is not the fault of a row; None if there is none."""
        suspects = self._suspects
        rows = self._rows.values()
        return next((row.error for row in rows if not self._is_at_fault(row, suspects)), None)

    def _is_at_fault(self, row: _Row, suspects: int) -> bool:
        if self._is_explained(row):
            return True
        # Without proof, the row must be one of few, and must fail repeatedly.
        if suspects > MAX_SUSPECTS or row.error.status in _OF_DIRECTUS:
            return False
        if row.error.status == FORBIDDEN:
            return self._may_forbid and row.attempts >= self._patience + FORBIDDEN_PATIENCE
        return row.attempts >= self._patience

    def _is_explained(self, row: _Row) -> bool:
        if isinstance(row.error, DirectusRefused):
            return True
        return row.error.status not in _OF_DIRECTUS and self.successes > row.successes_before

    @property
    def _suspects(self) -> int:
        return sum(not self._is_explained(row) for row in self._rows.values())
