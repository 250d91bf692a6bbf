"""Waiting for the moment at which a command may be written on a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from tracker.interfaces import SessionEnded


class Turn:
    """Somebody wants to write a command.

    :param radio_sleeps: seconds of silence after which the device may not listen; 0: it always
        listens.
    :param look: called when it is time to look whether the connection is free.
    :param forget: called when the turn was given, or is not wanted any more.
    """

    def __init__(
        self,
        clock: Any,
        radio_sleeps: float,
        look: Callable[[], None],
        forget: Callable[[], None],
    ) -> None:
        self.free: Deferred[None] = Deferred(lambda _: self._end())
        self._clock = clock
        self._radio_sleeps = radio_sleeps
        self._look = look
        self._forget = forget
        self._timer: IDelayedCall | None = None

    def maybe_give(self, settled_at: float, last_heard: float) -> None:
        """The connection is free: let the command be written, unless it is too early.

        :param settled_at: from when on the device can tell a command from what came before.
        :param last_heard: when it was heard last.
        """
        now = self._clock.seconds()
        if now < settled_at:
            if self._timer is None:
                self._timer = self._clock.callLater(settled_at - now, self._look_again)
            return
        if self._radio_sleeps and now - last_heard >= self._radio_sleeps:
            return
        self._end()
        self.free.callback(None)

    def lose(self) -> None:
        """The connection ends."""
        self._end()
        self.free.errback(SessionEnded())

    def _look_again(self) -> None:
        self._timer = None
        self._look()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._forget()
