"""Commands to devices that are sockets, through whole processes."""

from __future__ import annotations

from collections.abc import Callable

from tests.servers import RedisServer
from tests.system.commands import fates, registry, responses, send
from tests.system.raw import Ingest, RawDevice
from tests.waiting import wait_for
from tracker.vendors.outcomes import Decoded
from tracker.vendors.teltonika.frame import decode_frame, encode_frame
from tracker.vendors.teltonika.messages import (
    RESPONSE,
    Message,
    decode_message,
    encode_message,
)

DEVICE = "356307042441013"
OTHER = "356307042441021"


def read_command(device: RawDevice) -> Message:
    """The command that the device receives next."""
    head = device.read(8)
    rest = device.read(int.from_bytes(head[4:], "big") + 4)
    found = decode_frame(head + rest, 1 << 16)
    assert isinstance(found, Decoded)
    message = decode_message(found.value)
    assert isinstance(message, Decoded)
    return message.value


def answer(device: RawDevice, text: str, command: Message, type_: int = RESPONSE) -> None:
    """What the device says to it."""
    message = Message(command.codec, type_, text.encode(), imei=command.imei)
    device.send(encode_frame(encode_message(message)))


def online(ingest: Ingest, device_id: str = DEVICE) -> RawDevice:
    """A device that has logged in and delivered a packet, and is registered."""
    device = ingest.connect()
    assert device.login(device_id) == b"\x01"
    assert device.deliver(1)
    wait_for(lambda: device_id in registry(ingest.redis), "registered")
    return device


def test_a_command_is_answered(serve: Callable[..., Ingest], redis: RedisServer) -> None:
    ingest = serve("--instance-id", "one")
    device = online(ingest)
    send(redis, "one", "c1", DEVICE, "getinfo")
    command = read_command(device)
    assert (command.codec.name, command.text, command.imei) == ("12", "getinfo", None)
    wait_for(lambda: responses(redis)["c1"], "delivered")
    answer(device, "INI:2026/1/1", command)
    wait_for(lambda: "c1" in fates(redis), "answered")
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
    }
    assert redis.client.xlen("commands:outbound:one") == 0
    assert redis.client.get("commands:sent:c1").startswith(b"done responded ")
    assert ingest.daemon.stop() == 0
