"""Limits on connections: in total, per second and per address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.unit.fakes import FakeConnection, FakeGateway
from tracker.console.requests import CONSOLE_LIMITS
from tracker.control.server import MAX_CONNECTIONS
from tracker.ingestion.admission import (
    RESERVED_FILES,
    SHORT_LOGIN_TIMEOUT,
    ConnectionLimiter,
    default_share,
)
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.net.probes import HEALTH_LIMITS
from tracker.tap.ingest import IngestOptions
from tracker.tap.standalone import StandaloneOptions

HOST, OTHER = "192.0.2.1", "192.0.2.2"
FULL, RATE, SHARE = (
    *(Rejection.CONNECTION_LIMIT, Rejection.CONNECTION_RATE, Rejection.ADDRESS_SHARE),
)


class DrivenLimiter(ConnectionLimiter):
    """A limiter whose connections a test opens and closes."""

    def __init__(
        self,
        clock: Clock,
        connections: int = 1000,
        rate: int = 1000,
        per_address: int = 1000,
        share: int = 1000,
    ) -> None:
        limits = Limits(
            connections=connections,
            connections_per_address=share,
            connection_rate=rate,
            connection_rate_per_address=per_address,
        )
        super().__init__(clock, limits)
        self.given_up: list[FakeConnection] = []

    def refuses(self, host: str) -> Rejection | None:
        refusal = self.admit(host)
        return None if refusal is None else refusal.kind

    def enter(self, host: str = HOST) -> FakeConnection:
        assert self.admit(host) is None
        connection = FakeConnection(FakeGateway(), host=host)

        def give_up(reason: str) -> None:
            self.given_up.append(connection)

        self.opened(connection, give_up)
        return connection


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_total_number_of_connections_is_limited(clock: Clock, limit: int) -> None:
    limiter = DrivenLimiter(clock, connections=limit)
    for number in range(limit):
        assert (limiter.used, limiter.ran_out) == (number, False)
        assert limiter.admit(HOST) is None
        clock.advance(1)
    assert limiter.refuses(HOST) is FULL
    assert (limiter.used, limiter.ran_out) == (limit, True)


def test_ended_connection_frees_its_slot(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, connections=1)
    for _ in range(3):
        connection = limiter.enter()
        assert limiter.refuses(HOST) is FULL
        limiter.closed(connection)


def test_reserved_slot_counts_as_used(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, connections=1)
    assert limiter.reserve() is None
    assert limiter.refuses(HOST) is FULL
    refusal = limiter.reserve()
    assert refusal is not None
    assert refusal.kind is FULL
    limiter.release()
    assert limiter.admit(HOST) is None


def test_reserved_file_descriptors_are_not_used_as_slots(clock: Clock) -> None:
    limiter = ConnectionLimiter(clock, Limits(connections_per_address=2), RESERVED_FILES + 2)
    assert [limiter.admit(HOST) is None for _ in range(3)] == [True, True, False]


def test_one_address_cannot_use_all_slots(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, connections=4, share=3)
    connections = [limiter.enter(HOST) for _ in range(3)]
    assert limiter.refuses(HOST) is SHARE
    assert not limiter.ran_out
    assert limiter.enter(OTHER)
    limiter.closed(connections[0])
    assert limiter.admit(HOST) is None


def test_addresses_of_one_ipv6_network_have_one_share_and_one_rate(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, share=2, per_address=1)
    assert limiter.admit("2001:db8::1") is None
    assert limiter.refuses("2001:db8::2") is RATE
    clock.advance(1)
    assert limiter.admit("2001:db8::3") is None
    clock.advance(1)
    assert limiter.refuses("2001:db8::4") is SHARE
    assert limiter.admit("2001:db8:0:1::1") is None


@pytest.mark.parametrize(
    ("slots", "share"),
    [
        (1, 1),
        (2, 1),
        (5, 4),
        (136, 123),
        (960, 864),
        (1936, 1000),
        (4032, 2016),
        (19_936, 9968),
        (100_000, 50_000),
    ],
)
def test_default_share_depends_on_the_number_of_slots(slots: int, share: int) -> None:
    assert default_share(slots) == share
    limiter = ConnectionLimiter(Clock(), Limits(), slots + RESERVED_FILES)
    assert (limiter.slots, limiter.shares.limit) == (slots, share)


@given(st.integers(2, 10_000_000))
def test_default_share_always_leaves_slots_to_others(slots: int) -> None:
    assert 1 <= default_share(slots) <= slots - max(1, slots // 10)


def test_oldest_silent_connection_is_closed_when_no_slot_is_free(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, connections=3)
    device, silent, later = limiter.enter(), limiter.enter(), limiter.enter()
    limiter.logged_in(device)
    clock.advance(SHORT_LOGIN_TIMEOUT - 0.1)
    assert limiter.refuses(OTHER) is FULL
    assert limiter.given_up == []  # it may still log in
    clock.advance(0.1)
    for expected in ([silent], [silent, later], [silent, later]):
        assert limiter.refuses(OTHER) is FULL
        assert limiter.given_up == expected
    limiter.closed(silent)
    assert limiter.admit(OTHER) is None


def test_address_at_its_share_loses_only_its_own_silent_connections(
    clock: Clock,
) -> None:
    limiter = DrivenLimiter(clock, share=2)
    of_other = limiter.enter(OTHER)
    device, silent = limiter.enter(), limiter.enter()
    limiter.logged_in(device)
    clock.advance(SHORT_LOGIN_TIMEOUT)
    for _ in range(2):
        assert limiter.refuses(HOST) is SHARE
    assert limiter.given_up == [silent]
    assert of_other not in limiter.given_up


def test_silent_connection_stays_open_while_slots_are_free(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, connections=3, share=2)
    limiter.enter()
    clock.advance(1000)
    limiter.enter()
    limiter.enter(OTHER)
    assert limiter.given_up == []


def test_limiter_forgets_connections_that_logged_in_or_closed(clock: Clock) -> None:
    limiter = DrivenLimiter(clock)
    for number in range(100):
        connection = limiter.enter(f"192.0.2.{number}")
        if number % 2:
            limiter.logged_in(connection)
        limiter.closed(connection)
    assert (limiter._silent, limiter._silent_by_group, limiter.used) == ({}, {}, 0)


def test_reserved_file_descriptors_suffice_for_other_ports() -> None:
    others = HEALTH_LIMITS.connections + MAX_CONNECTIONS
    assert others + 64 <= RESERVED_FILES
    standalone = StandaloneOptions()
    assert standalone.other_files() >= CONSOLE_LIMITS.connections + 64
    standalone["console"] = "none"
    assert standalone.other_files() == IngestOptions().other_files() == 0


@pytest.mark.parametrize("rate", [1, 2, 10])
def test_new_connections_per_second_are_limited(clock: Clock, rate: int) -> None:
    limiter = DrivenLimiter(clock, rate=rate)
    for number in range(rate):
        assert limiter.admit(f"192.0.2.{number}") is None
    assert limiter.refuses("192.0.2.99") is RATE
    clock.advance(1)
    assert limiter.admit("192.0.2.99") is None


@pytest.mark.parametrize("rate", [1, 2, 10])
def test_new_connections_per_second_of_one_address_are_limited(clock: Clock, rate: int) -> None:
    limiter = DrivenLimiter(clock, per_address=rate)
    for _ in range(rate):
        assert limiter.admit(HOST) is None
    assert limiter.refuses(HOST) is RATE
    assert limiter.admit(OTHER) is None
    clock.advance(1)
    assert limiter.admit(HOST) is None


def test_rate_limit_is_reset_at_each_second_of_the_clock(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, rate=1)
    clock.advance(10.9)
    assert limiter.admit(HOST) is None
    assert limiter.admit(HOST) is not None
    clock.advance(0.1)
    assert limiter.admit(HOST) is None
    clock.advance(0.9)
    assert limiter.admit(HOST) is not None


def test_refused_connections_do_not_count_towards_the_rate(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, connections=5, rate=3, per_address=2)
    assert [limiter.admit(HOST) is None for _ in range(4)] == [True, True, False, False]
    assert [limiter.admit(OTHER) is None for _ in range(3)] == [True, False, False]
    clock.advance(1)
    assert [limiter.admit(HOST) is None for _ in range(3)] == [True, True, False]
    assert limiter.refuses(OTHER) is FULL


def test_addresses_of_past_seconds_are_not_remembered(clock: Clock) -> None:
    limiter = DrivenLimiter(clock)
    for number in range(100):
        limiter.admit(f"192.0.2.{number}")
        clock.advance(0.01)
    clock.advance(1)
    limiter.admit(HOST)
    assert len(limiter._rates._new_by_group) == 1


def test_refused_addresses_are_not_remembered(clock: Clock) -> None:
    limiter = DrivenLimiter(clock, rate=3)
    for number in range(1000):
        limiter.admit(f"2001:db8:{number:x}::1")
    assert len(limiter._rates._new_by_group) == 3


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["a", "b", "c"]), st.just("end"), st.sampled_from([0.25, 0.5, 1.0])
        ),
        max_size=60,
    )
)
def test_connection_limits_hold_for_any_order_of_events(events: list[str | float]) -> None:
    clock = Clock()
    limiter = DrivenLimiter(clock, connections=6, rate=4, per_address=2, share=3)
    connections: list[FakeConnection] = []
    admitted = []
    for event in events:
        if isinstance(event, float):
            clock.advance(event)
        elif event == "end":
            if connections:
                limiter.closed(connections.pop(0))
        elif limiter.admit(event) is None:
            connections.append(FakeConnection(FakeGateway(), host=event))
            limiter.opened(connections[-1], lambda reason: None)
            admitted.append((int(clock.seconds()), event))
        hosts = [connection.host for connection in connections]
        assert limiter.used == len(connections) <= 6
        assert all(hosts.count(host) <= 3 for host in hosts)
    for second in {second for second, _ in admitted}:
        hosts = [host for at, host in admitted if at == second]
        assert len(hosts) <= 4
        assert all(hosts.count(host) <= 2 for host in hosts)
