"""Connections over their message rate or their work budget are paused, not closed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.talk import SlowWork, Transport
from tests.unit.vendors.teltonika.conversation import (
    IMEI,
    LOGIN,
    Conversation,
    frame,
    is_message,
    message,
)
from tests.unit.vendors.teltonika.pending import COMMAND, PendingCommand
from tracker.interfaces import Rejection, Tally
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.vendors import leftovers, throttle
from tracker.vendors.budget import OWN_BURST
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import (
    MESSAGE_CODECS,
    Message,
    Messages,
    encode_messages,
)
from tracker.vendors.teltonika.vendor import Teltonika

#: A burst of two messages, then one per second.
LIMITS = Limits(message_rate=1, message_burst=2, buffer_bytes=64, idle_timeout=100)
UNSOLICITED = message(b"serial", 0x0D, 1_680_554_705)


def online(limits: Limits = LIMITS, **options: Any) -> Conversation:
    """Return the connection of a device that may get commands."""
    talk = Conversation(limits, **options)
    talk.gateway.confirms_immediately = True
    talk.send(LOGIN)
    talk.clock.advance(1)
    talk.received()
    return talk


class Port:
    """A port whose connections share one clock."""

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


def test_connection_over_its_message_rate_is_paused_until_the_next_message_is_due() -> None:
    talk = online()
    talk.send(UNSOLICITED * 6)
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


def test_throttled_connection_is_read_while_its_buffer_is_small() -> None:
    talk = online()
    talk.send(UNSOLICITED * 3)
    assert len(messages(talk)) == 2
    assert not paused(talk)  # it can detect that the peer has left


def test_each_message_of_a_frame_counts_towards_the_rate() -> None:
    talk = online()
    codec = MESSAGE_CODECS[0x0C]
    parts = tuple(Message(codec, 0x05, text) for text in (b"a", b"b", b"c"))
    talk.send(encode_frame(encode_messages(Messages(codec, parts))) + UNSOLICITED)
    assert [len(entries) for entries, _ in talk.gateway.published] == [3]
    talk.clock.advance(1.9)  # one for the debt, one for the next message
    assert len(talk.gateway.published) == 1
    talk.clock.advance(0.101)
    assert [len(entries) for entries, _ in talk.gateway.published] == [3, 1]


def test_unread_malformed_message_is_reported_and_later_ones_are_published() -> None:
    talk = online()
    malformed = encode_frame(b"\x0c\x01\x06\x01")
    talk.send(UNSOLICITED * 2 + malformed + message(b"last"))
    assert len(messages(talk)) == 2
    talk.lose()
    assert messages(talk)[2:] == ["last"]
    assert talk.gateway.kinds == [Rejection.CONTENT]


def test_bytes_of_messages_are_limited() -> None:
    talk = online(Limits(message_bytes_rate=1000, message_burst=1))
    talk.send(message(b"x" * 600) * 3)
    assert len(messages(talk)) == 2
    talk.clock.advance(0.3)
    assert len(messages(talk)) == 3


def test_records_are_not_throttled() -> None:
    talk = online()
    talk.send(UNSOLICITED * 2)
    for number in range(50):
        talk.send(frame(number))
        assert talk.received() == b"\x00\x00\x00\x01"
    assert talk.gateway.tally.paused_for_messages == 0


def test_idle_timeout_does_not_run_while_a_connection_is_paused() -> None:
    talk = online(Limits(message_rate=0.1, message_burst=10, buffer_bytes=64, idle_timeout=5))
    talk.send(UNSOLICITED * 4)
    assert paused(talk)
    talk.clock.pump([0.9] * 31)
    assert len(messages(talk)) == 3
    assert not talk.closed
    talk.clock.pump([0.9] * 5)
    assert len(messages(talk)) == 4
    talk.clock.pump([0.9] * 8)
    assert talk.closed  # it has sent nothing more


def test_answer_to_a_command_is_not_throttled() -> None:
    talk = online()
    talk.send(UNSOLICITED * 2)
    command = PendingCommand(talk)
    assert command.written
    talk.send(message(b"answer"))
    assert messages(talk)[2:] == ["answer"]
    assert len(talk.events_of("answered")) == 1
    talk.send(message(b"no answer"))
    assert messages(talk)[2:] == ["answer"]


@pytest.mark.parametrize("split", [0, 30, len(UNSOLICITED) * 5 + 3, len(UNSOLICITED) * 5 + 20])
def test_answer_overtakes_throttled_messages(split: int) -> None:
    talk = online(Limits(message_rate=1, message_burst=2))
    command = PendingCommand(talk)
    assert command.written
    sent = UNSOLICITED * 4 + b"\xff" + UNSOLICITED + message(b"answer") + UNSOLICITED
    talk.send(sent[:split])
    talk.send(sent[split:])
    assert messages(talk) == ["serial", "serial", "answer"]
    assert [event[1].text for event in talk.events_of("answered")] == ["answer"]
    talk.clock.pump([1.1] * 5)
    assert messages(talk) == ["serial", "serial", "answer"] + ["serial"] * 4
    assert len(talk.events_of("answered")) == 1


def test_command_waits_for_throttled_messages() -> None:
    talk = online()
    talk.send(UNSOLICITED * 3)
    command = PendingCommand(talk)
    assert command.is_waiting
    talk.clock.advance(1.1)
    assert command.written
    assert talk.received() == COMMAND


@pytest.mark.parametrize("end", ["lost", "close"])
def test_throttled_messages_outlive_their_connection(end: str) -> None:
    talk = online(Limits(message_rate=50, message_burst=1))
    talk.send(UNSOLICITED * 100)
    if end == "lost":
        talk.lose()
    else:
        talk.protocol.close()
    assert len(messages(talk)) < 100  # the rest is read in later reactor turns
    talk.clock.pump([0] * 10)
    assert len(messages(talk)) == 100
    assert talk.timers == 0


def test_reconnecting_device_cannot_exceed_its_message_rate() -> None:
    gateway = FakeGateway()
    gateway.confirms_immediately = True
    port = Port(gateway, Limits(message_rate=1, message_burst=10))
    for number in range(3):
        talk = port.connect()
        talk.send(LOGIN + frame(number) + UNSOLICITED * 50)
        talk.lose()
        port.clock.pump([0] * 10)
    assert len(messages(talk)) == 20
    assert sum(event[1] for event in talk.events_of("lost")) == 130


def test_pending_messages_of_ended_connections_are_bounded() -> None:
    gateway = FakeGateway()
    port = Port(gateway, Limits())
    for number in range(20):
        talk = port.connect()
        talk.send(b"\x00\x0f" + b"%015d" % number)
        talk.send(frame(1) + UNSOLICITED * 100)
        before = len(messages(talk))
        talk.lose()
        assert len(messages(talk)) - before <= leftovers.MAX_FRAMES_AT_END
    port.clock.pump([0] * 100)
    limit = (
        throttle.MAX_PORT_MESSAGES_UNDER_WAY
        + leftovers.MAX_FRAMES_PER_SLICE
        + 20 * leftovers.MAX_FRAMES_AT_END
    )
    assert len(messages(talk)) < limit
    assert not port.clock.getDelayedCalls()  # no polling while Redis is unavailable
    while len(messages(talk)) < 2000:
        under_way = [one for _, one in gateway.published if not one.called]
        assert under_way
        for one in under_way:
            one.callback(None)
        port.clock.pump([0] * 10)
    assert not talk.events_of("lost")


def test_pending_messages_of_many_connections_are_bounded() -> None:
    gateway = FakeGateway()
    port = Port(gateway, Limits())
    crowd = 100
    for number in range(crowd):
        talk = port.connect()
        talk.send(b"\x00\x0f" + b"%015d" % number)
        talk.send(UNSOLICITED * 10)
    assert len(messages(talk)) < throttle.MAX_PORT_MESSAGES_UNDER_WAY + crowd
    while len(messages(talk)) < 10 * crowd:
        under_way = [one for _, one in gateway.published if not one.called]
        assert under_way
        under_way[0].callback(None)
    assert (
        sum(not one.called for _, one in gateway.published) <= throttle.MAX_PORT_MESSAGES_UNDER_WAY
    )


def test_bytes_of_messages_of_ended_connections_are_bounded() -> None:
    gateway = FakeGateway()
    gateway.kept = KeptMemory(2000 * 16)
    port = Port(gateway, Limits())
    for number in range(20):
        talk = port.connect()
        sent = b"\x00\x0f" + b"%015d" % number + frame(1) + message(b"x" * 10) * 20
        talk.protocol.dataReceived(sent)
        talk.lose()
    lost = sum(event[1] for event in talk.events_of("lost"))
    assert lost >= 400 - 20 * leftovers.MAX_FRAMES_AT_END - 2000 // len(message(b"x" * 10))
    port.clock.pump([0] * 100)
    assert lost + len(messages(talk)) == 400


def test_throttled_messages_that_cannot_be_detached_are_counted_as_lost() -> None:
    talk = online(Limits(message_rate=50, message_burst=1))
    talk.send(UNSOLICITED * 100)
    talk.gateway.accepts_detached = False
    talk.lose()
    talk.clock.pump([0] * 10)
    assert sum(event[1] for event in talk.events_of("lost")) == 50


def test_retiring_connection_is_closed_after_its_throttled_messages() -> None:
    talk = online()
    talk.send(UNSOLICITED * 3)
    talk.protocol.retire()
    assert not talk.closed
    talk.clock.advance(1.1)
    assert talk.closed
    assert len(messages(talk)) == 3


def test_message_rate_of_a_device_survives_its_connection() -> None:
    gateway = FakeGateway()
    gateway.confirms_immediately = True
    port = Port(gateway, LIMITS)
    first = port.connect()
    first.send(LOGIN + UNSOLICITED * 2)
    assert len(messages(first)) == 2
    first.protocol.close()
    second = port.connect()
    second.send(LOGIN + UNSOLICITED * 2)
    assert len(messages(second)) == 2
    port.clock.advance(1.1)
    assert len(messages(second)) == 3


@pytest.fixture
def slow_connection(monkeypatch: pytest.MonkeyPatch) -> Conversation:
    """Return a connection whose packets each take two fifths of its saved budget."""
    monkeypatch.setattr("tests.unit.vendors.talk.Clock", SlowWork)
    talk = online(Limits(peer_work=0.01, spare_work=0.001, buffer_bytes=64))
    SlowWork.step = 0.0
    return talk


def receive_slowly(talk: Conversation, number: int) -> None:
    """Receive a packet whose decoding takes two fifths of the saved budget."""
    clock: Any = talk.clock
    clock.step = OWN_BURST * 0.4
    talk.protocol.dataReceived(frame(number))
    clock.step = 0.0


def test_connection_over_its_work_budget_is_paused(slow_connection: Conversation) -> None:
    sent = 0
    while not slow_connection.gateway.tally.paused_for_work:
        sent += 1
        assert sent < 20
        receive_slowly(slow_connection, sent)
    published = len(slow_connection.gateway.published)
    slow_connection.protocol.dataReceived(frame(100) * 3)
    assert len(slow_connection.gateway.published) == published
    assert paused(slow_connection)
    assert not slow_connection.closed
    slow_connection.clock.pump([1] * 100)
    assert len(slow_connection.gateway.published) == published + 4
    assert not paused(slow_connection)
    assert not slow_connection.gateway.cancelled


def test_new_connection_has_a_small_work_budget() -> None:
    clock = Clock()
    clock.rightNow = 1e9
    workload = throttle.Workload(clock, Limits(spare_work=0.001, peer_work=0.05), Tally())
    workload.charge(1)
    made = [throttle.Throttle(workload, lambda hold: None) for _ in range(100)]
    assert sum(one.credit for one in made) <= OWN_BURST
    for one in made:
        one.worked(one.credit, clock.seconds())
    assert not any(one.may_work() for one in made)


def test_clock_set_back_gives_no_work_budget(slow_connection: Conversation) -> None:
    clock: Any = slow_connection.clock
    clock.step = -1.0
    slow_connection.protocol.dataReceived(frame(1))
    clock.step = 0.0
    assert slow_connection.protocol._exchange._throttle.credit <= OWN_BURST


def test_connection_over_its_work_budget_leaves_no_timer_when_it_ends(
    slow_connection: Conversation,
) -> None:
    while not slow_connection.gateway.tally.paused_for_work:
        receive_slowly(slow_connection, 1)
    published = len(slow_connection.gateway.published)
    slow_connection.lose()
    assert slow_connection.timers == 0
    slow_connection.clock.pump([1] * 100)
    assert len(slow_connection.gateway.published) == published


def test_message_larger_than_the_byte_budget_is_published() -> None:
    limits = Limits(message_bytes_rate=64, message_burst=1, command_frame_bytes=65_536)
    talk = online(limits)
    talk.send(message(b"x" * 60_000))
    assert len(messages(talk)) == 1
    assert talk.protocol.device_id == IMEI
