"""The standalone role and the demo, as processes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import sqlite3
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
import valkey
from attrs import evolve

from tests.servers import free_port
from tests.system.processes import (
    BIN,
    Daemon,
    Simulation,
    environment,
    run,
    stored,
    wait_until_stored,
)
from tests.system.raw import RawDevice
from tests.waiting import wait_for
from tracker.clock import ROLLOVER_WEEKS
from tracker.position import iso_milliseconds
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame

DEVICE = "356307042441013"
LAST_LINE = r"demo: ([\d,]+) positions? from (\d+) devices acknowledged, (\d+) stored, lag 0"


class Standalone(Daemon):
    """A standalone process with its data in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.data = folder / "data"
        super().__init__(
            *(folder, "standalone", "standalone", "--data", str(self.data)),
            *("--listen", f"teltonika=tcp:{self.port}:interface=127.0.0.1"),
        )

    @property
    def redis_pid(self) -> int | None:
        """Process id of the embedded server; None while it does not reply."""
        client = valkey.Valkey(unix_socket_path=str(self.data / "redis.sock"))
        try:
            return int(client.info("server")["process_id"])  # type: ignore[index]
        except (valkey.ConnectionError, valkey.BusyLoadingError):
            return None

    def runs_another(self, pid: int) -> bool:
        """Return True if the embedded server runs with a process id other than ``pid``."""
        return self.redis_pid not in (None, pid)


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[Standalone]:
    standalone = Standalone(tmp_path)
    standalone.start()
    yield standalone
    standalone.kill()


def account(standalone: Standalone, fleet: Simulation) -> None:
    """Park the fleet, and compare acknowledged with stored positions."""
    fleet.park()
    acknowledged = fleet.acknowledged()
    database = standalone.data / "positions.sqlite"
    wait_until_stored(database, len(acknowledged))
    assert sorted(stored(database)) == sorted(acknowledged)
    assert acknowledged


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def fleet(standalone: Standalone, tmp_path: Path) -> Iterator[Simulation]:
    fleet = Simulation(tmp_path, standalone.port, "--interval", "0.1")
    yield fleet
    fleet.kill()


def test_embedded_redis_is_restarted_when_it_dies(
    standalone: Standalone, fleet: Simulation
) -> None:
    for _ in range(2):
        fleet.wait_for_more(200)
        pid = standalone.redis_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(partial(standalone.runs_another, pid), "a new server runs")
    fleet.wait_for_more(200)
    account(standalone, fleet)


def test_wrong_clock_and_missing_fix_move_nothing(standalone: Standalone) -> None:
    now = int(time.time()) * 1000
    year_2080, rolled_over = 3_471_292_800_000, now - ROLLOVER_WEEKS[0] * 7 * 86_400_000
    place = Record(now - 60_000, 0, 253_000_000, 547_000_000, 100, 90, 9, 30, 0)
    records = [
        place,
        # Of two wrong times that arrive in the same millisecond the greater one is shown.
        *(evolve(place, timestamp=rolled_over), evolve(place, timestamp=year_2080)),
        *(evolve(place, timestamp=2**63), evolve(place, timestamp=now - 30_000)),
        evolve(place, timestamp=now - 20_000, latitude=0, longitude=0),
        evolve(place, timestamp=now - 15_000, latitude=2**31 - 1, longitude=-(2**31)),
        evolve(place, timestamp=now - 10_000, satellites=0),
    ]
    with RawDevice(standalone.port) as device:
        device.login(DEVICE)
        for record in records:
            device.send(encode_frame(encode_packet(CODEC_8, [record])))
            assert device.read(4) == b"\0\0\0\1"
    database = standalone.data / "positions.sqlite"
    wait_until_stored(database, len(records))
    with closing(sqlite3.connect(database)) as connection:
        marks = connection.execute(
            "SELECT json_extract(extra, '$.clock'), json_extract(extra, '$.fix') FROM positions "
            "ORDER BY ts"
        ).fetchall()
        ((ts, contact, error),) = connection.execute(
            "SELECT ts, last_contact, clock_error FROM last_positions"
        ).fetchall()
    assert [clock for clock, _ in marks] == ["rollover", *[None] * 5, "ahead", "ahead"]
    assert [fix for _, fix in marks] == [None, None, None, 0, 0, 0, None, None]
    assert ts == iso_milliseconds(now - 30_000)
    assert iso_milliseconds(now) <= contact < iso_milliseconds(now + 60_000)
    assert error == "ahead"
    with urlopen(standalone.url("/metrics")) as reply:
        text = reply.read().decode()
    for line in (
        'tracker_wrong_clock_records_total{kind="ahead"} 2.0',
        'tracker_wrong_clock_records_total{kind="rollover"} 1.0',
        'tracker_wrong_clock_records_total{kind="old"} 0.0',
        "tracker_records_without_fix_total 3.0",
    ):
        assert line in text


