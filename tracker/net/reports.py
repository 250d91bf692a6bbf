"""Count the refusals of an HTTP port, and log them; rate-limited."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.net.refusals import Refusal
from tracker.observe.ratelimit import LimitedLog


class HTTPReports:
    """Counts and logs for one port; see :class:`tracker.net.refusals.Reports`.

    :param port: the name of the port in logs.
    :param metric: a part of the metric's name.
    :param metrics_registry: registers the metric; None: no metric.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        port: str,
        metric: str,
        metrics_registry: CollectorRegistry | None = None,
    ) -> None:
        self._port = port
        self._counter = Counter(
            f"tracker_{metric}_refused_total",
            f"Connections and requests that the {port} has refused.",
            ["reason"],
            registry=metrics_registry,
        )
        for refusal in Refusal:
            self._counter.labels(refusal.value)
        self._refusals = LimitedLog(clock, self._log)
        self._faults = LimitedLog(clock, self._log)
        self._troubles = LimitedLog(clock, self._log)

    def refused(self, refusal: Refusal, peer: str, text: str) -> None:
        """See :class:`tracker.net.refusals.Reports`."""
        self._counter.labels(refusal.value).inc()
        self._refusals.warn("{port}: refused {peer}: {text}", port=self._port, peer=peer, text=text)

    def failed(self, failure: Failure) -> None:
        """See :class:`tracker.net.refusals.Reports`."""
        self._faults.failure("{port}: internal error", failure, port=self._port)

    def unanswered(self, why: str) -> None:
        """Log why a request could not be answered; the peer is not shown this reason.

        :param why: may name servers and their addresses.
        """
        self._troubles.warn(
            "{port}: a request could not be answered: {why}", port=self._port, why=why[:500]
        )
