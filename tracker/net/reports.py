"""Counts and rate-limited log lines of the refusals and errors of an HTTP port."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.net.refusals import Refusal
from tracker.observe.ratelimit import LimitedLog


class HTTPReports:
    """Reports of one port; see :class:`tracker.net.refusals.Reports`.

    :param port: name of the port in log lines.
    :param metric: part of the metric's name.
    :param metrics_registry: gets the metric; None for no metric.
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
            f"Connections and requests that the {port} refused.",
            ["reason"],
            registry=metrics_registry,
        )
        for refusal in Refusal:
            self._counter.labels(refusal.value)
        self._refusals = LimitedLog(clock, self._log)
        self._internal_errors = LimitedLog(clock, self._log)
        self._failures = LimitedLog(clock, self._log)

    def refused(self, refusal: Refusal, peer: str, text: str) -> None:
        """See :class:`tracker.net.refusals.Reports`."""
        self._counter.labels(refusal.value).inc()
        self._refusals.warn("{port}: refused {peer}: {text}", port=self._port, peer=peer, text=text)

    def failed(self, failure: Failure) -> None:
        """See :class:`tracker.net.refusals.Reports`."""
        self._internal_errors.failure("{port}: internal error", failure, port=self._port)

    def request_failed(self, reason: str) -> None:
        """Log the reason why a request has failed. The peer does not see this reason.

        :param reason: may name servers and their addresses.
        """
        self._failures.warn(
            "{port}: request failed: {reason}", port=self._port, reason=reason[:500]
        )
