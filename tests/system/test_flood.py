"""Floods of datagrams and messages, and the service for other devices meanwhile."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Callable

from tests.servers import free_port
from tests.system.raw import Ingest, frame_data
from tests.system.test_transports import UdpDevice
from tests.waiting import wait_for
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message

DEVICE = "356307042441013"
FLOOD = 4000


def metric(ingest: Ingest, name: str, reason: str) -> float:
    """Return the value of a metric of this process."""
    with urllib.request.urlopen(ingest.daemon.url("/metrics"), timeout=10) as response:
        text = response.read().decode()
    (found,) = re.findall(rf'^tracker_{name}_total{{.*reason="{reason}".*}} (\S+)$', text, re.M)
    return float(found)


def test_flood_of_datagrams_is_dropped_and_other_devices_are_served(
    serve: Callable[..., Ingest],
) -> None:
    port = free_port()
    ingest = serve(
        *("--listen", f"teltonika=udp:{port}:interface=127.0.0.1", "--spare-work", "0.001")
    )
    known = UdpDevice(port)

    def is_acknowledged(number: int) -> bool:
        known.send(number, frame_data(number))  # sent again, since the kernel may drop it
        return known.reply(0.2) is not None

    wait_for(lambda: is_acknowledged(1), "a device over UDP is served")
    flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ingest.connect() as neighbour:
        assert neighbour.login(DEVICE) == b"\x01"
        for number in range(FLOOD):
            flood.sendto(b"" if number % 2 else b"garbage", ("127.0.0.1", port))
            if number % 400 == 0:
                assert neighbour.deliver(10 + number)
        assert neighbour.deliver(10 + FLOOD)
    wait_for(lambda: is_acknowledged(2), "the device over UDP is still served")
    assert metric(ingest, "dropped_datagrams", "unknown_sources") > 0
    flood.close()
    known.socket.close()


def test_messages_over_the_rate_are_delayed_and_none_is_lost(serve: Callable[..., Ingest]) -> None:
    ingest = serve("--message-rate", "50", "--message-burst", "0.1", "--message-bytes", "100")
    message = Message(MESSAGE_CODECS[0x0D], 0x06, b"x" * 150, timestamp=1_790_000_000)
    with ingest.connect() as device:
        assert device.login(DEVICE) == b"\x01"
        device.send(encode_frame(encode_message(message)) * 30)
        assert device.deliver(1)  # after all messages
    texts = [entry["attributes"] for entry in ingest.entries() if entry["codec"] == "13"]
    assert [(len(text["message"]), text["message_length"]) for text in texts] == [(100, 150)] * 30
    assert metric(ingest, "paused_connections", "messages") > 0
