"""Metrics of a processor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tracker.clock import CLOCK_ERRORS
from tracker.observe.figures import OptionalGauge

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_POSITIONS: Final = (1, 10, 50, 100, 500, 1000, 2000, 4000, 10_000, 50_000, 100_000)


class ProcessMetrics:
    """Metrics of entries, batches and the sink.

    :param streams: the streams that are read.
    :param metrics_registry: the registry to which they are added; None: they are not exported.
    """

    def __init__(self, streams: Iterable[str], metrics_registry: CollectorRegistry | None) -> None:
        def by_stream(name: str, text: str) -> Counter:
            counter = Counter(name, text, ["stream"], registry=metrics_registry)
            for stream in streams:
                # rate() ignores the first event of a counter that appears with this event.
                counter.labels(stream)
            return counter

        self.processed = by_stream(
            "tracker_processed_entries",
            "Entries acknowledged to the group: stored, duplicate, dead letters, or deleted.",
        )
        self.dead = by_stream(
            "tracker_dead_letters",
            "Entries moved to the dead letters because they cannot be stored.",
        )
        self.deleted = by_stream(
            "tracker_deleted_entries", "Entries deleted from the stream before they were stored."
        )
        self.claimed = by_stream(
            "tracker_claimed_entries", "Entries claimed from another consumer."
        )
        self.wrong_clock = Counter(
            "tracker_wrong_clock_records",
            "Records and messages with a wrong time, stored and marked.",
            ["kind"],
            registry=metrics_registry,
        )
        for kind in CLOCK_ERRORS:
            self.wrong_clock.labels(kind)
        self.without_fix = Counter(
            "tracker_records_without_fix",
            "Records whose coordinates are not a place, stored and marked.",
            registry=metrics_registry,
        )
        self.sink_failures = Counter(
            "tracker_sink_failures",
            "Failed calls of the sink, which are retried.",
            registry=metrics_registry,
        )
        self.sink_timeouts = Counter(
            "tracker_sink_timeouts",
            "Batches that the sink did not store in time; the next attempt has half as many "
            "positions.",
            registry=metrics_registry,
        )
        self.batch_limit = Gauge(
            "tracker_batch_limit_positions",
            "Maximum number of positions in one attempt of the sink; reduced after a timeout.",
            registry=metrics_registry,
        )
        self._stored = Counter(
            "tracker_stored_positions",
            "Positions that were new to the sink.",
            registry=metrics_registry,
        )
        self._duplicates = Counter(
            "tracker_duplicate_positions",
            "Positions that the sink already had.",
            registry=metrics_registry,
        )
        self._commits = Histogram(
            "tracker_batch_commit_seconds",
            "Time that the sink takes to commit a batch.",
            buckets=_SECONDS,
            registry=metrics_registry,
        )
        self._batches = Histogram(
            "tracker_batch_positions",
            "Positions in a committed batch.",
            buckets=_POSITIONS,
            registry=metrics_registry,
        )
        self._last_commit = OptionalGauge(
            "tracker_last_commit_timestamp_seconds",
            "Time of the sink's last commit, in seconds since 1970; absent before the first one.",
            metrics_registry,
        )

    def committed(self, positions: int, new: int, began: float, now: float) -> None:
        """Count a committed batch.

        :param positions: number of positions in the batch.
        :param new: number of these that the sink did not have.
        :param began: time of the call of the sink, in seconds.
        :param now: time of the commit, in seconds.
        """
        self._stored.inc(new)
        self._duplicates.inc(positions - new)
        self._commits.observe(max(0.0, now - began))
        self._batches.observe(positions)
        self._last_commit.set(now)
