"""The metrics of the ingest role, as Prometheus sees them."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from tests.unit.fakes import FakeConnection, FakeRedis
from tracker.command import Reason, Status
from tracker.commands.delivery import CommandDelivery
from tracker.commands.ledger import CommandLedger
from tracker.commands.registration import DeviceRegistration
from tracker.commands.shared import Timing
from tracker.errors import Refused, Unanswered
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.authority import EveryDevice
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.heartbeat import Heartbeat
from tracker.ingestion.metrics import IngestMetrics
from tracker.ingestion.publisher import RETRY_DELAY, StreamPublisher
from tracker.interfaces import Admission, IDeviceAuthority, Rejection
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition
from tracker.position import Entry

ADDRESS = IPv4Address("TCP", "192.0.2.1", 40_000)
STREAM = "telemetry:teltonika"
IMEI = "356307042441013"


def frame(records: int = 1, codec: str = "8E") -> list[Entry]:
    return [Entry("ts", IMEI, codec, f"{{{number}}}") for number in range(records)]


class Ingest:
    """The parts of the role that have metrics, with a Redis whose replies the test gives."""

    def __init__(self, authority: IDeviceAuthority | None = None) -> None:
        self.clock = Clock()
        self.redis = FakeRedis()
        redis: Any = self.redis
        self.metrics_registry = CollectorRegistry()
        self.limiter = ConnectionLimiter(
            self.clock, Limits(connections=3, connections_per_address=2)
        )
        self.publisher = StreamPublisher(self.clock, RedisWriter(redis, STREAM), Condition())
        self.publisher.startService()
        self.delivery = CommandDelivery(
            self.clock,
            redis,
            CommandLedger(self.clock, redis, "one"),
            "one",
            timing=Timing(),
            waits=True,
            fetch=lambda device_id: None,
            condition=Condition(),
        )
        self.gateway = Gateway(
            self.clock,
            "teltonika",
            self.publisher,
            authority=authority or EveryDevice(),
            limiter=self.limiter,
            connected=ConnectedDevices(
                DeviceRegistration(self.clock, redis, "one", lambda device_id, owner: None),
                self.delivery,
            ),
            kept=KeptMemory(Limits().kept_memory),
        )
        self.gateway.startService()
        self.heartbeat = Heartbeat(
            self.clock,
            redis,
            "one",
            {STREAM: self.gateway},
            on_owned=lambda: None,
            abort=lambda _: None,
        )
        gateways = {"teltonika": self.gateway}
        IngestMetrics(
            gateways,
            limiter=self.limiter,
            kept=self.gateway.kept,
            delivery=self.delivery,
            heartbeat=self.heartbeat,
            metrics_registry=self.metrics_registry,
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics_registry.get_sample_value(f"tracker_{name}", labels)

    def of_vendor(self, name: str, **labels: str) -> float | None:
        return self.value(name, vendor="teltonika", **labels)

    def of_stream(self, name: str, **labels: str) -> float | None:
        return self.value(name, stream=STREAM, **labels)

    def frames(self, result: str, codec: str = "8E") -> float | None:
        return self.of_vendor("frames_total", codec=codec, result=result)

    def records(self, result: str, codec: str = "8E") -> float | None:
        return self.of_vendor("records_total", codec=codec, result=result)

    def connect(self, device_id: str | None = None, may_stay: bool = False) -> FakeConnection:
        connection = FakeConnection(self.gateway, may_stay=may_stay)
        assert self.gateway.admits(ADDRESS)
        self.gateway.opened(connection)
        if device_id is not None:
            connection.device_id = device_id
            self.gateway.login(connection, device_id)
        return connection

    def reply_to_appends(self, reply: Any = 1) -> None:
        """Reply to all appends that are under way."""
        commands, self.redis.commands = self.redis.commands, []
        for _, asked in commands:
            (asked.errback if isinstance(reply, Exception) else asked.callback)(reply)


@pytest.fixture
def ingest() -> Ingest:
    return Ingest()


def test_connections_are_counted_by_state(ingest: Ingest) -> None:
    ingest.connect()
    connection = ingest.connect(IMEI)
    assert ingest.of_vendor("connections", state="logged_in") == 1
    assert ingest.of_vendor("connections", state="waiting") == 0
    assert ingest.of_vendor("connections", state="not_logged_in") == 1
    assert ingest.of_vendor("connections_opened_total") == 2
    connection.close()
    assert ingest.of_vendor("connections", state="logged_in") == 0
    assert ingest.of_vendor("connections_opened_total") == 2


def test_waiting_connection_is_counted() -> None:
    class Refusing(EveryDevice):
        def admission(self, device_id: str, vendor: str) -> Admission:
            return Admission.REFUSED

    ingest = Ingest(Refusing())
    ingest.connect(IMEI, may_stay=True)
    assert ingest.of_vendor("connections", state="waiting") == 1
    assert ingest.of_vendor("connections", state="logged_in") == 0
    assert ingest.of_vendor("connections", state="not_logged_in") == 0
    assert ingest.of_vendor("logins_total", result="waiting") == 1


def test_reconnected_device_counts_as_a_replaced_connection(ingest: Ingest) -> None:
    ingest.connect(IMEI)
    ingest.connect(IMEI)
    assert ingest.of_vendor("connections_replaced_total") == 1
    assert ingest.of_vendor("connections", state="logged_in") == 1


def test_connections_over_a_limit_are_rejected_by_reason(ingest: Ingest) -> None:
    ingest.connect()
    ingest.connect()
    assert not ingest.gateway.admits(ADDRESS)
    assert ingest.of_vendor("rejections_total", reason="address_share") == 1
    assert ingest.gateway.reserve(ADDRESS)
    assert not ingest.gateway.reserve(ADDRESS)
    assert ingest.of_vendor("rejections_total", reason="connection_limit") == 1
    assert ingest.of_vendor("connections_opened_total") == 2


def test_slots_and_shares_are_reported(ingest: Ingest) -> None:
    def slots() -> tuple[float | None, ...]:
        names = ("slots", "slots_used", "slots_per_address")
        figures = [ingest.value(f"connection_{name}") for name in names]
        return (*figures, ingest.value("addresses_at_their_share"))

    assert slots() == (3, 0, 2, 0)
    connection = ingest.connect()
    ingest.connect()
    assert slots() == (3, 2, 2, 1)
    connection.close()
    assert slots() == (3, 1, 2, 0)


def test_health_check_of_a_proxy_is_counted(ingest: Ingest) -> None:
    ingest.gateway.checked()
    assert ingest.of_vendor("connections_health_checks_total") == 1


@pytest.mark.parametrize("admission", sorted(set(Admission) - {Admission.WAITING}, key=str))
def test_logins_are_counted_by_result(admission: Admission) -> None:
    class Authority(EveryDevice):
        def admission(self, device_id: str, vendor: str) -> Admission:
            return admission

    ingest = Ingest(Authority())
    ingest.connect(IMEI)
    for result in Admission:
        count = ingest.of_vendor("logins_total", result=result.value)
        assert count == (result is admission)
    not_served = ingest.of_vendor("rejections_total", reason="not_served")
    assert not_served == (admission is Admission.REFUSED)
    other_vendor = ingest.of_vendor("rejections_total", reason="other_vendor")
    assert other_vendor == (admission is Admission.OTHER_VENDOR)


def test_invalid_login_counts_as_malformed(ingest: Ingest) -> None:
    ingest.gateway.rejected(ingest.connect(), "no login", Rejection.LOGIN)
    assert ingest.of_vendor("logins_total", result="malformed") == 1
    assert ingest.frames("rejected", "unknown") == 0


def test_rejections_are_counted_by_reason_and_as_rejected_frames(ingest: Ingest) -> None:
    connection = ingest.connect()
    for kind in Rejection:
        ingest.gateway.rejected(connection, "invalid", kind)
        assert ingest.of_vendor("rejections_total", reason=kind.value) == 1
    assert ingest.frames("rejected", "unknown") == 5


def test_frame_counts_as_appended_once_redis_has_confirmed_it(ingest: Ingest) -> None:
    ingest.gateway.publish(frame(3))
    ingest.gateway.publish(frame(1, "12"))
    ingest.clock.advance(0)
    assert ingest.records("appended") is None
    assert ingest.of_stream("append_in_flight_calls") == 1
    ingest.clock.advance(0.02)
    ingest.reply_to_appends()
    assert (ingest.frames("appended"), ingest.records("appended")) == (1, 3)
    assert (ingest.frames("appended", "12"), ingest.records("appended", "12")) == (1, 1)
    assert ingest.of_stream("append_in_flight_calls") == 0
    assert ingest.of_stream("append_calls_total", result="appended") == 1
    assert ingest.of_vendor("ack_latency_seconds_count") == 2
    assert ingest.of_vendor("ack_latency_seconds_sum") == pytest.approx(0.04)
    assert ingest.of_vendor("ack_latency_seconds_bucket", le="0.01") == 0
    assert ingest.of_vendor("ack_latency_seconds_bucket", le="0.025") == 2
    assert ingest.of_stream("append_latency_seconds_sum") == pytest.approx(0.02)
    assert ingest.of_stream("append_batch_records_sum") == 4
    assert ingest.of_stream("append_batch_records_bucket", le="5.0") == 1


def test_frame_of_a_device_that_disconnects_is_counted_as_given_up(ingest: Ingest) -> None:
    appended = ingest.gateway.publish(frame(2))
    appended.addErrback(lambda _: None)
    ingest.clock.advance(0)
    appended.cancel()
    ingest.reply_to_appends()
    assert (ingest.frames("given_up"), ingest.records("given_up")) == (1, 2)
    assert (ingest.frames("appended"), ingest.records("appended")) == (0, 0)
    assert ingest.of_vendor("ack_latency_seconds_count") == 0


def test_waiting_frame_is_counted_until_it_is_given_up(ingest: Ingest) -> None:
    ingest.redis.connected = False
    appended = ingest.gateway.publish(frame())
    appended.addErrback(lambda _: None)
    ingest.clock.advance(0)
    assert ingest.of_stream("append_waiting_frames") == 1
    ingest.publisher.stopService()
    assert ingest.of_stream("append_waiting_frames") == 0
    assert ingest.frames("given_up") == 1


def test_latency_of_a_retried_frame_counts_from_its_arrival(
    ingest: Ingest,
) -> None:
    ingest.gateway.publish(frame())
    ingest.clock.advance(0)
    ingest.reply_to_appends(Refused("OOM"))
    assert ingest.of_stream("append_calls_total", result="refused") == 1
    ingest.clock.advance(RETRY_DELAY)
    ingest.reply_to_appends()
    assert ingest.of_vendor("ack_latency_seconds_sum") == pytest.approx(RETRY_DELAY)
    assert ingest.of_stream("append_latency_seconds_sum") == 0


def test_unanswered_and_refused_calls_are_counted_separately(ingest: Ingest) -> None:
    ingest.gateway.publish(frame())
    ingest.clock.advance(0)
    ingest.reply_to_appends(Unanswered("no answer"))
    assert ingest.of_stream("append_calls_total", result="unanswered") == 1
    assert ingest.of_stream("append_calls_total", result="refused") == 0


def test_frame_without_records_counts_as_empty(ingest: Ingest) -> None:
    ingest.gateway.publish([])
    assert ingest.frames("empty", "unknown") == 1


def test_bytes_and_datagrams_counted_by_protocols_are_reported(ingest: Ingest) -> None:
    tally = ingest.gateway.tally
    tally.bytes_received, tally.bytes_sent = 100, 20
    tally.repeated, tally.dropped, tally.not_served = 1, 2, 3
    assert ingest.of_vendor("received_bytes_total") == 100
    assert ingest.of_vendor("sent_bytes_total") == 20
    assert [ingest.frames(one, "unknown") for one in ("repeated", "dropped", "not_served")] == [
        *(1, 2, 3)
    ]


def test_traffic_over_a_limit_is_counted_by_reason(ingest: Ingest) -> None:
    tally = ingest.gateway.tally
    tally.dropped = 1
    tally.over_budget.update(source=2, device=3, unknown_sources=4)
    tally.paused_for_work, tally.paused_for_messages, tally.truncated = 5, 6, 7
    limits = ("under_way", "source", "device", "unknown_sources")
    dropped = [ingest.of_vendor("dropped_datagrams_total", reason=limit) for limit in limits]
    assert dropped == [1, 2, 3, 4]
    assert ingest.frames("dropped", "unknown") == 10
    assert ingest.of_vendor("paused_connections_total", reason="work") == 5
    assert ingest.of_vendor("paused_connections_total", reason="messages") == 6
    assert ingest.of_vendor("truncated_messages_total") == 7


def test_metrics_count_lost_messages(ingest: Ingest) -> None:
    ingest.gateway.lost(ingest.connect(), 3)
    assert ingest.of_vendor("lost_messages_total") == 3


def test_detached_message_that_is_given_up_counts_as_lost(ingest: Ingest) -> None:
    ingest.redis.connected = False
    assert ingest.gateway.publish_detached(frame(1, "12")) is not None
    ingest.publisher.stopService()
    assert ingest.of_vendor("lost_messages_total") == 1


def test_metrics_show_kept_memory_and_withheld_logins(ingest: Ingest) -> None:
    ingest.gateway.kept.begin(100)
    ingest.gateway.kept.unread = 20
    assert ingest.value("kept_bytes", part="entries") == 100
    assert ingest.value("kept_bytes", part="unread") == 20
    assert ingest.value("kept_limit_bytes") == Limits().kept_memory
    ingest.redis.connected = False
    ingest.gateway.when_log_confirms()
    assert ingest.of_vendor("withheld_logins") == 1
    ingest.gateway.tally.paused_for_memory = 8
    assert ingest.of_vendor("paused_connections_total", reason="memory") == 8


def test_responses_are_counted_by_status_and_reason(ingest: Ingest) -> None:
    ingest.delivery.responses[Status.RESPONDED, ""] += 2
    ingest.delivery.responses[Status.FAILED, Reason.TIMEOUT] += 1
    ingest.delivery.answers.observe(3)
    assert ingest.value("commands_total", status="responded", reason="") == 2
    assert ingest.value("commands_total", status="failed", reason="timeout") == 1
    assert ingest.value("commands_total", status="failed", reason="offline") == 0
    assert ingest.value("commands_total", status="delivered", reason="") == 0
    assert ingest.value("command_answer_seconds_bucket", le="5.0") == 1
    assert ingest.value("commands_held") == 0


def test_time_of_the_last_heartbeat_is_reported(ingest: Ingest) -> None:
    assert ingest.value("heartbeat_timestamp_seconds") is None
    ingest.heartbeat.last_renewed = 1234.5
    assert ingest.value("heartbeat_timestamp_seconds") == 1234.5


def test_rejected_peers_add_no_label_values(ingest: Ingest) -> None:
    def series() -> int:
        return sum(len(family.samples) for family in ingest.metrics_registry.collect())

    ingest.gateway.publish(frame())
    ingest.clock.advance(0)
    ingest.reply_to_appends()
    before = series()
    for number in range(50):
        ingest.gateway.rejected(fake_peer(str(number)), f"reason {number}")
    assert series() == before


def fake_peer(device_id: str) -> Any:
    class Peer:
        peer = "192.0.2.1:40000"

    peer: Any = Peer()
    peer.device_id = device_id
    return peer
