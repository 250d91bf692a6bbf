"""Tests of commands to devices with whole processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.servers import RedisServer
from tests.system.commands import device_registry, fields, responses, send, statuses
from tests.system.raw import Ingest, RawDevice, frame
from tests.waiting import wait_for
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.envelope import decode_frame, encode_frame
from tracker.vendors.teltonika.messages import (
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    decode_messages,
    encode_message,
)

DEVICE = "356307042441013"
OTHER = "356307042441021"


def read_command(device: RawDevice) -> Message:
    """Return the next command that the device receives."""
    head = device.read(8)
    rest = device.read(int.from_bytes(head[4:], "big") + 4)
    found = decode_frame(head + rest, 1 << 16)
    assert isinstance(found, Decoded)
    decoded = decode_messages(found.value)
    assert isinstance(decoded, Decoded)
    return decoded.value.parts[0]


def answer(device: RawDevice, text: str, command: Message, type_: int = RESPONSE) -> None:
    """Send the answer of the device to a command."""
    message = Message(command.codec, type_, text.encode(), imei=command.imei)
    device.send(encode_frame(encode_message(message)))


def online(ingest: Ingest, device_id: str = DEVICE) -> RawDevice:
    """Return a device that has logged in and delivered a packet, and is registered."""
    device = ingest.connect()
    assert device.login(device_id) == b"\x01"
    assert device.deliver(1)
    wait_for(lambda: device_id in device_registry(ingest.redis), "registered")
    return device


def test_answer_of_a_device_becomes_the_response_to_its_command(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    ingest = serve("--instance-id", "one")
    device = online(ingest)
    send(redis, "one", "c1", DEVICE, "getinfo")
    command = read_command(device)
    assert (command.codec.name, command.text, command.imei) == ("12", "getinfo", None)
    wait_for(lambda: responses(redis)["c1"], "delivered")
    answer(device, "INI:2026/1/1", command)
    wait_for(lambda: "c1" in statuses(redis), "answered")
    delivered, responded = responses(redis)["c1"]
    assert delivered["status"] == "delivered"
    assert responded | {"at": ""} == {
        "command_id": "c1",
        "device_id": DEVICE,
        "instance_id": "one",
        "status": "responded",
        "response": "INI:2026/1/1",
        "reason": "",
        "at": "",
        "payload": "getinfo",
        "payload_hex": "",
        "sender": "",
        "sent_at": "",
    }
    assert redis.client.xlen("commands:outbound:one") == 0
    assert redis.client.get("commands:sent:c1").startswith(b"done responded ")
    assert ingest.daemon.stop() == 0


def test_command_in_codec_14_contains_the_imei_and_can_be_rejected(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    device = online(serve("--instance-id", "one"))
    send(redis, "one", "c1", DEVICE, "getver", codec="14")
    command = read_command(device)
    assert (command.codec.name, command.text, command.imei) == ("14", "getver", DEVICE)
    answer(device, "", command, NACK)
    wait_for(lambda: statuses(redis) == {"c1": "rejected"}, "rejected")


def test_command_is_not_written_between_a_packet_and_its_ack(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    device = online(serve("--instance-id", "one"))
    redis.suspend()
    device.send(frame(2))
    assert device.is_silent()
    redis.resume()
    send(redis, "one", "c1", DEVICE)
    assert device.read(4) == b"\x00\x00\x00\x01"
    assert read_command(device).text == "getinfo"
    # The device has sent half a packet: the next command waits for the ACK of the whole packet.
    answer(device, "done", Message(MESSAGE_CODECS[0x0C], 5, b""))
    wait_for(lambda: "c1" in statuses(redis), "answered")
    packet = frame(3)
    device.send(packet[:20])
    send(redis, "one", "c2", DEVICE, "getver")
    assert device.is_silent()
    device.send(packet[20:])
    assert device.read(4) == b"\x00\x00\x00\x01"
    assert read_command(device).text == "getver"


def test_command_is_in_doubt_after_a_crash_before_its_answer(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    ingest = serve("--instance-id", "one")
    device = online(ingest)
    send(redis, "one", "written", DEVICE)
    send(redis, "one", "queued", DEVICE, "getver")
    read_command(device)
    ingest.daemon.kill()
    ingest.daemon.start()
    wait_for(lambda: statuses(redis) == {"written": "failed/in_doubt"}, "in doubt")
    again = online(ingest)
    command = read_command(again)
    assert command.text == "getver"
    answer(again, "Ver:1", command)
    wait_for(lambda: statuses(redis).get("queued") == "responded", "the other one is answered")
    assert again.is_silent()


def test_unwritten_command_follows_its_device_to_another_instance(
    tmp_path: Path, redis: RedisServer, serve: Callable[..., Ingest]
) -> None:
    one = serve("--instance-id", "one", "--radio-sleeps", "0.2")
    (tmp_path / "two").mkdir()
    two = Ingest(tmp_path / "two", redis, "--instance-id", "two")
    two.daemon.start()
    try:
        device = online(one)
        assert device.is_silent(0.5)  # the radio of the device may sleep now
        send(redis, "one", "c1", DEVICE)
        assert device.is_silent()
        moved = online(two)  # the device has moved; instance one has not noticed that
        device.socket.close()
        command = read_command(moved)
        answer(moved, "here", command)
        wait_for(lambda: statuses(redis) == {"c1": "responded"}, "answered")
        assert [one["instance_id"] for one in responses(redis)["c1"]] == ["two", "two"]
    finally:
        two.daemon.kill()


def test_command_for_a_sleeping_radio_waits_for_the_next_bytes(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    device = online(serve("--instance-id", "one", "--radio-sleeps", "0.2"))
    assert device.is_silent(0.5)
    send(redis, "one", "c1", DEVICE)
    assert device.is_silent(0.5)
    device.send(b"\xff")  # a ping
    assert read_command(device).text == "getinfo"


def test_commands_wait_for_an_unconnected_device(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    ingest = serve("--instance-id", "one")
    send(redis, "one", "c1", DEVICE)
    send(redis, "one", "c2", DEVICE, "getver")
    wait_for(lambda: redis.client.xlen(f"commands:waiting:{DEVICE}") == 2, "they wait")
    device = online(ingest)
    for text in ("getinfo", "getver"):
        command = read_command(device)
        assert command.text == text
        answer(device, text, command)
    wait_for(lambda: len(statuses(redis)) == 2, "answered")
    assert not redis.client.keys("commands:waiting*")


def test_command_for_an_unconnected_device_fails_with_offline_fail(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    serve("--instance-id", "one", "--offline", "fail")
    send(redis, "one", "c1", DEVICE)
    wait_for(lambda: statuses(redis) == {"c1": "failed/offline"}, "failed")


def test_malformed_commands_are_refused_without_delaying_others(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    device = online(serve("--instance-id", "one"))
    outbound = "commands:outbound:one"
    redis.client.xadd(outbound, {b"\xff": b"\xff"})
    redis.client.xadd(outbound, fields("no-text", DEVICE, ""))
    redis.client.xadd(outbound, fields("no-such-codec", DEVICE, codec="99"))
    redis.client.xadd(outbound, fields("many", DEVICE) | {f"f{n}": "" for n in range(5000)})
    redis.client.xadd(outbound, fields("expired", DEVICE, expires_in=-1))
    send(redis, "one", "good", DEVICE)
    answer(device, "fine", read_command(device))
    wait_for(lambda: len(statuses(redis)) == 6, "all are answered")
    malformed = "failed/malformed"
    assert statuses(redis) == {
        "": malformed,
        "no-text": malformed,
        "no-such-codec": malformed,
        "many": malformed,
        "expired": "expired",
        "good": "responded",
    }
    assert "codec '99'" in responses(redis)["no-such-codec"][0]["response"]


def test_stop_passes_on_queued_commands(serve: Callable[..., Ingest], redis: RedisServer) -> None:
    ingest = serve("--instance-id", "one")
    device = online(ingest)
    send(redis, "one", "written", DEVICE)
    send(redis, "one", "queued", DEVICE, "getver")
    read_command(device)
    assert ingest.daemon.stop() == 0
    assert statuses(redis) == {"written": "failed/disconnected"}
    assert redis.client.xlen(f"commands:waiting:{DEVICE}") == 1
    assert redis.client.xlen("commands:outbound:one") == 0
