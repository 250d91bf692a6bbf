"""Connections over their rate of messages or their budget of work: held, and never cut off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.talk import Transport
from tests.unit.vendors.teltonika.conversation import (
    IMEI,
    LOGIN,
    Conversation,
    frame,
    is_message,
    message,
)
from tests.unit.vendors.teltonika.turns import COMMAND, Turn
from tracker.interfaces import Tally
from tracker.limits import Limits
from tracker.vendors import leftovers, throttle
from tracker.vendors.budget import OWN_BURST
from tracker.vendors.teltonika.vendor import Teltonika

#: Two messages at once, one a second.
LIMITS = Limits(message_rate=1, message_burst=2, buffer_bytes=64, idle_timeout=100)
UNASKED = message(b"serial", 0x0D, 1_680_554_705)


def online(limits: Limits = LIMITS, **options: Any) -> Conversation:
    """A device that may be written to."""
    talk = Conversation(limits, **options)
    talk.gateway.confirms_immediately = True
    talk.send(LOGIN)
    talk.clock.advance(1)
    talk.answer()
    return talk


class Port:
    """Connections of one port, on one clock."""

    def __init__(self, gateway: FakeGateway, limits: Limits) -> None:
        self.clock = Clock()
        self._gateway = gateway
        self._limits = limits
        self._factory = Teltonika().buildFactory(gateway, limits, self.clock)

    def connect(self) -> Conversation:
        talk = Conversation(self._limits, self._gateway)
        talk.clock = self.clock
        protocol = self._factory.buildProtocol(None)
        assert protocol is not None
        talk.protocol, talk.transport = protocol, Transport()
        talk.transport.protocol = protocol
        protocol.makeConnection(talk.transport)
        return talk


def messages(talk: Conversation) -> list[str]:
    published = [entries for entries, _ in talk.gateway.published if is_message(entries)]
    return [json.loads(entry.payload)["attributes"]["message"] for (entry,) in published]


def paused(talk: Conversation) -> bool:
    return bool(talk.transport.producerState == "paused")


def test_a_connection_over_its_rate_is_not_read_until_that_allows_the_next_message() -> None:
    talk = online()
    talk.send(UNASKED * 6)
    assert len(messages(talk)) == 2
    assert paused(talk)
    assert talk.gateway.tally.paused_for_messages == 1
    for count in (3, 4, 5, 6):
        talk.clock.advance(0.9)
        assert len(messages(talk)) == count - 1
        talk.clock.advance(0.101)
        assert len(messages(talk)) == count
    assert not paused(talk)
    assert not talk.closed


def test_a_held_connection_reads_on_while_little_is_unread() -> None:
    talk = online()
    talk.send(UNASKED * 3)
    assert len(messages(talk)) == 2
    assert not paused(talk)  # so it sees its peer leave


def test_messages_are_limited_by_their_bytes_too() -> None:
    talk = online(Limits(message_bytes_rate=1000, message_burst=1))
    talk.send(message(b"x" * 600) * 3)
    assert len(messages(talk)) == 2
    talk.clock.advance(0.3)
    assert len(messages(talk)) == 3


def test_records_are_never_limited() -> None:
    talk = online()
    talk.send(UNASKED * 2)
    for number in range(50):
        talk.send(frame(number))
        assert talk.answer() == b"\x00\x00\x00\x01"
    assert talk.gateway.tally.paused_for_messages == 0


def test_a_held_connection_does_not_count_as_silent() -> None:
    talk = online(Limits(message_rate=0.1, message_burst=10, buffer_bytes=64, idle_timeout=5))
    talk.send(UNASKED * 4)
    assert paused(talk)
    talk.clock.pump([0.9] * 31)
    assert len(messages(talk)) == 3
    assert not talk.closed
    talk.clock.pump([0.9] * 5)
    assert len(messages(talk)) == 4
    talk.clock.pump([0.9] * 8)
    assert talk.closed  # for it has sent nothing more


def test_the_answer_to_a_command_is_not_limited() -> None:
    talk = online()
    talk.send(UNASKED * 2)
    turn = Turn(talk)
    assert turn.came
    talk.send(message(b"answer"))
    assert messages(talk)[2:] == ["answer"]
    assert len(talk.told("answered")) == 1
    talk.send(message(b"no answer"))
    assert messages(talk)[2:] == ["answer"]


@pytest.mark.parametrize("split", [0, 30, len(UNASKED) * 5 + 3, len(UNASKED) * 5 + 20])
def test_an_answer_passes_the_messages_in_front_of_it(split: int) -> None:
    talk = online(Limits(message_rate=1, message_burst=2))
    turn = Turn(talk)
    assert turn.came
    sent = UNASKED * 4 + b"\xff" + UNASKED + message(b"answer") + UNASKED
    talk.send(sent[:split])
    talk.send(sent[split:])
    assert messages(talk) == ["serial", "serial", "answer"]
    assert [event[1].text for event in talk.told("answered")] == ["answer"]
    talk.clock.pump([1.1] * 5)
    assert messages(talk) == ["serial", "serial", "answer"] + ["serial"] * 4
    assert len(talk.told("answered")) == 1


def test_a_command_waits_until_messages_over_the_rate_are_read() -> None:
    talk = online()
    talk.send(UNASKED * 3)
    turn = Turn(talk)
    assert turn.waits
    talk.clock.advance(1.1)
    assert turn.came
    assert talk.answer() == COMMAND


@pytest.mark.parametrize("end", ["lost", "close"])
def test_messages_over_the_rate_outlive_their_connection(end: str) -> None:
    talk = online(Limits(message_rate=50, message_burst=1))
    talk.send(UNASKED * 100)
    if end == "lost":
        talk.lose()
    else:
        talk.protocol.close()
    assert len(messages(talk)) < 100  # they do not hold up everything else
    talk.clock.pump([0] * 10)
    assert len(messages(talk)) == 100
    assert talk.timers == 0


def test_a_device_goes_no_deeper_into_debt_when_its_connection_ends() -> None:
    gateway = FakeGateway()
    gateway.confirms_immediately = True
    port = Port(gateway, Limits(message_rate=1, message_burst=10))
    for number in range(3):
        talk = port.connect()
        talk.send(LOGIN + frame(number) + UNASKED * 50)
        talk.lose()
        port.clock.pump([0] * 10)
    assert len(messages(talk)) == 20
    assert sum(event[1] for event in talk.told("lost")) == 130


def test_few_messages_of_all_ended_connections_are_under_way_or_read_at_once() -> None:
    gateway = FakeGateway()
    port = Port(gateway, Limits())
    for number in range(20):
        talk = port.connect()
        talk.send(b"\x00\x0f" + b"%015d" % number)
        talk.send(frame(1) + UNASKED * 100)
        before = len(messages(talk))
        talk.lose()
        assert len(messages(talk)) - before <= leftovers.MAX_FRAMES_AT_END
    port.clock.pump([0] * 100)
    most = (
        throttle.MAX_PORT_MESSAGES_UNDER_WAY
        + leftovers.MAX_FRAMES_PER_SLICE
        + 20 * leftovers.MAX_FRAMES_AT_END
    )
    assert len(messages(talk)) < most
    assert not port.clock.getDelayedCalls()  # nothing is done in vain while Redis is away
    while len(messages(talk)) < 2000:
        under_way = [one for _, one in gateway.published if not one.called]
        assert under_way
        for one in under_way:
            one.callback(None)
        port.clock.pump([0] * 10)
    assert not talk.told("lost")


def test_a_crowd_has_one_message_each_under_way() -> None:
    gateway = FakeGateway()
    port = Port(gateway, Limits())
    crowd = 100
    for number in range(crowd):
        talk = port.connect()
        talk.send(b"\x00\x0f" + b"%015d" % number)
        talk.send(UNASKED * 10)
    assert len(messages(talk)) < throttle.MAX_PORT_MESSAGES_UNDER_WAY + crowd
    while len(messages(talk)) < 10 * crowd:
        under_way = [one for _, one in gateway.published if not one.called]
        assert under_way
        under_way[0].callback(None)
    assert (
        sum(not one.called for _, one in gateway.published) <= throttle.MAX_PORT_MESSAGES_UNDER_WAY
    )


def test_what_ended_connections_leave_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "MAX_WAITING_BYTES", 2000)
    gateway = FakeGateway()
    port = Port(gateway, Limits())
    for number in range(20):
        talk = port.connect()
        sent = b"\x00\x0f" + b"%015d" % number + frame(1) + message(b"x" * 10) * 20
        talk.protocol.dataReceived(sent)
        talk.lose()
    lost = sum(event[1] for event in talk.told("lost"))
    assert lost >= 400 - 20 * leftovers.MAX_FRAMES_AT_END - 2000 // len(message(b"x" * 10))
    port.clock.pump([0] * 100)
    assert lost + len(messages(talk)) == 400


def test_messages_over_the_rate_that_cannot_be_kept_are_counted() -> None:
    talk = online(Limits(message_rate=50, message_burst=1))
    talk.send(UNASKED * 100)
    talk.gateway.accepts_detached = False
    talk.lose()
    talk.clock.pump([0] * 10)
    assert sum(event[1] for event in talk.told("lost")) == 50


def test_a_retiring_connection_is_closed_when_its_messages_are_read() -> None:
    talk = online()
    talk.send(UNASKED * 3)
    talk.protocol.retire()
    assert not talk.closed
    talk.clock.advance(1.1)
    assert talk.closed
    assert len(messages(talk)) == 3


def test_a_budget_of_messages_outlives_its_connection() -> None:
    gateway = FakeGateway()
    gateway.confirms_immediately = True
    port = Port(gateway, LIMITS)
    first = port.connect()
    first.send(LOGIN + UNASKED * 2)
    assert len(messages(first)) == 2
    first.protocol.close()
    second = port.connect()
    second.send(LOGIN + UNASKED * 2)
    assert len(messages(second)) == 2
    port.clock.advance(1.1)
    assert len(messages(second)) == 3


class SlowWork(Clock):
    """A clock that advances at each reading."""

    step = 0.0

    def seconds(self) -> float:
        self.rightNow += self.step
        return self.rightNow


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Conversation:
    """A device whose packets take two fifths of what it has saved up each."""
    monkeypatch.setattr("tests.unit.vendors.talk.Clock", SlowWork)
    talk = online(Limits(peer_work=0.01, spare_work=0.001, buffer_bytes=64))
    SlowWork.step = 0.0
    return talk


def work(talk: Conversation, number: int) -> None:
    """A packet arrives that takes half of the device's saved-up work to decode."""
    clock: Any = talk.clock
    clock.step = OWN_BURST * 0.4
    talk.protocol.dataReceived(frame(number))
    clock.step = 0.0


