"""When a command may be written to a device: between what it sends, and into nothing."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost

from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.conversation import LOGIN, Conversation, frame, message
from tests.unit.vendors.teltonika.turns import (
    ACK,
    COMMAND,
    SECOND,
    Turn,
)
from tracker.command import CommandFrame
from tracker.vendors.teltonika.dialect import LOGIN_SETTLES
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY

# The codec's part.


def test_a_session_makes_commands_for_its_device(online: Conversation) -> None:
    assert online.protocol.command_frame("getver", "") == CommandFrame("12", COMMAND)
    assert online.protocol.command_frame("getinfo", "14") == CommandFrame("14", SECOND)
    with pytest.raises(ValueError, match="commands go in"):
        online.protocol.command_frame("getver", "13")


def test_a_session_does_so_as_soon_as_its_gateway_is_told_of_it(talk: Conversation) -> None:
    # The command may have waited for its turn on an older connection, which ends by that.
    made = []
    talk.gateway.on_login = lambda connection: made.append(connection.command_frame("getver", ""))
    talk.send(LOGIN)
    assert made == [CommandFrame("12", COMMAND)]
    assert talk.answer() == b"\x01"


# After the login.


def test_after_the_login_its_answer_stands_alone(online: Conversation) -> None:
    turn = Turn(online)
    online.clock.advance(LOGIN_SETTLES - 0.01)
    assert turn.waits
    assert online.answer() == b""
    online.clock.advance(0.01)
    assert online.answer() == COMMAND
    assert online.timers == 1


def test_a_turn_that_is_asked_for_later_waits_for_the_rest_only(online: Conversation) -> None:
    online.clock.advance(LOGIN_SETTLES * 0.75)
    turn = Turn(online)
    assert turn.waits
    online.clock.advance(LOGIN_SETTLES * 0.25)
    assert turn.came


def test_a_turn_that_is_asked_for_late_comes_at_once(online: Conversation) -> None:
    online.clock.advance(LOGIN_SETTLES)
    assert Turn(online).came
    assert online.timers == 1


def test_a_turn_may_be_asked_for_before_the_login(talk: Conversation) -> None:
    turn = Turn(talk)
    assert talk.timers == 1
    talk.send(LOGIN[:5])
    talk.clock.advance(20)
    talk.send(LOGIN[5:])
    assert talk.answer() == b"\x01"
    talk.clock.advance(LOGIN_SETTLES)
    assert turn.came
    assert talk.answer() == COMMAND


def test_a_packet_after_the_login_shows_that_its_answer_was_read(online: Conversation) -> None:
    turn = Turn(online)
    online.send(frame(1))
    assert turn.waits
    assert online.answer() == b""
    online.confirm()
    assert turn.came
    assert online.answer() == ACK + COMMAND
    assert online.timers == 1


def test_a_packet_without_records_shows_it_too(online: Conversation) -> None:
    turn = Turn(online)
    online.send(malformed.NO_RECORDS)
    assert turn.waits
    online.confirm()
    assert online.answer() == bytes(4) + COMMAND


@pytest.mark.parametrize("sent", [b"\xff", message()])
def test_what_is_not_acknowledged_shows_nothing_of_the_login(
    online: Conversation, sent: bytes
) -> None:
    turn = Turn(online)
    online.send(sent)
    assert turn.waits
    online.clock.advance(LOGIN_SETTLES)
    assert turn.came


def test_a_packet_in_the_logins_segment_is_acknowledged_first(talk: Conversation) -> None:
    turn = Turn(talk)
    talk.send(LOGIN + frame(1))
    assert talk.answer() == b"\x01"
    talk.clock.advance(LOGIN_SETTLES * 2)
    assert turn.waits
    talk.confirm()
    assert talk.answer() == ACK + COMMAND


def test_the_answer_to_the_same_login_again_stands_alone_too(settled: Conversation) -> None:
    settled.protocol.dataReceived(LOGIN)
    turn = Turn(settled)
    assert settled.answer() == b""
    settled.clock.advance(0)
    assert settled.answer() == b"\x01"
    settled.clock.advance(LOGIN_SETTLES - 0.01)
    assert turn.waits
    settled.clock.advance(0.01)
    assert settled.answer() == COMMAND


def test_it_stands_alone_however_late_it_is_written(settled: Conversation) -> None:
    settled.protocol.dataReceived(LOGIN)
    turn = Turn(settled)
    settled.clock.advance(LOGIN_SETTLES * 5)  # the reactor has been busy with something else
    assert settled.answer() == b"\x01"
    assert turn.waits
    settled.clock.advance(LOGIN_SETTLES)
    assert settled.answer() == COMMAND


def test_a_packet_after_the_same_login_again_shows_that_its_answer_was_read(
    settled: Conversation,
) -> None:
    turn_before = Turn(settled, SECOND)
    settled.send(LOGIN + frame(2))
    turn = Turn(settled)
    settled.confirm()
    assert turn_before.came
    assert turn.came
    assert settled.answer() == SECOND + b"\x01" + ACK + COMMAND


# Between packets.


def test_a_turn_comes_at_once_where_nothing_is_under_way(settled: Conversation) -> None:
    assert Turn(settled).came
    assert settled.answer() == COMMAND
    assert settled.timers == 1


def test_a_turn_may_be_asked_for_again_and_again(settled: Conversation) -> None:
    assert Turn(settled).came
    assert Turn(settled, SECOND).came
    settled.send(frame(2))
    third = Turn(settled)
    assert third.waits
    settled.confirm()
    assert Turn(settled, SECOND).came
    assert settled.answer() == COMMAND + SECOND + ACK + COMMAND + SECOND


def test_a_turn_may_be_asked_for_when_one_has_just_come(settled: Conversation) -> None:
    settled.send(frame(2))
    later: list[Turn] = []
    first = Turn(settled)
    first.wanted.addCallback(lambda _: later.append(Turn(settled, SECOND)))
    settled.confirm()
    assert later[0].came
    assert settled.answer() == ACK + COMMAND + SECOND


def test_no_command_comes_before_an_acknowledgement(settled: Conversation) -> None:
    settled.send(frame(2))
    turn = Turn(settled)
    settled.clock.advance(500)
    assert turn.waits
    assert settled.answer() == b""
    settled.confirm()
    assert settled.answer() == ACK + COMMAND


@pytest.mark.parametrize("split", range(1, len(frame(2))))
def test_no_command_comes_into_a_frame(settled: Conversation, split: int) -> None:
    data = frame(2)
    settled.send(data[:split])
    turn = Turn(settled)
    settled.clock.advance(LOGIN_SETTLES * 2)
    assert turn.waits
    settled.send(data[split:])
    assert turn.waits
    assert settled.answer() == b""
    settled.confirm()
    assert settled.answer() == ACK + COMMAND
    assert settled.timers == 1


@pytest.mark.parametrize("split", range(1, len(message())))
def test_no_command_comes_into_a_message(settled: Conversation, split: int) -> None:
    data = message()
    settled.send(data[:split])
    turn = Turn(settled)
    assert turn.waits
    settled.send(data[split:])
    assert turn.came  # nobody acknowledges it
    assert settled.answer() == COMMAND
    settled.confirm()


@pytest.mark.parametrize("split", range(1, len(LOGIN)))
def test_no_command_comes_into_the_same_login_again(settled: Conversation, split: int) -> None:
    settled.send(LOGIN[:split])
    turn = Turn(settled)
    settled.clock.advance(LOGIN_SETTLES * 2)
    assert turn.waits
    settled.send(LOGIN[split:])
    assert settled.answer() == b"\x01"
    settled.clock.advance(LOGIN_SETTLES)
    assert settled.answer() == COMMAND


def test_no_command_comes_between_an_acknowledgement_and_half_a_frame(
    settled: Conversation,
) -> None:
    turn = Turn(settled, radio_sleeps=0.5)
    assert turn.came
    settled.send(frame(2) + frame(3)[:10])
    second = Turn(settled, SECOND)
    settled.confirm()
    assert second.waits
    assert settled.answer() == COMMAND + ACK
    settled.send(frame(3)[10:])
    settled.confirm()
    assert settled.answer() == ACK + SECOND


@pytest.mark.parametrize("at_once", [True, False])
def test_of_several_frames_in_a_segment_all_are_acknowledged_first(
    talk: Conversation, at_once: bool
) -> None:
    talk.gateway.confirms_immediately = at_once
    turn = Turn(talk)
    talk.send(LOGIN + b"\xff" + frame(1) + frame(2, 3) + b"\xff" + frame(4) + b"\xff\xff")
    if not at_once:
        for _ in range(3):
            assert turn.waits
            talk.confirm()
    assert talk.answer() == b"\x01" + ACK + b"\x00\x00\x00\x02" + ACK + COMMAND
    assert turn.came


def test_pings_behind_a_frame_hold_nothing_up(settled: Conversation) -> None:
    settled.send(frame(2))
    turn = Turn(settled)
    settled.send(b"\xff\xff")
    assert turn.waits
    settled.confirm()
    assert turn.came
    assert settled.answer() == ACK + COMMAND


def test_a_message_for_which_there_is_no_room_is_waited_for(settled: Conversation) -> None:
    settled.gateway.accepts_detached = False
    settled.send(message())
    turn = Turn(settled)
    assert turn.waits
    settled.confirm()
    assert settled.answer() == COMMAND


def test_no_command_while_too_many_messages_are_under_way(settled: Conversation) -> None:
    settled.send(message() * MAX_MESSAGES_UNDER_WAY)
    turn = Turn(settled)
    assert turn.waits
    settled.confirm()
    assert turn.came


def test_no_command_for_a_peer_that_does_not_read(settled: Conversation) -> None:
    settled.transport.producer.pauseProducing()
    turn = Turn(settled)
    settled.send(frame(2))
    settled.clock.advance(LOGIN_SETTLES * 2)
    assert turn.waits
    settled.transport.producer.resumeProducing()
    assert turn.waits
    settled.confirm()
    assert settled.answer() == ACK + COMMAND


def test_a_peer_that_reads_again_gets_its_command(settled: Conversation) -> None:
    settled.transport.producer.pauseProducing()
    turn = Turn(settled)
    assert turn.waits
    settled.transport.producer.resumeProducing()
    assert settled.answer() == COMMAND
    assert settled.transport.producerState == "producing"


def test_an_acknowledgement_that_fills_the_socket_holds_the_command_back(
    settled: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = settled.transport.write

    def fill(data: bytes) -> None:
        write(data)
        settled.transport.producer.pauseProducing()

    settled.send(frame(2))
    turn = Turn(settled)
    monkeypatch.setattr(settled.transport, "write", fill)
    settled.confirm()
    assert turn.waits
    assert settled.answer() == ACK
    settled.transport.producer.resumeProducing()
    assert turn.came
    second = Turn(settled, SECOND)  # the first one has filled it again
    assert second.waits
    assert settled.answer() == COMMAND
    settled.transport.producer.resumeProducing()
    assert settled.answer() == SECOND


# A radio that sleeps.


@pytest.mark.parametrize(("silence", "comes"), [(0, True), (29.9, True), (30, False), (500, False)])
def test_a_device_that_may_sleep_is_left_alone(
    settled: Conversation, silence: float, comes: bool
) -> None:
    settled.clock.advance(silence)
    turn = Turn(settled, radio_sleeps=30)
    assert turn.came is comes
    settled.clock.advance(50)
    assert turn.came is comes
    assert settled.timers == 1


def test_a_device_that_may_sleep_is_told_right_after_its_next_packet(
    settled: Conversation,
) -> None:
    settled.clock.advance(100)
    turn = Turn(settled, radio_sleeps=30)
    settled.send(frame(2))
    assert turn.waits
    settled.clock.advance(1)
    settled.confirm()
    assert settled.answer() == ACK + COMMAND


@pytest.mark.parametrize("sign", [b"\xff", message(), message(codec_id=0x0D, time=1)])
def test_a_device_that_may_sleep_is_told_at_any_sign_of_life(
    settled: Conversation, sign: bytes
) -> None:
    settled.clock.advance(100)
    turn = Turn(settled, radio_sleeps=30)
    assert turn.waits
    settled.send(sign)
    assert settled.answer() == COMMAND
    assert turn.came


def test_half_a_frame_is_no_sign_that_a_device_listens(settled: Conversation) -> None:
    settled.clock.advance(100)
    turn = Turn(settled, radio_sleeps=30)
    settled.send(frame(2)[:20])
    assert turn.waits
    settled.send(frame(2)[20:])
    assert turn.waits
    settled.confirm()
    assert turn.came


def test_what_falls_silent_while_it_is_waited_for_is_left_alone_too(
    settled: Conversation,
) -> None:
    settled.transport.producer.pauseProducing()
    turn = Turn(settled, radio_sleeps=30)
    settled.clock.advance(30)
    settled.transport.producer.resumeProducing()
    assert turn.waits
    settled.send(b"\xff")
    assert turn.came


def test_each_turn_says_for_itself_whether_the_radio_sleeps(settled: Conversation) -> None:
    settled.clock.advance(100)
    sleeper = Turn(settled, radio_sleeps=30)
    assert sleeper.waits
    sleeper.wanted.cancel()
    assert Turn(settled).came
    assert Turn(settled, radio_sleeps=30).waits


def test_a_radio_that_sleeps_sooner_than_a_login_settles(online: Conversation) -> None:
    turn = Turn(online, radio_sleeps=LOGIN_SETTLES / 2)
    online.clock.advance(LOGIN_SETTLES)
    assert turn.waits
    assert online.timers == 1
    online.send(b"\xff")
    assert turn.came


# Writing.


@pytest.mark.parametrize("taken", [0, 1, 4, len(COMMAND) - 1, ConnectionLost()])
def test_what_of_a_command_the_socket_does_not_take_goes_before_all_that_follows(
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
    turn = Turn(settled)
    settled.confirm()
    assert turn.came
    settled.send(frame(3, 4))
    Turn(settled, SECOND)
    settled.confirm()
    assert b"".join(direct) + settled.answer() == ACK + COMMAND + b"\x00\x00\x00\x02" + SECOND
    assert len(direct) == 2  # whatever follows goes the usual way


def test_a_command_follows_what_the_socket_has_not_taken_of_an_acknowledgement(
    settled: Conversation,
) -> None:
    direct: list[bytes] = []

    def write_some(data: bytes) -> int:
        direct.append(data[:1])
        return 1

    settled.protocol._wire._write_directly = write_some
    settled.send(frame(2))
    Turn(settled)
    settled.confirm()
    assert direct == [ACK[:1]]
    assert settled.answer() == ACK[1:] + COMMAND
