"""Devices behind a proxy that sends PROXY headers."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.admin import admin
from tests.certificates import certify, key_of
from tests.servers import RedisServer, free_port
from tests.system.raw import STREAM, Ingest, RawDevice, frame
from tests.system.test_activation import is_kept_alive
from tests.system.test_hostile import imei
from tests.system.test_slots import metric
from tests.waiting import wait_for

OTHER_HOST = "127.0.0.2"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"


def text(client: str, port: int = 40_000) -> bytes:
    """Return a PROXY header of version 1."""
    family, proxy = ("TCP6", "2001:db8::9") if ":" in client else ("TCP4", "192.0.2.9")
    return f"PROXY {family} {client} {proxy} {port} 5027\r\n".encode()


def binary(client: str, port: int = 40_000) -> bytes:
    """Return a PROXY header of version 2."""
    packed = socket.inet_aton(client) + socket.inet_aton("192.0.2.9")
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + packed + struct.pack("!HH", port, 5027)


class Site:
    """An ingest that trusts 127.0.0.1, with a plain port and one for TLS."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        certificate = certify(folder, "127.0.0.1")
        self.trusting = ssl.create_default_context(cafile=str(certificate))
        self.tls_port = free_port()
        self.control = f"unix:{folder / 'control.sock'}"
        pair = f"privateKey={key_of(certificate)}:certKey={certificate}"
        self.ingest = Ingest(
            *(folder, redis, "--proxy", "127.0.0.1", "--connections-per-address", "2"),
            *("--listen", f"teltonika=haproxy:ssl:{self.tls_port}:{pair}:interface=127.0.0.1"),
            *("--control", self.control),
            endpoint="haproxy:tcp:{port}",
        )

    def connect(self, header: bytes, tls: bool = False, source: str = "127.0.0.1") -> RawDevice:
        if tls:
            return RawDevice(self.tls_port, self.trusting, source, header)
        return RawDevice(self.ingest.port, None, source, header)

    def serves(self, header: bytes, tls: bool = False, source: str = "127.0.0.1") -> bool:
        """Return whether a device is served, and not closed unread."""
        with suppress(OSError), self.connect(header, tls, source) as device:
            return device.try_login(imei(9))
        return False

    def addresses(self) -> dict[str, str]:
        """Return device → address, as ``tracker-admin connections`` prints them."""
        listed = admin("--control", self.control, "-o", "json", "connections")
        assert listed.returncode == 0, listed.stderr
        return {row["device_id"]: row["address"] for row in json.loads(listed.stdout)}

    def count(self, name: str, reason: str = "") -> float:
        labels = f'reason="{reason}",vendor="teltonika"' if reason else 'vendor="teltonika"'
        return metric(self.ingest, f"tracker_{name}_total{{{labels}}}")


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer) -> Iterator[Site]:
    made = Site(tmp_path, redis)
    try:
        made.ingest.daemon.start()
        yield made
        assert "Traceback" not in made.ingest.daemon.text
    finally:
        made.ingest.daemon.kill()


def test_devices_are_served_under_their_own_addresses(site: Site) -> None:
    headers = [
        *(text("203.0.113.1"), binary("203.0.113.2"), text("203.0.113.3"), binary("203.0.113.4")),
        text("2001:db8::5"),
    ]
    with ExitStack() as stack:
        for number, header in enumerate(headers):
            device = stack.enter_context(site.connect(header, tls=number in (2, 3)))
            assert device.login(imei(number)) == b"\x01"
            for record in range(3):
                assert device.deliver(10 * number + record)
        assert site.addresses() == {
            imei(0): "203.0.113.1:40000",
            imei(1): "203.0.113.2:40000",
            imei(2): "203.0.113.3:40000",
            imei(3): "203.0.113.4:40000",
            imei(4): "[2001:db8::5]:40000",
        }
        assert len(site.ingest.entries()) == 15
        # The share is that of the device's address, not of the proxy's.
        second = stack.enter_context(site.connect(binary("203.0.113.3", 40_001)))
        assert second.login(imei(5)) == b"\x01"
        for tls in (False, True):
            assert not site.serves(text("203.0.113.3"), tls)
        assert site.count("rejections", "address_share") == 2
    assert "rejected 203.0.113.3:40000" in site.ingest.rejections()[0]


@pytest.mark.parametrize("tls", [False, True])
def test_device_that_sends_ahead_gets_all_replies(site: Site, tls: bool) -> None:
    count = 1000  # frames: several times --buffer-bytes, so that reading pauses
    with site.connect(binary("203.0.113.1"), tls) as device:
        assert device.login(imei(0)) == b"\x01"
        device.send(b"".join(frame(number) for number in range(count)))
        assert device.read(4 * count) == (1).to_bytes(4, "big") * count
        port = site.tls_port if tls else site.ingest.port
        wait_for(lambda: is_kept_alive(port), "keep-alive is set")
    assert site.ingest.redis.client.xlen(STREAM) == count


def test_bytes_behind_a_header_are_read_in_pieces_of_any_size(site: Site) -> None:
    with site.connect(b"") as device:
        for byte in text("203.0.113.1"):
            device.send(bytes((byte,)))
        assert device.login(imei(0)) == b"\x01"
        assert device.deliver(1)
        device.socket.shutdown(socket.SHUT_WR)
        assert device.is_closed()  # like a device without a proxy
    wait_for(lambda: metric(site.ingest, "tracker_connection_slots_used") == 0, "slot free")


def test_connection_from_another_address_than_the_proxy_is_closed_unread(site: Site) -> None:
    for tls in (False, True):
        assert not site.serves(text("203.0.113.1"), tls, OTHER_HOST)
    assert site.count("rejections", "proxy") == 2
    assert f"rejected {OTHER_HOST}:" in site.ingest.rejections()[0]


def test_connection_without_a_header_is_closed(site: Site) -> None:
    assert not site.serves(b"")
    assert site.count("rejections", "proxy") == 1


def test_health_checks_are_counted_and_not_logged(site: Site) -> None:
    checks = (LOCAL, b"PROXY UNKNOWN\r\n", b"")
    for header in checks:
        site.connect(header).socket.close()
    wait_for(lambda: site.count("connections_health_checks") == len(checks), "all are counted")
    assert site.ingest.rejections() == []
    assert site.count("connections_opened") == 0
    assert metric(site.ingest, "tracker_connection_slots_used") == 0
