"""Tests of ``tracker-admin watch`` and ``tracker-admin lag --follow``."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from tests.admin import admin
from tests.servers import RedisServer
from tests.system.controlled import (
    TIME,
    UNKNOWN_DEVICE,
    Site,
    answering,
    ended,
    imei,
    lines_until,
    watching,
)
from tests.system.processes import environment
from tests.system.raw import STREAM, Ingest, frame
from tests.system.terminal import Terminal
from tests.system.test_commands import online


def test_watch_shows_traffic_in_both_directions(site: Site) -> None:
    device_id = imei()
    process = watching(site, device_id)
    device = online(site.one, device_id)
    answering(device, "INI:2026/1/1\r\n")
    site.admin("send", device_id, "getinfo")
    device.send(b"\x00\x00\x00\x00\xff\xff\xff\xff")
    assert device.is_closed()
    shown = lines_until(process, "disconnected")
    process.send_signal(signal.SIGINT)
    ended(process, 130)
    assert all(re.match(rf"{TIME} [→←·] ", line) for line in shown), shown
    summaries = [line.split(maxsplit=1)[1].rstrip() for line in shown]
    assert "\x1b" not in "".join(shown)
    assert summaries[0].startswith("· connected")
    assert summaries[1] == "← login      accepted  1 byte"
    size = len(frame(1))
    assert summaries[2] == (
        "→ records    codec 8, 1 record, 2024-03-15T12:10:00.001Z, 54.68,25.25, 40 km/h  "
        f"{size} bytes"
    )
    assert summaries[3] == "← ack        1 record  4 bytes"
    assert summaries[4] == '← command    codec 12, "getinfo"  27 bytes'
    assert summaries[5] == '→ answer     codec 12, "INI:2026/1/1\\r\\n"  34 bytes'
    assert summaries[6] == "→ rejected   data length 4294967295 exceeds the limit of 65536"
    assert summaries[-1].startswith("· disconnected")


def test_watch_prints_json(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    process = site.start("-o", "json", "watch", device_id, "--count", "2", "--raw")
    assert process.stderr is not None
    process.stderr.readline()
    assert device.deliver(7)
    records, ack = map(json.loads, ended(process).splitlines())
    assert list(records) == list(ack) == [
        *("at", "device_id", "kind", "direction", "message", "summary", "bytes", "raw"),
        *("decoded", "truncated", "dropped"),
    ]  # fmt: skip
    assert (records["kind"], records["direction"], records["message"]) == (
        *("received", "from", "records"),
    )
    assert bytes.fromhex(records["raw"]) == frame(7)
    assert (records["bytes"], records["dropped"]) == (len(frame(7)), 0)
    assert records["decoded"]["records"][0]["speed"] == 40
    assert (ack["kind"], ack["direction"], ack["decoded"]) == ("sent", "to", {"acknowledged": 1})
    assert re.fullmatch(TIME, ack["at"])


def test_watch_ends_after_the_given_seconds(site: Site) -> None:
    elsewhere = imei()
    _device = online(site.two, elsewhere)
    watched = site.admin("watch", elsewhere, "--seconds", "0.2")
    assert watched.stderr == f"Watching {elsewhere} on one (the device is connected to two)\n"
    watched = site.admin("watch", UNKNOWN_DEVICE, "--seconds", "0.2")
    assert watched.stderr == f"Watching {UNKNOWN_DEVICE} on one (the device is not connected)\n"
    assert watched.stdout == ""


def test_watch_continues_after_a_restart_of_the_instance(site: Site, spare: Ingest) -> None:
    device_id = imei()
    device = online(spare, device_id)
    process = watching(site, device_id, "-o", "json", control=site.socket("spare"))
    assert device.deliver(2)
    lines_until(process, "ack")
    spare.daemon.kill()
    (lost,) = lines_until(process, "control.*lost")
    spare.daemon.start()
    lines_until(process, "control.*back")
    again = online(spare, device_id)
    assert again.deliver(3)
    shown = lines_until(process, "ack")
    assert json.loads(lost)["kind"] == "control-lost"
    kinds = [json.loads(line)["message"] for line in shown]
    assert kinds[:4] == ["connected", "login", "records", "ack"]
    spare.daemon.kill()
    lines_until(process, "control.*lost")
    process.send_signal(signal.SIGINT)
    ended(process, 130)


def test_watch_that_ends_while_disconnected_has_exit_code_3(site: Site, spare: Ingest) -> None:
    process = site.start("watch", UNKNOWN_DEVICE, "--seconds", "2", control=site.socket("spare"))
    assert process.stderr is not None
    process.stderr.readline()
    spare.daemon.kill()
    assert "control port lost" in ended(process, 3)


def test_lag_is_the_same_from_redis_and_control_port(site: Site) -> None:
    device = online(site.one, imei())
    assert device.deliver(1, 2)
    site.redis.client.xgroup_create(STREAM, "processor", "0")
    site.redis.client.xreadgroup("processor", "host-1", {STREAM: ">"}, count=1)
    try:
        by_control = site.json("lag")
        by_redis = site.json("lag", "--redis", site.redis.url)
        assert list(by_redis[0]) == list(by_control[0])
        for row in (*by_control, *by_redis):
            assert (row["stream"], row["group"], row["pending"]) == (STREAM, "processor", 1)
            assert row["lag"] == row["entries"] - 1
            assert row["consumer_count"] == 1
        assert by_control[0]["consumers"] is None
        assert by_redis[0]["consumers"]["host-1"]["pending"] == 1
        assert re.search(r"host-1 \(1, ", site.admin("lag", "--redis", site.redis.url).stdout)
        environ = environment(REDIS_URL=site.redis.url, TRACKER_CONTROL=site.socket("one"))
        plain = admin("lag", "-o", "json", env=environ)
        assert json.loads(plain.stdout)[0]["consumers"] is not None
        for source in ((), ("--redis", site.redis.url)):
            stderr = site.admin("lag", "--stream", "nowhere", *source, exit_code=1).stderr
            assert "Stream nowhere not found" in stderr
    finally:
        site.redis.client.xgroup_destroy(STREAM, "processor")


def test_lag_follow_prints_lines_repeatedly(site: Site) -> None:
    assert online(site.one, imei()).deliver(1)
    site.redis.client.xgroup_create(STREAM, "processor", "0")
    try:
        for source in ((), ("--redis", site.redis.url)):
            process = site.start("lag", "--follow", "--interval", "1s", *source)
            first, second = (lines_until(process, "lag=")[-1] for _ in range(2))
            process.send_signal(signal.SIGINT)
            assert ended(process, 130) == ""
            for line in (first, second):
                assert re.fullmatch(
                    rf"{TIME} {STREAM} processor lag=\d+ pending=0 oldest=\d+\.\ds consumers=0\n",
                    line,
                )
        process = site.start("-o", "json", "lag", "--follow", "--interval", "1s")
        one, two = (json.loads(lines_until(process, "lag")[-1]) for _ in range(2))
        process.send_signal(signal.SIGINT)
        ended(process, 130)
        assert one["at"] < two["at"]
        assert one["group"] == "processor"
        terminal = Terminal("tracker-admin", "lag", "--follow", "--redis", site.redis.url)
        terminal.read_until("processor")
        assert terminal.interrupt() == 130
        assert terminal.shown.endswith("\x1b[?25h"), "the cursor is shown again"
    finally:
        site.redis.client.xgroup_destroy(STREAM, "processor")


def test_lag_follow_continues_after_an_outage_of_redis(site: Site, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    redis.client.xgroup_create(STREAM, "processor", "0", mkstream=True)
    process = site.start("lag", "--follow", "--interval", "1s", "--redis", redis.url)
    try:
        lines_until(process, "lag=0")
        redis.kill()
        assert process.stderr is not None
        assert re.match(rf"{TIME} connection lost: ", process.stderr.readline())
        redis.start()
        assert re.match(rf"{TIME} connected again", process.stderr.readline())
        lines_until(process, "lag=0")
    finally:
        process.send_signal(signal.SIGINT)
        ended(process, 130)
        redis.kill()
