"""Logins, repeated logins, messages and the allow-list, with whole processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.servers import RedisServer
from tests.system.conftest import Stack
from tests.system.processes import stored, wait_until_stored
from tests.system.raw import START, Ingest, RawDevice, frame, frame_data
from tests.system.test_transports import UdpDevice
from tests.unit.vendors.teltonika import golden_7
from tests.waiting import wait_for
from tracker.position import iso_milliseconds
from tracker.vendors.teltonika.avl import CODEC_16, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message

DEVICE = "356307042441013"
OTHER = "356307042441021"


@pytest.mark.parametrize("hangs", [False, True], ids=["redis-replies", "redis-hangs"])
def test_second_login_supersedes_the_first_and_loses_nothing(stack: Stack, hangs: bool) -> None:
    with RawDevice(stack.port) as older, RawDevice(stack.port) as newer:
        assert older.login(DEVICE) == b"\x01"
        for number in range(10):
            assert older.deliver(number)
        if hangs:
            stack.redis.suspend()
        older.send(frame(100, 101))  # without waiting for the ACK
        assert newer.login(DEVICE) == b"\x01"
        answer = older.read(5)  # an ACK or nothing, then the end
        assert answer in ((b"",) if hangs else (b"", b"\x00\x00\x00\x02"))
        stack.redis.resume()
        if not answer:
            assert newer.deliver(100, 101)  # like a device after it was disconnected
        for number in range(10, 20):
            assert newer.deliver(number)
        assert newer.is_silent()
    expected = {iso_milliseconds(START + number) for number in (*range(20), 100, 101)}
    wait_until_stored(stack.database, len(expected))
    times = Counter(ts for _, ts, _ in stored(stack.database))
    assert set(times) == expected
    assert set(times.values()) == {1}


def test_unacknowledged_record_of_the_older_connection_is_appended_at_most_once(
    serve: Callable[..., Ingest],
) -> None:
    ingest = serve()
    acknowledged = []
    with ingest.connect() as last:
        assert last.login(DEVICE) == b"\x01"
        for number in range(0, 300, 3):  # each connection is superseded by the next
            older, last = last, ingest.connect()
            assert last.login(DEVICE) == b"\x01"
            with older:
                older.read(100)
            assert last.deliver(number)
            acknowledged.append(number)
            last.send(frame(number + 1))
        assert last.read(4)
    times = Counter(entry["timestamp"] for entry in ingest.entries())
    assert max(times.values()) == 1
    assert {iso_milliseconds(START + number) for number in acknowledged} <= set(times)


@pytest.mark.parametrize("hangs", [False, True], ids=["redis-replies", "redis-hangs"])
@pytest.mark.parametrize("superseded", [False, True], ids=["disconnects", "superseded"])
def test_messages_are_appended_after_their_device_has_disconnected(
    serve: Callable[..., Ingest], redis: RedisServer, hangs: bool, superseded: bool
) -> None:
    ingest = serve()
    texts = [f"DI1:{number}" for number in range(50)]
    sent = b"".join(
        encode_frame(encode_message(Message(MESSAGE_CODECS[0x0C], 0x06, text.encode())))
        for text in texts
    )
    with ingest.connect() as device, ingest.connect() as newer:
        assert device.login(DEVICE) == b"\x01"
        if hangs:
            redis.suspend()
        device.send(frame(1) + sent)
        if superseded:
            assert newer.login(DEVICE) == b"\x01"
            device.read(5)
    redis.resume()

    def messages() -> list[str]:
        found = (entry for entry in ingest.entries() if entry["codec"] == "12")
        return [entry["attributes"]["message"] for entry in found]

    wait_for(lambda: len(messages()) >= len(texts), "all messages are in the stream")
    assert messages() == texts


def test_stop_while_redis_hangs_is_clean(serve: Callable[..., Ingest], redis: RedisServer) -> None:
    ingest = serve()
    with ingest.connect() as device:
        assert device.login(DEVICE) == b"\x01"
        redis.suspend()
        device.send(frame(1))
        assert device.is_silent()
        assert ingest.daemon.stop() == 0
        assert device.read(4) == b""
    redis.resume()
    assert "Traceback" not in ingest.daemon.text
    assert "heartbeat not deleted" in ingest.daemon.text


def allow(redis: RedisServer, *imeis: str) -> None:
    redis.client.sadd("devices:allowed", *imeis)


def test_only_devices_on_the_list_are_served(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    allow(redis, DEVICE)
    ingest = serve("--device-authority", "redis")
    with ingest.connect() as device, ingest.connect() as other:
        assert device.login(DEVICE) == b"\x01"
        assert device.deliver(1)
        assert other.login(OTHER) == b"\x00"
        assert other.is_closed()
        assert device.deliver(2)
    assert "is not served here" in ingest.rejections()[0]
    assert len(ingest.entries()) == 2


def test_only_devices_on_the_list_are_served_over_udp(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    allow(redis, DEVICE)
    ingest = serve("--device-authority", "redis", endpoint="udp:{port}")
    device = UdpDevice(ingest.port)
    device.send(1, frame_data(1), imei=OTHER)
    device.send(2, frame_data(2))
    assert device.reply() == bytes.fromhex("0005 0002 01 02 01")
    assert device.reply(0.3) is None
    device.socket.close()
    assert [entry["device_id"] for entry in ingest.entries()] == [DEVICE]


def test_unknown_devices_are_served_with_the_option(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    allow(redis, DEVICE)
    ingest = serve("--device-authority", "redis", "--unknown-devices", "accept")
    for imei in (DEVICE, OTHER):
        with ingest.connect() as device:
            assert device.login(imei) == b"\x01"
            assert device.deliver(1)
    assert [entry["device_id"] for entry in ingest.entries()] == [DEVICE, OTHER]


def test_allow_list_stays_in_use_while_redis_is_unavailable(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    allow(redis, DEVICE)
    ingest = serve("--device-authority", "redis")
    redis.kill()
    wait_for(lambda: ingest.daemon.readyz()[0] == 503, "not ready")
    with ingest.connect() as device, ingest.connect() as other:
        assert device.login(DEVICE) == b"\x01"
        device.send(frame(1))
        assert other.login(OTHER) == b"\x00"
        assert device.is_silent()
        redis.start()
        assert device.read(4) == b"\x00\x00\x00\x01"
    assert len(ingest.entries()) == 1


def test_connection_is_closed_without_a_reply_before_the_first_list(
    tmp_path_factory: pytest.TempPathFactory, redis: RedisServer
) -> None:
    allow(redis, DEVICE)
    redis.suspend()
    ingest = Ingest(tmp_path_factory.mktemp("ingest"), redis, "--device-authority", "redis")
    try:
        ingest.daemon.start(ready=False)
        wait_for(lambda: ingest.daemon.readyz()[0] == 503, "it runs and is not ready")
        with ingest.connect() as device:
            assert (
                device.login(DEVICE) == b""
            )  # no reply: after a 00 the device might not retry for a long time
        redis.resume()
        ingest.daemon.wait_until_ready()
        with ingest.connect() as device:
            assert device.login(DEVICE) == b"\x01"
            assert device.deliver(1)
    finally:
        redis.resume()
        ingest.daemon.kill()


def test_messages_are_appended_and_not_acknowledged(serve: Callable[..., Ingest]) -> None:
    ingest = serve()
    sent = {
        "12": Message(MESSAGE_CODECS[12], 0x06, b"unsolicited"),
        "13": Message(MESSAGE_CODECS[13], 0x06, b"with a time", 1_710_504_600),
        "14": Message(MESSAGE_CODECS[14], 0x11, b"", None, DEVICE),
        "15": Message(MESSAGE_CODECS[15], 0x0B, b"with \xff\x00 bytes", 1_710_504_601, DEVICE),
    }
    with ingest.connect() as device:
        assert device.login(DEVICE) == b"\x01"
        for message in sent.values():
            device.send(encode_frame(encode_message(message)))
        wait_for(lambda: len(ingest.entries()) == 4, "messages appended")
        assert device.is_silent()
        assert device.deliver(1)
    *messages, record = ingest.entries()
    assert record["codec"] == "8"
    assert [entry["codec"] for entry in messages] == list(sent)
    for entry in messages:
        assert entry["device_id"] == DEVICE
        assert entry["latitude"] is entry["longitude"] is None
    texts = [entry["attributes"]["message"] for entry in messages]
    assert texts == ["unsolicited", "with a time", "", {"__buffer_b64": "d2l0aCD/ACBieXRlcw=="}]
    assert [entry["timestamp"] for entry in messages[1::2]] == [
        "2024-03-15T12:10:00.000Z",
        "2024-03-15T12:10:01.000Z",
    ]


def test_codecs_16_and_7_are_acknowledged(serve: Callable[..., Ingest]) -> None:
    ingest = serve()
    records = [Record(START + n, 0, 10, 20, 3, 4, 5, 6, 7, ((300, 1, n),), (), 5) for n in (0, 1)]
    with ingest.connect() as device:
        assert device.login(DEVICE) == b"\x01"
        device.send(encode_frame(encode_packet(CODEC_16, records)))
        assert device.read(4) == b"\x00\x00\x00\x02"
        device.send(golden_7.FRAME)
        assert device.read(4) == b"\x00\x00\x00\x04"
    entries = ingest.entries()
    assert [entry["codec"] for entry in entries] == ["16", "16", "7", "7", "7", "7"]
    assert [entry.get("generation_type") for entry in entries] == [5, 5, None, None, None, None]
    assert entries[1]["attributes"] == {"300": 1}
    assert [entry["latitude"] for entry in entries[2:]] == [None, 44.791306, 44.878864, None]
    assert entries[2]["timestamp"] == "2015-11-10T21:35:46.000Z"
