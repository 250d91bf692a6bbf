"""The whole path from devices to database rows, while processes are killed.

Each test compares the acknowledged records with the stored ones: none is lost, none is stored
twice.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers import RedisServer
from tests.system.conftest import Stack
from tests.waiting import wait_for

LOAD = ("--devices", "40", "--interval", "0.05", "--records", "3")


@pytest.mark.parametrize("codec", ["8", "8E"])
def test_acknowledged_records_are_stored(stack: Stack, codec: str) -> None:
    fleet = stack.fleet(*LOAD, "--codec", codec)
    fleet.wait_for_more(2000)
    summary = stack.account(fleet)
    assert "0 retransmitted, 0 unacknowledged" in summary
    assert stack.ingest.stop() == 0
    assert stack.process.stop() == 0


def test_killed_processor_loses_and_duplicates_nothing(stack: Stack) -> None:
    fleet = stack.fleet(*LOAD)
    for _ in range(5):
        fleet.wait_for_more(500)
        stack.process.kill()
        fleet.wait_for_more(500)  # ingestion is not affected
        stack.process.start()
    stack.account(fleet)


def test_killed_ingest_loses_and_duplicates_nothing(stack: Stack) -> None:
    fleet = stack.fleet(*LOAD)
    for _ in range(4):
        fleet.wait_for_more(500)
        stack.ingest.kill()
        stack.ingest.start()
    fleet.wait_for_more(500)
    summary = stack.account(fleet)
    assert " 0 retransmitted" not in summary


def test_killed_redis_loses_and_duplicates_nothing(stack: Stack) -> None:
    fleet = stack.fleet(*LOAD)
    for _ in range(4):
        fleet.wait_for_more(500)
        stack.redis.kill()
        wait_for(lambda: stack.ingest.readyz()[0] == 503, "ingest is not ready")
        stack.redis.start()
    fleet.wait_for_more(500)
    stack.account(fleet)
    stack.ingest.wait_until_ready()
    stack.process.wait_until_ready()


def test_hanging_redis_stops_acks_and_nothing_else(stack: Stack) -> None:
    fleet = stack.fleet(*LOAD)
    fleet.wait_for_more(500)
    stack.redis.suspend()
    wait_for(lambda: stack.ingest.readyz()[0] == 503, "ingest is not ready", timeout=30)
    stack.redis.resume()
    fleet.wait_for_more(500)
    stack.account(fleet)


def test_stops_under_load_lose_and_duplicate_nothing(stack: Stack) -> None:
    fleet = stack.fleet(*LOAD)
    for _ in range(3):
        fleet.wait_for_more(300)
        assert stack.ingest.stop() == 0
        assert stack.process.stop() == 0
        stack.start()
    fleet.wait_for_more(300)
    stack.account(fleet)
    for daemon in (stack.ingest, stack.process):
        assert "Traceback" not in daemon.text, daemon.text


def test_rejected_peer_does_not_affect_devices(stack: Stack) -> None:
    fleet = stack.fleet(*LOAD)
    fleet.wait_for_more(100)
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as peer:
            peer.sendall(b"GET /\xff\x1b[31m HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):
                assert peer.recv(10) == b""
    fleet.wait_for_more(100)
    assert "0 retransmitted" in stack.account(fleet)
    assert 0 < stack.ingest.text.count("rejected 127.0.0.1") <= 10


def test_ingest_and_processor_use_the_configured_stream_name(
    tmp_path: Path, redis: RedisServer
) -> None:
    stack = Stack(tmp_path, redis, REDIS_TELEMETRY_STREAM="positions")
    try:
        stack.start()
        fleet = stack.fleet(*LOAD)
        fleet.wait_for_more(100)
        stack.account(fleet)
        assert redis.client.xlen("positions") > 0
        assert not redis.client.exists("telemetry:teltonika")
    finally:
        stack.end()


def test_heartbeat_lists_the_streams_of_the_instance(stack: Stack) -> None:
    client = stack.redis.client
    (key,) = wait_for(lambda: client.keys("instance:heartbeat:*"), "a heartbeat")
    heartbeat = json.loads(client.get(key) or b"")
    assert heartbeat["streams"] == ["telemetry:teltonika"]
    assert heartbeat["connections"] == 0
    assert heartbeat["control"].startswith("unix:/")
    assert 0 < client.ttl(key) <= 90
    stack.ingest.stop()
    assert not client.exists(key)