def test_no_position_is_lost_when_the_whole_process_is_killed(
    standalone: Standalone, fleet: Simulation
) -> None:
    for _ in range(2):
        fleet.wait_for_more(200)
        pid = standalone.redis_pid
        assert pid is not None
        standalone.kill()
        wait_for(partial(gone, pid), "Redis ends with the process")
        standalone.start()
    fleet.wait_for_more(200)
    account(standalone, fleet)


def test_simulation_drains_at_sigterm(standalone: Standalone, tmp_path: Path) -> None:
    fleet = Simulation(tmp_path, standalone.port, "--interval", "0.1", name="other")
    try:
        fleet.wait_for_more(50)
        assert ", 0 unacknowledged" in fleet.park(signal.SIGTERM)
    finally:
        fleet.kill()


def test_demo_does_not_import_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "tracker").mkdir()
    (tmp_path / "tracker" / "__init__.py").write_text("raise SystemExit('imported')")
    ended = run(
        "tracker-admin", "demo", "--seconds", "1", "--devices", "2", "--port", str(free_port()),
        cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def test_stop_ends_the_embedded_redis(standalone: Standalone) -> None:
    pid = standalone.redis_pid
    assert pid is not None
    assert standalone.stop() == 0
    assert gone(pid)


def test_demo_ends_after_the_given_time_with_equal_counts() -> None:
    ended = run(
        "tracker-admin", "demo", "--seconds", "3", "--devices", "7", "--port", str(free_port())
    )
    assert ended.returncode == 0, ended.stderr
    last = ended.stdout.splitlines()[-1]
    match = re.fullmatch(LAST_LINE, last)
    assert match, last
    acknowledged, devices, in_database = map(int, match.groups())
    assert acknowledged == in_database > 0
    assert devices == 7


def test_demo_keeps_its_data_and_counts_only_the_current_run(tmp_path: Path) -> None:
    total = 0
    for _ in range(2):
        ended = run(
            "tracker-admin", "demo", "--seconds", "2", "--devices", "3",
            "--port", str(free_port()), "--data", str(tmp_path / "data"),
        )  # fmt: skip
        match = re.fullmatch(LAST_LINE, ended.stdout.splitlines()[-1])
        assert match, ended.stdout + ended.stderr
        total += int(match[1])
    assert len(stored(tmp_path / "data" / "positions.sqlite")) == total


def test_demo_drains_at_ctrl_c() -> None:
    controller, terminal = pty.openpty()
    demo = subprocess.Popen(
        [str(BIN / "tracker-admin"), "demo", "--devices", "3", "--port", str(free_port())],
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment(),
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        interrupted = False
        while True:
            try:
                data = os.read(controller, 65536)
            except OSError:
                break  # the terminal is closed: all its processes have ended
            shown += data
            if not interrupted and re.search(rb"3 devices connected .* [1-9]\d* stored", shown):
                os.write(controller, b"\x03")
                interrupted = True
        assert demo.wait(30) == 0, shown
    finally:
        demo.kill()
        os.close(controller)
    text = shown.decode()
    assert "\r\x1b[K3 devices connected" in text, "the progress line is drawn over itself"
    assert re.search(LAST_LINE, text.splitlines()[-1]), text
    assert "Traceback" not in text
