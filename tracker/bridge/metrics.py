"""The metrics of the bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tracker.observe.figures import OptionalGauge

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Results of a request to Directus.
CALL_RESULTS: Final = ("answered", "denied", "refused", "down", "given_up")
#: Results of a pending command.
COMMAND_RESULTS: Final = ("routed", "waiting", "ended", "not_sent")
#: Results of a response.
RESPONSE_RESULTS: Final = ("written", "no_row", "held", "dead_letter")
#: HTTP status of the webhook's response → result.
POST_RESULTS: Final = {202: "accepted", 400: "malformed", 401: "wrong_secret", 503: "too_many"}

_METHODS: Final = ("SEARCH", "PATCH")
_PARTS: Final = ("commands", "responses", "devices")


class BridgeMetrics:
    """The counters of all parts of the bridge.

    :param metrics_registry: registers the metrics; None: they are not exported.
    """

    def __init__(self, metrics_registry: CollectorRegistry | None = None) -> None:
        self._calls = Counter(
            "tracker_directus_calls",
            "Requests to Directus.",
            ["method", "result"],
            registry=metrics_registry,
        )
        self._seconds = Histogram(
            "tracker_directus_call_seconds",
            "Duration of requests to Directus, including those without a response.",
            ["method"],
            buckets=_SECONDS,
            registry=metrics_registry,
        )
        self._retries = Counter(
            "tracker_bridge_retries",
            "Failures after which the bridge retries with a delay.",
            ["part"],
            registry=metrics_registry,
        )
        self.commands = Counter(
            "tracker_bridge_commands",
            "Pending commands, by result: routed to an instance, waiting for their device, ended "
            "at once (expired or malformed), or not sent and retried.",
            ["result"],
            registry=metrics_registry,
        )
        self.responses = Counter(
            "tracker_bridge_responses",
            "Responses to commands, by result: written to Directus, accepted by no row, held and "
            "retried, or made a dead letter.",
            ["result"],
            registry=metrics_registry,
        )
        self._posts = Counter(
            "tracker_bridge_webhook_posts",
            "Webhook requests from Flows.",
            ["hook", "result"],
            registry=metrics_registry,
        )
        self._set_aside = Gauge(
            "tracker_bridge_set_aside_rows",
            "Rows of commands that Directus fails to change although it changes others, by part.",
            ["part"],
            registry=metrics_registry,
        )
        self._devices = OptionalGauge(
            "tracker_bridge_devices",
            "Allowed devices, as last written to Redis; absent before the first time.",
            metrics_registry,
        )
        self._synced = OptionalGauge(
            "tracker_bridge_devices_timestamp_seconds",
            "Time of the last copy of the devices to Redis, in seconds since 1970; absent before "
            "the first one.",
            metrics_registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        # Prometheus does not count the first event of a series that appears with that event.
        for method in _METHODS:
            self._seconds.labels(method)
            for result in CALL_RESULTS:
                self._calls.labels(method, result)
        for part in _PARTS:
            self._retries.labels(part)
        for part in ("commands", "responses"):
            self._set_aside.labels(part)
        for result in COMMAND_RESULTS:
            self.commands.labels(result)
        for result in RESPONSE_RESULTS:
            self.responses.labels(result)
        for hook in ("commands", "devices"):
            for result in POST_RESULTS.values():
                self._posts.labels(hook, result)

    def called(self, method: str, result: str, seconds: float) -> None:
        """Count a request to Directus.

        :param result: one of :data:`CALL_RESULTS`.
        """
        self._calls.labels(method, result).inc()
        self._seconds.labels(method).observe(max(0.0, seconds))

    def retrying(self, part: str) -> Callable[[], None]:
        """Return a function that counts the failures of a part."""
        return self._retries.labels(part).inc

    def set_aside(self, part: str, rows: int) -> None:
        """Record the number of rows that a part retries separately."""
        self._set_aside.labels(part).set(rows)

    def posted(self, hook: str, status: int) -> None:
        """Count a webhook request that got this HTTP status."""
        self._posts.labels(hook, POST_RESULTS[status]).inc()

    def synced(self, devices: int, now: float) -> None:
        """Record a complete copy of the devices.

        :param devices: number of allowed devices.
        :param now: seconds since 1970.
        """
        self._devices.set(devices)
        self._synced.set(now)
