"""How many connections a process takes, and how fast."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tracker.console.requests import CONSOLE_LIMITS
from tracker.control.server import MOST_CONNECTIONS
from tracker.ingestion.admission import RESERVED_FILES, ConnectionLimiter
from tracker.limits import Limits
from tracker.observe.http import HEALTH_LIMITS
from tracker.tap.ingest import IngestOptions
from tracker.tap.standalone import StandaloneOptions

HOST, OTHER = "192.0.2.1", "192.0.2.2"


def limiter(
    clock: Clock, connections: int = 1000, rate: int = 1000, per_address: int = 1000
) -> ConnectionLimiter:
    limits = Limits(
        connections=connections, connection_rate=rate, connection_rate_per_address=per_address
    )
    return ConnectionLimiter(clock, limits)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("most", [1, 2, 10])
def test_so_many_connections_may_be_open_and_no_more(clock: Clock, most: int) -> None:
    door = limiter(clock, connections=most)
    for _ in range(most):
        assert door.admit(HOST) is None
        clock.advance(1)
    assert door.admit(HOST) == f"there are {most} connections already"


def test_a_connection_that_ended_makes_room(clock: Clock) -> None:
    door = limiter(clock, connections=1)
    for _ in range(3):
        assert door.admit(HOST) is None
        assert door.admit(HOST) is not None
        door.ended()


def test_files_for_other_things_are_left_free(clock: Clock) -> None:
    door = ConnectionLimiter(clock, Limits(), RESERVED_FILES + 2)
    assert [door.admit(HOST) for _ in range(3)] == [None, None, "there are 2 connections already"]


def test_files_are_reserved_for_all_connections_that_other_ports_may_have() -> None:
    others = HEALTH_LIMITS.connections + MOST_CONNECTIONS
    assert others + 64 <= RESERVED_FILES
    standalone = StandaloneOptions()
    assert standalone.other_files() >= CONSOLE_LIMITS.connections + 64
    standalone["console"] = "none"
    assert standalone.other_files() == IngestOptions().other_files() == 0


@pytest.mark.parametrize("rate", [1, 2, 10])
def test_so_many_are_let_in_a_second_from_anywhere(clock: Clock, rate: int) -> None:
    door = limiter(clock, rate=rate)
    for number in range(rate):
        assert door.admit(f"192.0.2.{number}") is None
    assert door.admit("192.0.2.99") == f"more than {rate} new connections a second"
    clock.advance(1)
    assert door.admit("192.0.2.99") is None


@pytest.mark.parametrize("rate", [1, 2, 10])
def test_so_many_are_let_in_a_second_from_one_address(clock: Clock, rate: int) -> None:
    door = limiter(clock, per_address=rate)
    for _ in range(rate):
        assert door.admit(HOST) is None
    assert door.admit(HOST) == f"more than {rate} a second from one address"
    assert door.admit(OTHER) is None
    clock.advance(1)
    assert door.admit(HOST) is None


def test_a_second_ends_with_the_clocks_second(clock: Clock) -> None:
    door = limiter(clock, rate=1)
    clock.advance(10.9)
    assert door.admit(HOST) is None
    assert door.admit(HOST) is not None
    clock.advance(0.1)
    assert door.admit(HOST) is None
    clock.advance(0.9)
    assert door.admit(HOST) is not None


def test_who_is_turned_away_is_not_counted(clock: Clock) -> None:
    door = limiter(clock, connections=5, rate=3, per_address=2)
    assert [door.admit(HOST) is None for _ in range(4)] == [True, True, False, False]
    assert [door.admit(OTHER) is None for _ in range(3)] == [True, False, False]
    clock.advance(1)
    assert [door.admit(HOST) is None for _ in range(3)] == [True, True, False]
    assert door.admit(OTHER) == "there are 5 connections already"


def test_addresses_of_past_seconds_take_no_memory(clock: Clock) -> None:
    door = limiter(clock)
    for number in range(100):
        door.admit(f"192.0.2.{number}")
        clock.advance(0.01)
    clock.advance(1)
    door.admit(HOST)
    assert len(door._new_by_host) == 1


def test_addresses_that_are_turned_away_take_no_memory(clock: Clock) -> None:
    door = limiter(clock, rate=3)
    for number in range(1000):
        door.admit(f"2001:db8::{number:x}")
    assert len(door._new_by_host) == 3


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["a", "b", "c"]), st.just("end"), st.sampled_from([0.25, 0.5, 1.0])
        ),
        max_size=60,
    )
)
def test_no_order_of_events_breaks_a_limit(events: list[str | float]) -> None:
    clock = Clock()
    door = limiter(clock, connections=6, rate=4, per_address=2)
    open_, admitted = 0, []
    for event in events:
        if isinstance(event, float):
            clock.advance(event)
        elif event == "end":
            if open_:
                door.ended()
                open_ -= 1
        elif door.admit(event) is None:
            open_ += 1
            admitted.append((int(clock.seconds()), event))
        assert open_ <= 6
    for second in {second for second, _ in admitted}:
        hosts = [host for at, host in admitted if at == second]
        assert len(hosts) <= 4
        assert all(hosts.count(host) <= 2 for host in hosts)
