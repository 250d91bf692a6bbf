"""The metrics of an ingest process, computed from its figures at each scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from tracker.command import Reason, Status
from tracker.commands.delivery import CommandDelivery
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.figures import CodecFigures
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.heartbeat import Heartbeat
from tracker.interfaces import Admission, Rejection
from tracker.kept import KeptMemory
from tracker.observe.figures import counter, gauge, histogram

#: Rejections of a frame or datagram, rather than of a connection.
_OF_FRAMES: Final = (
    Rejection.PREAMBLE,
    Rejection.LENGTH,
    Rejection.CRC,
    Rejection.CODEC,
    Rejection.CONTENT,
)
#: Budgets of work that a datagram can exceed.
_BUDGETS: Final = ("source", "device", "unknown_sources")
#: Upper bounds of records in one call.
_BATCHES: Final = (1, 2, 5, 10, 20, 50, 100, 255)
#: Status of a command → its reasons; the other statuses have none.
_REASONS: Final = {
    Status.FAILED: [reason.value for reason in Reason if reason is not Reason.UNKNOWN_COMMAND],
    Status.RESPONDED: ["", Reason.UNKNOWN_COMMAND.value],
}
#: Codec label of frames that were not decoded.
_UNKNOWN: Final = "unknown"


class IngestMetrics:
    """Collects the metrics of the parts of the role.

    :param gateways: vendor → its gateway.
    :param metrics_registry: registry for the metrics.
    """

    def __init__(
        self,
        gateways: Mapping[str, Gateway],
        *,
        limiter: ConnectionLimiter,
        kept: KeptMemory,
        delivery: CommandDelivery,
        heartbeat: Heartbeat,
        metrics_registry: CollectorRegistry,
    ) -> None:
        self._gateways = gateways
        self._limiter = limiter
        self._kept = kept
        self._delivery = delivery
        self._heartbeat = heartbeat
        metrics_registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of the role."""
        yield from self._connections()
        yield from self._slots()
        yield from self._frames()
        yield from self._traffic()
        yield from self._memory()
        yield from self._appends()
        yield from self._commands()
        heartbeat = gauge(
            "tracker_heartbeat_timestamp_seconds",
            "Time of the last renewal of this instance's heartbeat, in seconds since 1970; "
            "absent before the first one.",
        )
        if self._heartbeat.last_renewed:
            heartbeat.add_metric([], self._heartbeat.last_renewed)
        yield heartbeat

    def _connections(self) -> Iterator[Metric]:
        now = gauge(
            "tracker_connections",
            "Open connections, by state: logged in, waiting (for a device to be served), or "
            "not logged in.",
            "vendor",
            "state",
        )
        opened = counter("tracker_connections_opened", "Connections that were admitted.", "vendor")
        checks = counter(
            "tracker_connections_health_checks",
            "Connections from proxies that named no client and sent nothing (health checks).",
            "vendor",
        )
        replaced = counter(
            "tracker_connections_replaced",
            "Connections that were closed because their device had connected again.",
            "vendor",
        )
        logins = counter(
            "tracker_logins",
            "Logins, by result: served, refused, other_vendor, waiting (not served, and still "
            "connected), later (undecided, or the instance is draining), or malformed.",
            "vendor",
            "result",
        )
        rejections = counter(
            "tracker_rejections",
            "Rejected connections, frames and datagrams, by reason.",
            "vendor",
            "reason",
        )
        for vendor, gateway in self._gateways.items():
            figures, serving, waiting = gateway.figures, gateway.serving, gateway.waiting
            others = max(0, gateway.connections - serving - waiting)
            now.add_metric([vendor, "logged_in"], serving)
            now.add_metric([vendor, "waiting"], waiting)
            now.add_metric([vendor, "not_logged_in"], others)
            opened.add_metric([vendor], figures.opened)
            checks.add_metric([vendor], figures.health_checks)
            replaced.add_metric([vendor], figures.replaced)
            for admission in Admission:
                logins.add_metric([vendor, admission.value], figures.logins[admission])
            logins.add_metric([vendor, "malformed"], figures.rejections[Rejection.LOGIN])
            for kind in Rejection:
                rejections.add_metric([vendor, kind.value], figures.rejections[kind])
        yield from (now, opened, checks, replaced, logins, rejections)

    def _slots(self) -> Iterator[Metric]:
        limiter = self._limiter
        for name, help_, value in (
            ("slots", "Connection slots of the process.", limiter.slots),
            ("slots_used", "Connection slots that are in use.", limiter.used),
            (
                "slots_per_address",
                "Connection slots that one address may use.",
                limiter.shares.limit,
            ),
        ):
            slots = gauge(f"tracker_connection_{name}", help_)
            slots.add_metric([], value)
            yield slots
        addresses = gauge(
            "tracker_addresses_at_their_share",
            "Addresses that use the maximum number of connection slots.",
        )
        addresses.add_metric([], limiter.shares.used_up)
        yield addresses

    def _frames(self) -> Iterator[Metric]:
        frames = counter(
            "tracker_frames",
            "Frames and datagrams, by result.",
            "vendor",
            "codec",
            "result",
        )
        records = counter(
            "tracker_records",
            "Records (and messages), by result.",
            "vendor",
            "codec",
            "result",
        )
        for vendor, gateway in self._gateways.items():
            for codec, figures in gateway.publisher.figures.codecs.copy().items():
                _add_codec(frames, records, [vendor, codec], figures)
            counted, tally = gateway.figures, gateway.tally
            for result, count in (
                ("empty", counted.empty),
                ("rejected", sum(counted.rejections[kind] for kind in _OF_FRAMES)),
                ("repeated", tally.repeated),
                ("dropped", tally.dropped + sum(tally.over_budget.values())),
                ("not_served", tally.not_served),
            ):
                frames.add_metric([vendor, _UNKNOWN, result], count)
        yield from (frames, records)

    def _traffic(self) -> Iterator[Metric]:
        received = counter("tracker_received_bytes", "Bytes from devices.", "vendor")
        sent = counter("tracker_sent_bytes", "Bytes to devices.", "vendor")
        lost = counter(
            "tracker_lost_messages",
            "Messages that were not appended, and that their devices never send again.",
            "vendor",
        )
        dropped = counter(
            "tracker_dropped_datagrams",
            "Datagrams that were dropped without an ACK, by the limit that they exceeded.",
            "vendor",
            "reason",
        )
        pauses = counter(
            "tracker_paused_connections",
            "Pauses in reading a connection, by the limit that it exceeded.",
            "vendor",
            "reason",
        )
        truncated = counter(
            "tracker_truncated_messages",
            "Messages that were too long to be stored whole.",
            "vendor",
        )
        for vendor, gateway in self._gateways.items():
            tally = gateway.tally
            dropped.add_metric([vendor, "under_way"], tally.dropped)
            for budget in _BUDGETS:
                dropped.add_metric([vendor, budget], tally.over_budget[budget])
            pauses.add_metric([vendor, "work"], tally.paused_for_work)
            pauses.add_metric([vendor, "messages"], tally.paused_for_messages)
            pauses.add_metric([vendor, "memory"], tally.paused_for_memory)
            truncated.add_metric([vendor], tally.truncated)
            received.add_metric([vendor], gateway.tally.bytes_received)
            sent.add_metric([vendor], gateway.tally.bytes_sent)
            lost.add_metric([vendor], gateway.figures.lost)
        yield from (received, sent, lost, dropped, pauses, truncated)
        yield histogram(
            "tracker_ack_latency_seconds",
            "Time from the end of a frame to its ACK, which follows the confirmation by Redis.",
            ["vendor"],
            {(name,): each.publisher.figures.waits for name, each in self._gateways.items()},
        )

    def _memory(self) -> Iterator[Metric]:
        memory = gauge(
            "tracker_kept_bytes",
            "Memory for what devices never send again: entries that Redis has not confirmed, and "
            "unread frames of connections that have ended.",
            "part",
        )
        memory.add_metric(["entries"], self._kept.entries)
        memory.add_metric(["unread"], self._kept.unread)
        yield memory
        limit = gauge("tracker_kept_limit_bytes", "Limit of each part of that memory.")
        limit.add_metric([], self._kept.limit)
        yield limit
        withheld = gauge(
            "tracker_withheld_logins",
            "Logins whose answer waits until Redis confirms appends.",
            "vendor",
        )
        for vendor, gateway in self._gateways.items():
            withheld.add_metric([vendor], gateway.withheld_logins)
        yield withheld

    def _appends(self) -> Iterator[Metric]:
        publishers = {(one.publisher.stream,): one.publisher for one in self._gateways.values()}
        calls = counter(
            "tracker_append_calls",
            "Calls to Redis that append records, by result.",
            "stream",
            "result",
        )
        in_flight = gauge(
            "tracker_append_in_flight_calls", "Calls that wait for a reply from Redis.", "stream"
        )
        waiting = gauge(
            "tracker_append_waiting_frames",
            "Frames whose records wait for a call to Redis.",
            "stream",
        )
        for stream, publisher in publishers.items():
            figures = publisher.figures
            calls.add_metric([*stream, "appended"], sum(figures.batches))
            calls.add_metric([*stream, "refused"], figures.refused)
            calls.add_metric([*stream, "unanswered"], figures.unanswered)
            in_flight.add_metric(stream, publisher.in_flight)
            waiting.add_metric(stream, publisher.waiting)
        yield from (calls, in_flight, waiting)
        yield histogram(
            "tracker_append_latency_seconds",
            "Time from a call to Redis to its reply.",
            ["stream"],
            {stream: publisher.figures.calls for stream, publisher in publishers.items()},
        )
        batches = HistogramMetricFamily(
            "tracker_append_batch_records", "Records in one call to Redis.", labels=["stream"]
        )
        for stream, publisher in publishers.items():
            counts = publisher.figures.batches.copy()
            total = sum(records * calls for records, calls in enumerate(counts))
            buckets = [(f"{bound}.0", sum(counts[: bound + 1])) for bound in _BATCHES]
            batches.add_metric(stream, [*buckets, ("+Inf", sum(counts))], total)
        yield batches

    def _commands(self) -> Iterator[Metric]:
        responses = counter(
            "tracker_commands",
            "Responses to commands by this instance, by status and reason.",
            "status",
            "reason",
        )
        given = self._delivery.responses
        for status in Status:
            for reason in _REASONS.get(status, [""]):
                responses.add_metric([status, reason], given[status, reason])
        yield responses
        held = gauge("tracker_commands_held", "Entries of commands that this instance holds.")
        held.add_metric([], self._delivery.held)
        yield held
        yield histogram(
            "tracker_command_answer_seconds",
            "Time from the writing of a command to the device's answer.",
            (),
            {(): self._delivery.answers},
        )


def _add_codec(
    frames: CounterMetricFamily,
    records: CounterMetricFamily,
    where: Sequence[str],
    figures: CodecFigures,
) -> None:
    frames.add_metric([*where, "appended"], figures.frames)
    frames.add_metric([*where, "given_up"], figures.frames_given_up)
    records.add_metric([*where, "appended"], figures.records)
    records.add_metric([*where, "given_up"], figures.records_given_up)
