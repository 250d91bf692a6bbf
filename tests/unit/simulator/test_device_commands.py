"""A simulated device that receives commands between the acknowledgements of its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.simulator.bench import IMEI, Bench, switch_on
from tests.unit.simulator.fakes import FakeConnection, acknowledgement, command
from tests.unit.vendors.teltonika.golden_messages import COMMAND_12
from tracker.simulator.device import ANSWER_DELAY, FIRST_RETRY, Answers, ExecutedCommand
from tracker.simulator.fleet import CommandJournal
from tracker.vendors.teltonika.avl import Packet
from tracker.vendors.teltonika.devicecommands import MAX_COMMAND_BYTES, UNKNOWN
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import (
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    encode_message,
)

ANOTHER = "490154203237518"
CODEC_12, CODEC_14 = MESSAGE_CODECS[0x0C], MESSAGE_CODECS[0x0E]
DIGITAL_OUTPUTS = "DOUT1:1 Timeout:INFINITY DOUT2:1 Timeout:INFINITY"

each_codec = pytest.mark.parametrize("imei", [None, IMEI], ids=["12", "14"])


def answer_to(imei: str | None, text: str) -> Message:
    """Return the answer to a command with this IMEI (Codec 14), or without one (Codec 12)."""
    codec = CODEC_12 if imei is None else CODEC_14
    return Message(codec, RESPONSE, text.encode(), imei=imei)


def texts(connection: FakeConnection) -> list[str | None]:
    """Return the answers that the device has sent since the last call."""
    sent = connection.packets_and_messages()
    return [message.text for message in sent if isinstance(message, Message)]


# Executing and answering.


@each_codec
def test_command_is_executed_reported_and_answered_in_its_codec(imei: str | None) -> None:
    bench = switch_on()
    connection = bench.log_in()
    connection.command("setdigout 11", imei)
    assert connection.message() == answer_to(imei, DIGITAL_OUTPUTS)
    codec = "12" if imei is None else "14"
    assert bench.device.executed == [ExecutedCommand(text="setdigout 11", codec=codec)]
    assert bench.commanded == [(IMEI, codec, "setdigout 11")]
    assert bench.counters.commands == 1
    assert not connection.closing


def test_published_example_of_a_command_is_answered() -> None:
    connection = switch_on().log_in()
    connection.send(COMMAND_12.frame)
    assert str(connection.message().text).startswith("INI:2024/3/15 12:0 RTC:2024/3/15 12:0 ")


def test_answers_contain_the_devices_imei_coordinates_and_time() -> None:
    bench = switch_on(records=30)
    connection = bench.log_in()
    bench.record(30)
    last = connection.packet().records[-1]
    connection.command("getgps")
    assert texts(connection) == [
        f"GPS:1 Sat:{last.satellites} Lat:{last.latitude / 1e7:.7f} Long:{last.longitude / 1e7:.7f}"
        f" Alt:{last.altitude} Speed:{last.speed} Dir:{last.angle} Date:2024/3/15 Time:12:00:30"
    ]
    connection.command("getver")
    (version,) = texts(connection)
    assert f" IMEI:{IMEI} " in str(version)
    assert " Uptime:30 " in str(version)


def test_commands_do_not_change_the_route_of_a_vehicle() -> None:
    tracks = []
    for commanded in (False, True):
        bench = switch_on(records=20)
        connection = bench.log_in()
        for _ in range(20):
            bench.record()
            if commanded:
                connection.command("getgps")
        sent = connection.packets_and_messages()
        tracks.append([packet for packet in sent if isinstance(packet, Packet)])
        assert len(tracks[-1]) == 1
    assert tracks[0] == tracks[1]


def test_unknown_command_is_reported_and_rejected() -> None:
    bench = switch_on()
    connection = bench.log_in()
    connection.command("fly")
    assert texts(connection) == [UNKNOWN]
    assert bench.commanded == [(IMEI, "12", "fly")]


def test_command_that_is_not_utf_8_is_reported_in_hex_and_rejected() -> None:
    bench = switch_on()
    connection = bench.log_in()
    connection.send(encode_frame(encode_message(Message(CODEC_12, 5, b"get\xff"))))
    assert texts(connection) == [UNKNOWN]
    assert bench.commanded == [(IMEI, "12", "0x676574ff")]


@pytest.mark.parametrize("answers", [Answers.PROMPT, Answers.REFUSE])
def test_command_for_another_imei_is_refused_and_not_executed(answers: Answers) -> None:
    bench = switch_on(answers=answers)
    connection = bench.log_in()
    connection.command("getver", ANOTHER)
    assert connection.message() == Message(CODEC_14, NACK, b"", imei=IMEI)
    assert (bench.device.executed, bench.commanded, bench.counters.commands) == ([], [], 0)


# Among acknowledgements.


def awaiting() -> tuple[Bench, FakeConnection, list[Packet | Message]]:
    """Return a device that waits for its first ACK and has another packet, and what it sent."""
    bench = switch_on(records=2)
    connection = bench.log_in()
    bench.record(4)
    return bench, connection, connection.packets_and_messages()


def run(pieces: Sequence[bytes]) -> tuple[list[Packet | Message], list[tuple[str, str, str]]]:
    """Send ``pieces`` to a device that waits for an ACK; return what it sent and executed."""
    bench, connection, sent = awaiting()
    for piece in pieces:
        connection.send(piece)
    assert not connection.closing
    assert bench.counters.retransmitted == 0
    return sent + connection.packets_and_messages(), bench.commanded


STREAMS = {
    "command": [command("getver")],
    "acknowledgement, command": [acknowledgement(2), command("setdigout 11", IMEI)],
    "command, acknowledgement": [command("setdigout 11"), acknowledgement(2)],
    "all": [
        *(command("getio"), acknowledgement(2), command("setdigout 1", IMEI), command("getio")),
        *(acknowledgement(2), command("getver", ANOTHER), command("getparam 1")),
    ],
}


@pytest.mark.parametrize("parts", STREAMS.values(), ids=STREAMS)
def test_commands_and_acknowledgements_may_arrive_in_any_segments(parts: list[bytes]) -> None:
    expected = run(parts)
    stream = b"".join(parts)
    assert run([stream]) == expected
    assert run([stream[offset : offset + 1] for offset in range(len(stream))]) == expected
    for offset in range(1, len(stream)):
        assert run([stream[:offset], stream[offset:]]) == expected


def test_each_command_and_acknowledgement_has_its_effect() -> None:
    sent, commanded = run([b"".join(STREAMS["all"])])
    summary = [one.text if isinstance(one, Message) else len(one.records) for one in sent]
    io = "DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:0 DO1:{} DO2:0"
    assert summary == [
        *(2, io.format(0), 2, "DOUT1:1 Timeout:INFINITY", io.format(1), ""),
        "Param ID:1 Val:0",
    ]
    assert [text for _, _, text in commanded] == ["getio", "setdigout 1", "getio", "getparam 1"]


def test_command_may_arrive_with_the_reply_to_the_login() -> None:
    bench = switch_on()
    bench.record()
    connection = bench.endpoint.accept()
    connection.received()
    connection.send(b"\x01" + command("getparam 1"))
    packet, answer = connection.packets_and_messages()
    assert isinstance(packet, Packet)
    assert answer == answer_to(None, "Param ID:1 Val:0")


def test_packet_is_sent_and_acknowledged_while_a_command_is_incomplete() -> None:
    frame = command("getparam 1")
    for offset in range(1, len(frame)):
        bench = switch_on()
        connection = bench.log_in()
        connection.send(frame[:offset])
        bench.record()
        assert len(connection.packet().records) == 1
        connection.send(frame[offset:] + acknowledgement(1))
        assert texts(connection) == ["Param ID:1 Val:0"]
        assert bench.counters.acknowledged == 1


def test_command_does_not_stop_the_response_timeout() -> None:
    bench = switch_on(response_timeout=5)
    connection = bench.log_in()
    bench.record()
    connection.received()
    bench.clock.advance(3)
    connection.command("getver")
    bench.clock.advance(2)
    assert connection.aborted
    assert bench.counters.acknowledged == 0


def bad_checksum() -> bytes:
    frame = bytearray(command("getver"))
    frame[-1] ^= 1
    return bytes(frame)


INVALID_FRAMES = {
    "a length that is too short": bytes(4) + b"\x00\x00\x00\x01",
    "a length that is too great": bytes(4) + (MAX_COMMAND_BYTES + 1).to_bytes(4, "big"),
    "a bad checksum": bad_checksum(),
    "an answer": encode_frame(encode_message(Message(CODEC_12, RESPONSE, b"getver"))),
    "a truncated message": encode_frame(b"\x0c\x01\x05"),
    "another codec": encode_frame(b"\x08\x00\x00"),
}


@pytest.mark.parametrize("frame", INVALID_FRAMES.values(), ids=INVALID_FRAMES)
@pytest.mark.parametrize("records", [0, 1])
def test_frame_that_is_not_a_command_aborts_the_connection(frame: bytes, records: int) -> None:
    bench = switch_on()
    connection = bench.log_in()
    bench.record(records)
    connection.received()
    connection.send(frame + command("getver"))
    assert connection.aborted
    assert connection.received() == b""
    assert bench.commanded == []
    connection.lose()
    assert bench.wait_for_attempt() <= FIRST_RETRY + 0.02


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x01", b"\x01", b"GET / HTTP/1.1\r\n"])
def test_acknowledgement_without_a_packet_aborts_the_connection(data: bytes) -> None:
    bench = switch_on()
    connection = bench.log_in()
    connection.send(data)
    assert connection.aborted


# Devices that answer late, not at all, or refuse.


def test_slow_device_answers_late_and_in_order() -> None:
    bench = switch_on(answers=Answers.SLOW, interval=100)
    connection = bench.log_in()
    connection.send(command("getparam 1") + command("getparam 2", IMEI))
    bench.clock.advance(1)
    connection.command("getparam 3")
    assert [text for _, _, text in bench.commanded] == ["getparam 1", "getparam 2", "getparam 3"]
    bench.clock.advance(ANSWER_DELAY - 1.01)
    assert connection.received() == b""
    bench.clock.advance(0.01)
    bench.clock.advance(0)
    assert connection.packets_and_messages() == [
        answer_to(None, "Param ID:1 Val:0"),
        answer_to(IMEI, "Param ID:2 Val:0"),
    ]
    bench.clock.advance(0.99)
    assert connection.received() == b""
    bench.clock.advance(0.01)
    assert texts(connection) == ["Param ID:3 Val:0"]
    connection.command("getparam 4")
    bench.clock.advance(ANSWER_DELAY)
    assert texts(connection) == ["Param ID:4 Val:0"]


def test_slow_device_sends_records_while_an_answer_is_due() -> None:
    bench = switch_on(answers=Answers.SLOW)
    connection = bench.log_in()
    connection.command("getparam 1")
    kinds: list[type[Packet | Message]] = []
    for _ in range(5):
        bench.record()
        kinds += map(type, connection.packets_and_messages())
        connection.acknowledge(1)
    assert kinds.count(Packet) == 5
    assert kinds.count(Message) == 1
    assert bench.counters.acknowledged == 5


def test_late_answer_is_dropped_with_its_connection() -> None:
    bench = switch_on(answers=Answers.SLOW)
    connection = bench.log_in()
    connection.command("getparam 1")
    connection.lose()
    bench.wait_for_attempt()
    connection = bench.log_in()
    connection.received()
    connection.command("getparam 2")
    for _ in range(10):
        bench.clock.advance(ANSWER_DELAY / 5)
    assert texts(connection) == ["Param ID:2 Val:0"]
    assert [text for text, _ in bench.device.executed] == ["getparam 1", "getparam 2"]


def test_switching_off_drops_late_answers() -> None:
    bench = switch_on(answers=Answers.SLOW)
    connection = bench.log_in()
    connection.send(command("getparam 1") * 2)
    bench.device.stopService()
    connection.command("getparam 2")  # ignored, because the device has closed the connection
    assert connection.received() == b""
    connection.lose()
    assert bench.clock.getDelayedCalls() == []
    assert len(bench.commanded) == 2


def test_mute_device_executes_commands_without_answers() -> None:
    bench = switch_on(answers=Answers.MUTE)
    connection = bench.log_in()
    connection.send(command("setdigout 11") + command("getio", ANOTHER) + command("getio", IMEI))
    bench.clock.advance(0.5)
    assert texts(connection) == []
    assert bench.device.executed == [("setdigout 11", "12"), ("getio", "14")]
    assert len(bench.commanded) == bench.counters.commands == 2
    assert not connection.closing


@each_codec
def test_refusing_device_answers_with_a_nack_and_does_not_execute(imei: str | None) -> None:
    bench = switch_on(answers=Answers.REFUSE)
    connection = bench.log_in()
    connection.command("cpureset", imei)
    codec = CODEC_12 if imei is None else CODEC_14
    assert connection.message() == Message(codec, NACK, b"", imei=imei)
    assert (bench.device.executed, bench.commanded, bench.counters.commands) == ([], [], 0)
    assert not connection.closing


# Restarting.


@pytest.mark.parametrize("answers", [Answers.PROMPT, Answers.SLOW, Answers.MUTE])
def test_restarting_device_closes_the_connection_and_reconnects(answers: Answers) -> None:
    bench = switch_on(answers=answers)
    connection = bench.log_in()
    bench.record()
    sent = connection.received()
    connection.send(command("cpureset") + command("getver") + acknowledgement(1))
    assert connection.closing
    assert not connection.aborted  # answers that were written before are still sent
    bench.record(2)
    assert connection.received() == b""
    assert bench.commanded == [(IMEI, "12", "cpureset")]
    connection.lose()
    assert bench.wait_for_attempt() <= FIRST_RETRY + 0.02
    connection = bench.log_in()
    assert connection.received() == sent
    connection.command("getinfo")
    bench.clock.advance(ANSWER_DELAY)
    received = texts(connection)
    assert len(received) == (0 if answers is Answers.MUTE else 1)
    assert all(" RST:1 " in str(text) for text in received)


def test_restarting_device_sends_no_further_packet() -> None:
    bench = switch_on()
    connection = bench.log_in()
    connection.command("cpureset")
    bench.record(2)
    assert connection.received() == b""
    assert bench.counters.sent == 0
    connection.lose()
    bench.wait_for_attempt()
    assert len(bench.log_in().packet().records) == 1
    assert bench.counters.retransmitted == 0


def test_restart_drops_late_answers() -> None:
    bench = switch_on(answers=Answers.SLOW, interval=100)
    connection = bench.log_in()
    connection.send(command("getver") + command("cpureset"))
    bench.clock.advance(ANSWER_DELAY)
    assert connection.received() == b""
    assert [text for text, _ in bench.device.executed] == ["getver", "cpureset"]


# The callback for commands.


def test_journal_is_flushed_before_the_answer_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "commands.jsonl"
    found: list[tuple[str, bytes]] = []
    with path.open("w", encoding="ascii") as file:
        journal = CommandJournal(file)

        def on_command(imei: str, codec: str, text: str) -> None:
            journal(imei, codec, text)
            found.append((path.read_text(), connection.received()))

        bench = switch_on(on_command=on_command)
        connection = bench.log_in()
        connection.send(command("getio") + command("getver", IMEI))
    first = f'{{"device_id": "{IMEI}", "codec": "12", "text": "getio"}}\n'
    second = f'{{"device_id": "{IMEI}", "codec": "14", "text": "getver"}}\n'
    assert [text for text, _ in found] == [first, first + second]
    assert found[0][1] == b""
    assert len(texts(connection)) == 1  # on_command has read the first answer


def test_command_is_not_answered_if_the_journal_cannot_be_written() -> None:
    def fail(imei: str, codec: str, text: str) -> None:
        raise OSError("no space left")

    bench = switch_on(on_command=fail)
    connection = bench.log_in()
    with pytest.raises(OSError, match="no space"):
        connection.command("getver")
    assert connection.received() == b""
