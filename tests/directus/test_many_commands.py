"""Hundreds of commands at once, with measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from tests.directus.conftest import Measured
from tests.directus.prepared import Prepared, add_user, point_flows_at, prepare
from tests.directus.server import DirectusServer
from tests.directus.site import AnsweringDevice, Site, message_in
from tests.servers import RedisServer, free_port
from tests.unit.bridge.double import OPERATOR_TOKEN
from tests.waiting import wait_for
from tracker.bridge.schema import OPERATOR_POLICY
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import COMMAND, MESSAGE_CODECS, Message, encode_message

ROWS = 500
DEVICES = [f"{356307042441000 + number}" for number in range(10)]


def test_bridge_sends_500_commands_that_a_webhook_announces(
    webhook_site: Site, measured: Measured
) -> None:
    send_and_check_commands(webhook_site, measured)


def test_bridge_sends_500_commands_if_flows_cannot_reach_it(
    start_directus: Callable[..., DirectusServer],
    tmp_path: Path,
    redis: RedisServer,
    measured: Measured,
) -> None:
    """By default, Directus denies its Flows connections to its own machine."""
    server = start_directus()
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    prepared: Prepared = prepare(server, secrets)
    port = free_port()
    point_flows_at(prepared, port)
    add_user(server, OPERATOR_TOKEN, OPERATOR_POLICY)
    site = Site(tmp_path, redis, server, secrets, port)
    try:
        send_and_check_commands(site.start(), measured)
    finally:
        site.end()


def send_and_check_commands(site: Site, measured: Measured) -> None:
    """Check that each device gets its commands in order, and each row the right answer."""
    texts = [f"setparam 1000:{number}" for number in range(ROWS)]
    wanted = [
        {"imei": DEVICES[number % len(DEVICES)], "text": text} for number, text in enumerate(texts)
    ]
    with ExitStack() as stack:
        devices = {device_id: AnsweringDevice(site, device_id) for device_id in DEVICES}
        for device in devices.values():
            stack.callback(device.end)
        for device in devices.values():
            assert device.ready.wait(20)
        began = time.time()
        rows = site.ask("POST", "/items/commands?limit=-1", wanted)
        posted = time.time()
        assert len(rows) == ROWS
        ended = wait_for_final_statuses(site.directus.database_url)
        total = time.time() - began
    for row in site.ask("GET", "/items/commands?limit=-1"):
        assert row["status"] == "responded", row
        assert row["response"] == f"{row['imei']} did {row['text']}"
        assert row["reason"] is None
        assert row["instance"] == "one"
    for index, (device_id, device) in enumerate(devices.items()):
        assert device.executed == texts[index :: len(DEVICES)], device_id
        assert device.frames == [frame_of(text) for text in device.executed]
        assert {message_in(frame).imei for frame in device.frames} == {None}
    latencies = sorted(ended.values())
    percentiles = ", ".join(
        f"p{percent} {latencies[min(ROWS - 1, ROWS * percent // 100)]:.2f}"
        for percent in (0, 50, 90, 99, 100)
    )
    measured(
        f"{ROWS} rows, posted in {posted - began:.1f} s, all final after {total:.1f} s; "
        f"creation → final status in seconds: {percentiles}; "
        f"not ready {site.bridge.text.count('not ready')} times"
    )


def wait_for_final_statuses(database_url: str) -> dict[str, float]:
    """Return the seconds from the creation of each row to its final status in the database."""
    ended: dict[str, float] = {}
    with psycopg.connect(database_url, autocommit=True) as connection:

        def poll() -> bool:
            found = connection.execute(
                "SELECT id::text, date_created FROM commands WHERE finished_at IS NOT NULL"
            ).fetchall()
            now = datetime.now(UTC)
            for key, created in found:
                ended.setdefault(key, (now - created).total_seconds())
            return len(ended) == ROWS

        wait_for(poll, "all have ended", timeout=300)
    return ended


def frame_of(text: str) -> bytes:
    """Return the frame with a command, as a device receives it."""
    return encode_frame(encode_message(Message(MESSAGE_CODECS[0x0C], COMMAND, text.encode())))
