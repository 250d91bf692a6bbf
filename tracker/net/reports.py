"""Count the refusals of an HTTP port, and log them; rate-limited."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.net.refusals import Refusal
from tracker.observe.ratelimit import RateLimit, and_more


class HTTPReports:
    """Counts and logs for one port; see :class:`tracker.net.refusals.Reports`.

    :param port: the name of the port in logs.
    :param metric: a part of the metric's name.
    :param registry: registers the metric; None: no metric.
    """

    _log = Logger()

    def __init__(
        self, clock: Any, port: str, metric: str, registry: CollectorRegistry | None = None
    ) -> None:
        self._port = port
        self._counter = Counter(
            f"tracker_{metric}_refused_total",
            f"Connections and requests that the {port} has refused.",
            ["reason"],
            registry=registry,
        )
        for refusal in Refusal:
            self._counter.labels(refusal.value)
        self._refusals = RateLimit(clock)
        self._faults = RateLimit(clock)
        self._troubles = RateLimit(clock)

    def refused(self, refusal: Refusal, peer: str, text: str) -> None:
        """See :class:`tracker.net.refusals.Reports`."""
        self._counter.labels(refusal.value).inc()
        if (suppressed := self._refusals.admit()) is not None:
            self._log.warn(
                "{port}: refused {peer}: {text}{more}",
                port=self._port,
                peer=peer,
                text=text,
                more=and_more(suppressed),
            )

    def failed(self, failure: Failure) -> None:
        """See :class:`tracker.net.refusals.Reports`."""
        if (suppressed := self._faults.admit()) is not None:
            self._log.failure(
                "{port}: internal error{more}",
                failure,
                port=self._port,
                more=and_more(suppressed),
            )

    def unanswered(self, why: str) -> None:
        """Log why a request could not be answered; the peer is not shown this reason.

        :param why: may name servers and their addresses.
        """
        if (suppressed := self._troubles.admit()) is not None:
            self._log.warn(
                "{port}: a request could not be answered: {why}{more}",
                port=self._port,
                why=why[:500],
                more=and_more(suppressed),
            )
