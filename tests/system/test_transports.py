"""Devices over UDP and TLS, with an ingest process and a real Redis."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.certificates import certify, key_of
from tests.system.raw import START, STREAM, Ingest, frame_data
from tests.waiting import wait_for
from tracker.position import iso_milliseconds
from tracker.vendors.teltonika.datagram import Datagram, encode_datagram

DEVICE = "356307042441013"


class UdpDevice:
    """A socket that sends datagrams to one port."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))

    def send(self, packet_id: int, data: bytes, imei: str = DEVICE) -> None:
        self.socket.send(encode_datagram(Datagram(packet_id, packet_id % 256, imei, data)))

    def reply(self, timeout: float = 10.0) -> bytes | None:
        """Return the next ACK; None if none arrives within ``timeout`` seconds."""
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(100)
        except TimeoutError:
            return None

    def exchange(self, packet_id: int, data: bytes, imei: str = DEVICE) -> bytes:
        """Send a datagram until its ACK arrives, like a device: a busy process drops some."""
        for _ in range(20):
            self.send(packet_id, data, imei)
            while (answer := self.reply(3.0)) is not None:
                if answer[2:4] == packet_id.to_bytes(2, "big"):
                    return answer
        raise AssertionError(f"datagram {packet_id} is not acknowledged")

    def send_until(self, datagram: bytes, condition: Callable[[], bool]) -> None:
        """Send the bytes until the condition is true: a busy process drops some datagrams."""
        for _ in range(20):
            self.socket.send(datagram)
            with suppress(AssertionError):
                wait_for(condition, "the datagram is handled", timeout=1.0)
                return
        raise AssertionError(f"datagram {datagram[:40]!r} is not handled")


@pytest.fixture
def ingest(serve: Callable[..., Ingest]) -> Ingest:
    return serve(endpoint="udp:{port}")


@pytest.fixture
def device(ingest: Ingest) -> Iterator[UdpDevice]:
    device = UdpDevice(ingest.port)
    yield device
    device.socket.close()


def test_datagram_is_acknowledged_and_stored(ingest: Ingest, device: UdpDevice) -> None:
    assert device.exchange(0xCAFE, frame_data(1, 2, 3)) == bytes.fromhex("0005 CAFE 01 FE 03")
    entries = ingest.entries()
    assert [entry["timestamp"] for entry in entries] == [
        iso_milliseconds(START + number) for number in (1, 2, 3)
    ]
    assert {(entry["device_id"], entry["codec"]) for entry in entries} == {(DEVICE, "8")}


def test_repeated_datagram_is_acknowledged_again_and_stored_once(
    ingest: Ingest, device: UdpDevice
) -> None:
    for _ in range(5):
        assert device.exchange(0x0102, frame_data(1, 2)) == bytes.fromhex("0005 0102 01 02 02")
    assert ingest.redis.client.xlen(STREAM) == 2
    other = device.exchange(0x0103, frame_data(1, 2))  # other numbers, hence not a repetition
    assert other == bytes.fromhex("0005 0103 01 03 02")
    assert ingest.redis.client.xlen(STREAM) == 4


def test_datagram_is_not_acknowledged_before_its_append(ingest: Ingest, device: UdpDevice) -> None:
    ingest.redis.suspend()
    device.send(1, frame_data(1))
    assert device.reply(0.7) is None
    device.send(1, frame_data(1))  # a repetition
    assert device.reply(0.3) is None
    ingest.redis.resume()
    assert device.exchange(1, frame_data(1)) == bytes.fromhex("0005 0001 01 01 01")
    assert ingest.redis.client.xlen(STREAM) == 1


def _has_rejected(ingest: Ingest, number: int) -> bool:
    return len(ingest.rejections()) >= number


def test_invalid_datagram_gets_no_reply(ingest: Ingest, device: UdpDevice) -> None:
    good = encode_datagram(Datagram(1, 1, DEVICE, frame_data(1)))
    counts_differ = encode_datagram(Datagram(2, 2, DEVICE, frame_data(1)[:-1] + b"\x02"))
    invalid = (
        *(b"", b"\x00", good[:-1], good + b"\x00", b"\xff" * 1000),
        *(good.replace(b"3563", b"35\x1b["), counts_differ),
    )
    for number, datagram in enumerate(invalid, 1):
        device.send_until(datagram, partial(_has_rejected, ingest, number))
    assert device.exchange(3, frame_data(2)) == bytes.fromhex("0005 0003 01 03 01")
    assert device.reply(0.3) is None
    assert ingest.redis.client.xlen(STREAM) == 1
    assert "\x1b" not in ingest.daemon.text


def trusting(certificate: Path, own: Path | None = None) -> ssl.SSLContext:
    """Return the TLS settings of a device that trusts a certificate.

    :param own: its own certificate, if any.
    """
    context = ssl.create_default_context(cafile=str(certificate))
    if own is not None:
        context.load_cert_chain(own, key_of(own))
    return context


def over_tls(serve: Callable[..., Ingest], certificate: Path, *options: str) -> Ingest:
    endpoint = f"ssl:{{port}}:privateKey={key_of(certificate)}:certKey={certificate}"
    return serve(*options, endpoint=endpoint)


def served(ingest: Ingest, tls: ssl.SSLContext | None) -> bool:
    """Return whether a device can deliver a record; else check that it receives no byte."""
    try:
        with ingest.connect(tls) as device:
            answer = device.login(DEVICE)
            assert answer in (b"", b"\x01")
            return answer == b"\x01" and device.deliver(1)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return False


def test_device_is_served_over_tls(serve: Callable[..., Ingest], tmp_path: Path) -> None:
    certificate = certify(tmp_path, "127.0.0.1")
    ingest = over_tls(serve, certificate)
    with ingest.connect(trusting(certificate)) as device:
        assert device.login(DEVICE) == b"\x01"
        for number in range(20):
            assert device.deliver(number, 1000 + number)
    assert len(ingest.entries()) == 40
    assert not served(ingest, None)  # plain bytes on a TLS port
    assert served(ingest, trusting(certificate))
    assert ingest.daemon.stop() == 0
    assert "Traceback" not in ingest.daemon.text


def test_only_clients_with_a_certificate_of_the_authority_are_served(
    serve: Callable[..., Ingest], tmp_path: Path
) -> None:
    certificate, authority, other = (certify(tmp_path, f"127.0.0.{n}") for n in (1, 2, 3))
    right = certify(tmp_path, "127.0.0.4", issuer=authority)
    wrong = certify(tmp_path, "127.0.0.5", issuer=other)
    ingest = over_tls(serve, certificate, "--tls-client-ca", str(authority))
    for own in (None, wrong, other, certificate):
        assert not served(ingest, trusting(certificate, own)), own
    assert not served(ingest, None)
    assert ingest.redis.client.xlen(STREAM) == 0
    assert served(ingest, trusting(certificate, right))
    assert len(ingest.entries()) == 1
    assert ingest.daemon.stop() == 0
    assert "Traceback" not in ingest.daemon.text
