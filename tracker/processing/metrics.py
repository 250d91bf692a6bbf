"""Metrics of a processor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_POSITIONS: Final = (1, 10, 50, 100, 500, 1000, 2000, 4000, 10_000, 50_000, 100_000)


class ProcessMetrics:
    """Count entries by their result.

    :param streams: those that are read.
    :param metrics_registry: registers the metrics; None: they are not exported.
    """

    def __init__(self, streams: Iterable[str], metrics_registry: CollectorRegistry | None) -> None:
        def by_stream(name: str, text: str) -> Counter:
            made = Counter(name, text, ["stream"], registry=metrics_registry)
            for stream in streams:
                made.labels(stream)  # a counter that appears with its first event hides that event
            return made

        self.processed = by_stream(
            "tracker_processed_entries",
            "Entries that were acknowledged to the group: stored, there before, or put aside.",
        )
        self.dead = by_stream(
            "tracker_dead_letters", "Entries that were put aside, since they cannot be stored."
        )
        self.deleted = by_stream(
            "tracker_deleted_entries", "Entries that were deleted before they were stored."
        )
        self.claimed = by_stream(
            "tracker_claimed_entries", "Entries that were taken over from another consumer."
        )
        self.sink_failures = Counter(
            "tracker_sink_failures",
            "Times that the sink did not do what it was asked; it is asked again.",
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
            "Positions that the sink is given at once, at most; fewer than usual after a timeout.",
            registry=metrics_registry,
        )
        self._stored = Counter(
            "tracker_stored_positions",
            "Positions that were new to the sink.",
            registry=metrics_registry,
        )
        self._duplicates = Counter(
            "tracker_duplicate_positions", "Positions that the sink had.", registry=metrics_registry
        )
        self._commits = Histogram(
            "tracker_batch_commit_seconds",
            "From when the sink was given a batch until it had committed it.",
            buckets=_SECONDS,
            registry=metrics_registry,
        )
        self._batches = Histogram(
            "tracker_batch_positions",
            "Positions in a batch that was committed.",
            buckets=_POSITIONS,
            registry=metrics_registry,
        )
        self._last_commit = Gauge(
            "tracker_last_commit_timestamp_seconds",
            "When the sink last committed a batch, since 1970; 0 before.",
            registry=metrics_registry,
        )

    def committed(self, positions: int, new: int, began: float, now: float) -> None:
        """Count a batch that was committed.

        :param positions: their number in the batch.
        :param new: number of those that the sink did not have.
        :param began: time at which the sink was given the batch.
        """
        self._stored.inc(new)
        self._duplicates.inc(positions - new)
        self._commits.observe(max(0.0, now - began))
        self._batches.observe(positions)
        self._last_commit.set(now)