def test_a_connection_over_its_budget_of_work_waits_for_it(slow: Conversation) -> None:
    sent = 0
    while not slow.gateway.tally.paused_for_work:
        sent += 1
        assert sent < 20
        work(slow, sent)
    published = len(slow.gateway.published)
    slow.protocol.dataReceived(frame(100) * 3)
    assert len(slow.gateway.published) == published
    assert paused(slow)
    assert not slow.closed
    slow.clock.pump([1] * 100)
    assert len(slow.gateway.published) == published + 4
    assert not paused(slow)
    assert not slow.gateway.cancelled


def test_a_new_connection_has_saved_up_nearly_nothing() -> None:
    clock = Clock()
    clock.rightNow = 1e9
    work = throttle.Workload(clock, Limits(spare_work=0.001, peer_work=0.05), Tally())
    work.charge(1)
    made = [throttle.Throttle(work, lambda hold: None) for _ in range(100)]
    assert sum(one.credit for one in made) <= OWN_BURST
    for one in made:
        one.worked(one.credit, clock.seconds())
    assert not any(one.may_work() for one in made)


def test_a_clock_that_is_put_back_gives_no_credit(slow: Conversation) -> None:
    clock: Any = slow.clock
    clock.step = -1.0
    slow.protocol.dataReceived(frame(1))
    clock.step = 0.0
    assert slow.protocol._exchange._throttle.credit <= OWN_BURST


def test_connections_that_wait_for_work_leave_no_timer_when_they_end(slow: Conversation) -> None:
    while not slow.gateway.tally.paused_for_work:
        work(slow, 1)
    published = len(slow.gateway.published)
    slow.lose()
    assert slow.timers == 0
    slow.clock.pump([1] * 100)
    assert len(slow.gateway.published) == published


def test_a_message_of_the_budgets_own_size_passes() -> None:
    limits = Limits(message_bytes_rate=64, message_burst=1, command_frame_bytes=65_536)
    talk = online(limits)
    talk.send(message(b"x" * 60_000))
    assert len(messages(talk)) == 1
    assert talk.protocol.device_id == IMEI
