"""Report to the process that has started a daemon how the start has gone.

twistd without ``--nodaemon`` ends as soon as it reads ``0`` or ``1 REASON`` from a pipe, and exits
with this number. By itself, it writes ``0`` before the reactor runs: a database that cannot be
opened a moment later would go unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.application.service import Service

from tracker.runtime.notify import READY, STOPPING

#: Name of the pipe's file descriptor among the options of twistd (Twisted 24.11 to 26.10).
PIPE: Final = "statusPipe"
#: Bytes that twistd reads.
_MAX_BYTES: Final = 100


class StartReport(Service):
    """Tells twistd's first process to end when this one is ready or fails; a notifier.

    It must start before :class:`~tracker.runtime.supervision.Supervision`, which uses it. If the
    process dies without a report, twistd reports an error.

    :param options: twistd's options. Without the pipe in them, nothing is reported.
    :param reason: returns why the process gives up, or an empty text.
    """

    watchdog = None

    def __init__(self, options: dict[str, Any], reason: Callable[[], str]) -> None:
        self._options = options
        self._reason = reason
        self._pipe: int | None = None

    def startService(self) -> None:
        """Take the pipe, so that twistd does not report success too early."""
        super().startService()
        self._pipe = self._options.pop(PIPE, None)

    def send(self, *lines: str) -> bool:
        """Report if one of the lines is ``READY=1`` or ``STOPPING=1``; return True."""
        if STOPPING in lines and (reason := self._reason()):
            self._report(f"1 GaveUp: {reason}")
        elif STOPPING in lines or READY in lines:
            self._report("0")
        return True

    def _report(self, text: str) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            with suppress(OSError):  # the first process was killed
                os.write(pipe, text.encode("ascii", "backslashreplace")[:_MAX_BYTES])
            os.close(pipe)
