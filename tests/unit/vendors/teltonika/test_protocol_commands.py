"""Times at which a command is written to a device: never within other traffic."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost

from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame, message
from tests.unit.vendors.teltonika.pending import (
    ACK,
    COMMAND,
    SECOND,
    PendingCommand,
)
from tracker.command import CommandFrame
from tracker.vendors.teltonika.dialect import LOGIN_SETTLE_TIME
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY

# Encoding.


def test_connection_encodes_commands_for_its_device(online: Conversation) -> None:
    assert online.protocol.command_frame(IMEI, b"getver", "") == CommandFrame("12", COMMAND)
    assert online.protocol.command_frame(IMEI, b"getinfo", "14") == CommandFrame("14", SECOND)
    with pytest.raises(ValueError, match="commands use"):
        online.protocol.command_frame(IMEI, b"getver", "13")


def test_connection_encodes_commands_during_the_login(talk: Conversation) -> None:
    # The command may have waited on an older connection, which the login ends.
    made = []
    talk.gateway.on_login = lambda connection: made.append(
        connection.command_frame(IMEI, b"getver", "")
    )
    talk.send(LOGIN)
    assert made == [CommandFrame("12", COMMAND)]
    assert talk.received() == b"\x01"


# After the login.


def test_command_waits_until_the_reply_to_the_login_has_settled(online: Conversation) -> None:
    command = PendingCommand(online)
    online.clock.advance(LOGIN_SETTLE_TIME - 0.01)
    assert command.is_waiting
    assert online.received() == b""
    online.clock.advance(0.01)
    assert online.received() == COMMAND
    assert online.timers == 1


def test_command_requested_later_waits_for_the_rest_of_the_settle_time(
    online: Conversation,
) -> None:
    online.clock.advance(LOGIN_SETTLE_TIME * 0.75)
    command = PendingCommand(online)
    assert command.is_waiting
    online.clock.advance(LOGIN_SETTLE_TIME * 0.25)
    assert command.written


def test_command_requested_after_the_settle_time_is_written_at_once(online: Conversation) -> None:
    online.clock.advance(LOGIN_SETTLE_TIME)
    assert PendingCommand(online).written
    assert online.timers == 1


def test_command_may_be_requested_before_the_login(talk: Conversation) -> None:
    command = PendingCommand(talk)
    assert talk.timers == 1
    talk.send(LOGIN[:5])
    talk.clock.advance(20)
    talk.send(LOGIN[5:])
    assert talk.received() == b"\x01"
    talk.clock.advance(LOGIN_SETTLE_TIME)
    assert command.written
    assert talk.received() == COMMAND


def test_packet_after_the_login_ends_the_settle_time(online: Conversation) -> None:
    command = PendingCommand(online)
    online.send(frame(1))
    assert command.is_waiting
    assert online.received() == b""
    online.confirm()
    assert command.written
    assert online.received() == ACK + COMMAND
    assert online.timers == 1


def test_packet_without_records_ends_the_settle_time(online: Conversation) -> None:
    command = PendingCommand(online)
    online.send(malformed.NO_RECORDS)
    assert command.is_waiting
    online.confirm()
    assert online.received() == bytes(4) + COMMAND


@pytest.mark.parametrize("sent", [b"\xff", message()])
def test_ping_or_message_does_not_end_the_settle_time(online: Conversation, sent: bytes) -> None:
    command = PendingCommand(online)
    online.send(sent)
    assert command.is_waiting
    online.clock.advance(LOGIN_SETTLE_TIME)
    assert command.written


def test_packet_in_the_segment_of_the_login_is_acknowledged_first(talk: Conversation) -> None:
    command = PendingCommand(talk)
    talk.send(LOGIN + frame(1))
    assert talk.received() == b"\x01"
    talk.clock.advance(LOGIN_SETTLE_TIME * 2)
    assert command.is_waiting
    talk.confirm()
    assert talk.received() == ACK + COMMAND


def test_command_waits_until_the_reply_to_a_repeated_login_has_settled(
    settled: Conversation,
) -> None:
    settled.protocol.dataReceived(LOGIN)
    command = PendingCommand(settled)
    assert settled.received() == b""
    settled.clock.advance(0)
    assert settled.received() == b"\x01"
    settled.clock.advance(LOGIN_SETTLE_TIME - 0.01)
    assert command.is_waiting
    settled.clock.advance(0.01)
    assert settled.received() == COMMAND


def test_settle_time_starts_when_a_late_reply_is_written(settled: Conversation) -> None:
    settled.protocol.dataReceived(LOGIN)
    command = PendingCommand(settled)
    settled.clock.advance(LOGIN_SETTLE_TIME * 5)  # the reactor has been busy
    assert settled.received() == b"\x01"
    assert command.is_waiting
    settled.clock.advance(LOGIN_SETTLE_TIME)
    assert settled.received() == COMMAND


def test_packet_after_a_repeated_login_ends_the_settle_time(
    settled: Conversation,
) -> None:
    earlier = PendingCommand(settled, SECOND)
    settled.send(LOGIN + frame(2))
    command = PendingCommand(settled)
    settled.confirm()
    assert earlier.written
    assert command.written
    assert settled.received() == SECOND + b"\x01" + ACK + COMMAND


# Between packets.


def test_command_is_written_at_once_on_an_idle_connection(settled: Conversation) -> None:
    assert PendingCommand(settled).written
    assert settled.received() == COMMAND
    assert settled.timers == 1


def test_several_commands_are_written_one_after_another(settled: Conversation) -> None:
    assert PendingCommand(settled).written
    assert PendingCommand(settled, SECOND).written
    settled.send(frame(2))
    third = PendingCommand(settled)
    assert third.is_waiting
    settled.confirm()
    assert PendingCommand(settled, SECOND).written
    assert settled.received() == COMMAND + SECOND + ACK + COMMAND + SECOND


def test_command_may_be_requested_when_another_was_just_written(settled: Conversation) -> None:
    settled.send(frame(2))
    later: list[PendingCommand] = []
    first = PendingCommand(settled)
    first.when_free.addCallback(lambda _: later.append(PendingCommand(settled, SECOND)))
    settled.confirm()
    assert later[0].written
    assert settled.received() == ACK + COMMAND + SECOND


def test_command_is_not_written_before_an_ack(settled: Conversation) -> None:
    settled.send(frame(2))
    command = PendingCommand(settled)
    settled.clock.advance(500)
    assert command.is_waiting
    assert settled.received() == b""
    settled.confirm()
    assert settled.received() == ACK + COMMAND


@pytest.mark.parametrize("split", range(1, len(frame(2))))
def test_command_is_not_written_within_a_frame(settled: Conversation, split: int) -> None:
    data = frame(2)
    settled.send(data[:split])
    command = PendingCommand(settled)
    settled.clock.advance(LOGIN_SETTLE_TIME * 2)
    assert command.is_waiting
    settled.send(data[split:])
    assert command.is_waiting
    assert settled.received() == b""
    settled.confirm()
    assert settled.received() == ACK + COMMAND
    assert settled.timers == 1


@pytest.mark.parametrize("split", range(1, len(message())))
def test_command_is_not_written_within_a_message(settled: Conversation, split: int) -> None:
    data = message()
    settled.send(data[:split])
    command = PendingCommand(settled)
    assert command.is_waiting
    settled.send(data[split:])
    assert command.written  # it gets no ACK
    assert settled.received() == COMMAND
    settled.confirm()


@pytest.mark.parametrize("split", range(1, len(LOGIN)))
def test_command_is_not_written_within_a_repeated_login(settled: Conversation, split: int) -> None:
    settled.send(LOGIN[:split])
    command = PendingCommand(settled)
    settled.clock.advance(LOGIN_SETTLE_TIME * 2)
    assert command.is_waiting
    settled.send(LOGIN[split:])
    assert settled.received() == b"\x01"
    settled.clock.advance(LOGIN_SETTLE_TIME)
    assert settled.received() == COMMAND


def test_command_is_not_written_between_an_ack_and_an_incomplete_frame(
    settled: Conversation,
) -> None:
    command = PendingCommand(settled, radio_sleeps=0.5)
    assert command.written
    settled.send(frame(2) + frame(3)[:10])
    second = PendingCommand(settled, SECOND)
    settled.confirm()
    assert second.is_waiting
    assert settled.received() == COMMAND + ACK
    settled.send(frame(3)[10:])
    settled.confirm()
    assert settled.received() == ACK + SECOND


@pytest.mark.parametrize("at_once", [True, False])
def test_all_frames_of_a_segment_are_acknowledged_before_a_command(
    talk: Conversation, at_once: bool
) -> None:
    talk.gateway.confirms_immediately = at_once
    command = PendingCommand(talk)
    talk.send(LOGIN + b"\xff" + frame(1) + frame(2, 3) + b"\xff" + frame(4) + b"\xff\xff")
    if not at_once:
        for _ in range(3):
            assert command.is_waiting
            talk.confirm()
    assert talk.received() == b"\x01" + ACK + b"\x00\x00\x00\x02" + ACK + COMMAND
    assert command.written


def test_pings_after_a_frame_do_not_delay_a_command(settled: Conversation) -> None:
    settled.send(frame(2))
    command = PendingCommand(settled)
    settled.send(b"\xff\xff")
    assert command.is_waiting
    settled.confirm()
    assert command.written
    assert settled.received() == ACK + COMMAND


def test_command_waits_until_a_message_that_cannot_be_detached_is_appended(
    settled: Conversation,
) -> None:
    settled.gateway.accepts_detached = False
    settled.send(message())
    command = PendingCommand(settled)
    assert command.is_waiting
    settled.confirm()
    assert settled.received() == COMMAND


def test_command_waits_while_too_many_messages_are_unconfirmed(settled: Conversation) -> None:
    settled.send(message() * MAX_MESSAGES_UNDER_WAY)
    command = PendingCommand(settled)
    assert command.is_waiting
    settled.confirm()
    assert command.written


def test_command_is_not_written_to_a_peer_that_does_not_read(settled: Conversation) -> None:
    settled.transport.producer.pauseProducing()
    command = PendingCommand(settled)
    settled.send(frame(2))
    settled.clock.advance(LOGIN_SETTLE_TIME * 2)
    assert command.is_waiting
    settled.transport.producer.resumeProducing()
    assert command.is_waiting
    settled.confirm()
    assert settled.received() == ACK + COMMAND


def test_command_is_written_when_the_peer_reads_again(settled: Conversation) -> None:
    settled.transport.producer.pauseProducing()
    command = PendingCommand(settled)
    assert command.is_waiting
    settled.transport.producer.resumeProducing()
    assert settled.received() == COMMAND
    assert settled.transport.producerState == "producing"


def test_ack_that_fills_the_socket_delays_the_command(
    settled: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = settled.transport.write

    def fill(data: bytes) -> None:
        write(data)
        settled.transport.producer.pauseProducing()

    settled.send(frame(2))
    command = PendingCommand(settled)
    monkeypatch.setattr(settled.transport, "write", fill)
    settled.confirm()
    assert command.is_waiting
    assert settled.received() == ACK
    settled.transport.producer.resumeProducing()
    assert command.written
    second = PendingCommand(settled, SECOND)  # the first command has filled the socket again
    assert second.is_waiting
    assert settled.received() == COMMAND
    settled.transport.producer.resumeProducing()
    assert settled.received() == SECOND


# A radio that sleeps.


@pytest.mark.parametrize(
    ("silence", "is_written"), [(0, True), (29.9, True), (30, False), (500, False)]
)
def test_command_is_not_written_to_a_device_that_may_sleep(
    settled: Conversation, silence: float, is_written: bool
) -> None:
    settled.clock.advance(silence)
    command = PendingCommand(settled, radio_sleeps=30)
    assert command.written is is_written
    settled.clock.advance(50)
    assert command.written is is_written
    assert settled.timers == 1


def test_sleeping_device_gets_the_command_after_its_next_packet(
    settled: Conversation,
) -> None:
    settled.clock.advance(100)
    command = PendingCommand(settled, radio_sleeps=30)
    settled.send(frame(2))
    assert command.is_waiting
    settled.clock.advance(1)
    settled.confirm()
    assert settled.received() == ACK + COMMAND


@pytest.mark.parametrize("sign", [b"\xff", message(), message(codec_id=0x0D, time=1)])
def test_sleeping_device_gets_the_command_after_a_ping_or_message(
    settled: Conversation, sign: bytes
) -> None:
    settled.clock.advance(100)
    command = PendingCommand(settled, radio_sleeps=30)
    assert command.is_waiting
    settled.send(sign)
    assert settled.received() == COMMAND
    assert command.written


def test_incomplete_frame_does_not_wake_a_sleeping_device(settled: Conversation) -> None:
    settled.clock.advance(100)
    command = PendingCommand(settled, radio_sleeps=30)
    settled.send(frame(2)[:20])
    assert command.is_waiting
    settled.send(frame(2)[20:])
    assert command.is_waiting
    settled.confirm()
    assert command.written


def test_device_that_falls_asleep_while_it_does_not_read_gets_no_command(
    settled: Conversation,
) -> None:
    settled.transport.producer.pauseProducing()
    command = PendingCommand(settled, radio_sleeps=30)
    settled.clock.advance(30)
    settled.transport.producer.resumeProducing()
    assert command.is_waiting
    settled.send(b"\xff")
    assert command.written


def test_each_command_has_its_own_limit_for_sleeping_radios(settled: Conversation) -> None:
    settled.clock.advance(100)
    sleeper = PendingCommand(settled, radio_sleeps=30)
    assert sleeper.is_waiting
    sleeper.when_free.cancel()
    assert PendingCommand(settled).written
    assert PendingCommand(settled, radio_sleeps=30).is_waiting


def test_command_waits_if_the_radio_sleeps_before_the_settle_time_ends(
    online: Conversation,
) -> None:
    command = PendingCommand(online, radio_sleeps=LOGIN_SETTLE_TIME / 2)
    online.clock.advance(LOGIN_SETTLE_TIME)
    assert command.is_waiting
    assert online.timers == 1
    online.send(b"\xff")
    assert command.written


# Writing.


@pytest.mark.parametrize("taken", [0, 1, 4, len(COMMAND) - 1, ConnectionLost()])
def test_unsent_rest_of_a_command_is_written_before_later_data(
    settled: Conversation, taken: int | Exception
) -> None:
    direct: list[bytes] = []

    def write_some(data: bytes) -> int | Exception:
        if data != COMMAND:
            direct.append(data)
            return len(data)
        direct.append(data[: taken if isinstance(taken, int) else 0])
        return taken

    settled.protocol._wire._write_directly = write_some
    settled.send(frame(2))
    command = PendingCommand(settled)
    settled.confirm()
    assert command.written
    settled.send(frame(3, 4))
    PendingCommand(settled, SECOND)
    settled.confirm()
    assert b"".join(direct) + settled.received() == ACK + COMMAND + b"\x00\x00\x00\x02" + SECOND
    assert len(direct) == 2  # later data goes through the transport


def test_unsent_rest_of_an_ack_is_written_before_a_command(
    settled: Conversation,
) -> None:
    direct: list[bytes] = []

    def write_some(data: bytes) -> int:
        direct.append(data[:1])
        return 1

    settled.protocol._wire._write_directly = write_some
    settled.send(frame(2))
    PendingCommand(settled)
    settled.confirm()
    assert direct == [ACK[:1]]
    assert settled.received() == ACK[1:] + COMMAND
