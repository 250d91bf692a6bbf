"""The demo: its overview, and other devices that report to it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.process import OwnProcess
from tests.servers import free_port
from tests.system.processes import BIN, Simulation, environment
from tests.waiting import wait_for
from tracker.simulator.demo import (
    CONSOLE_PORT,
    FIRST_DEVICE,
    HEALTH_PORT,
    listening_socket,
)
from tracker.simulator.fleet import simulated_imei

LAST_LINE = r"demo: (\d+) positions? from 2 devices acknowledged, (\d+) stored, lag \d+"


class Demo(OwnProcess):
    """A demo of two devices that runs until it is stopped."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__()
        self.port = free_port()
        self._log = folder / "demo.log"
        self._launch(
            self._log,
            *(str(BIN / "tracker-admin"), "demo", "--devices", "2", "--interval", "0.1"),
            *("--port", str(self.port), *arguments),
            env=environment(TMPDIR="/tmp"),
        )

    def output(self) -> str:
        return self._log.read_text()

    def wait_until_stored(self) -> None:
        """Wait until the line of figures shows stored positions."""
        wait_for(lambda: re.search(r"[1-9]\d* stored", self.output()), "stored", timeout=60)

    def overview(self) -> dict[str, str]:
        """Return name → text of each row, as a user copies it."""
        rows = re.findall(r"^  (\w+) +((?:.*\\\n)*.*)$", self.output(), re.MULTILINE)
        return dict(rows)

    def end(self) -> list[str]:
        """End the demo by Ctrl-C; return the lines of its output after success."""
        status = self._end(signal.SIGINT)
        assert status == 0, self.output()
        return self.output().splitlines()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    try:
        demo.wait_until_stored()
        yield demo
    finally:
        demo.kill()


def test_each_command_that_the_demo_prints_works_in_any_folder(demo: Demo, tmp_path: Path) -> None:
    # As typed in a new terminal: elsewhere, and without the environment of the demo.
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def shell(command: str) -> str:
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd="/",
            env=bare,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stderr) == (0, ""), command
        return ended.stdout

    rows = demo.overview()
    names = ["devices", "console", "health", "stream", "database", "control", "log", "data"]
    assert list(rows) == names
    assert rows["devices"] == f"1 simulated, on 127.0.0.1:{demo.port} (teltonika)"
    assert " 1 simulated, on 127.0.0.1:" in demo.output().partition("(teltonika)\n")[2]
    assert urlopen(rows["console"], timeout=10).status == 200
    program, option, url = rows["health"].split()
    assert (program, option) == ("curl", "-s")
    assert urlopen(url, timeout=10).status == 200
    assert "telemetry:teltonika  processor" in shell(rows["stream"])
    imeis = [simulated_imei(FIRST_DEVICE + number) for number in range(2)]
    for name in ("database", "control"):
        assert re.findall(r"^\d{15}\b", shell(rows[name]), re.MULTILINE) == imeis
    tail, follow, path = rows["log"].split()
    assert (tail, follow) == ("tail", "-f")
    assert shell(f"tail {path}")
    folder = rows["data"].partition(" ")[0]
    assert Path(path).parent == Path(folder)
    demo.end()
    assert not Path(folder).exists()


def test_overview_of_the_demo_fits_into_80_columns(demo: Demo) -> None:
    rows = demo.output().partition("\n\n")[2].partition("\n\n")[0].splitlines()
    program = str(BIN / "tracker-admin")
    lines = [
        line.replace(program, "/home/operator/tracker/.venv/bin/tracker-admin") for line in rows
    ]
    assert max(map(len, lines)) <= 80, lines
    demo.end()


def test_demo_counts_its_own_fleet_if_other_devices_report(demo: Demo, tmp_path: Path) -> None:
    others = Simulation(tmp_path, demo.port, "--devices", "3", "--interval", "0.05")
    try:
        others.wait_for_more(100)
        lines = demo.end()  # while they still report
    finally:
        others.kill()
    note, last = lines[-2:]
    reported = re.fullmatch(r"3 other devices reported, too: (\d+) positions stored", note)
    assert reported, lines
    assert int(reported[1]) > 0
    counted = re.fullmatch(LAST_LINE, last)
    assert counted, lines
    assert counted[1] == counted[2]


def test_demo_runs_if_the_ports_of_its_pages_are_in_use(tmp_path: Path) -> None:
    with ExitStack() as taken:
        for port in (CONSOLE_PORT, HEALTH_PORT):
            with suppress(OSError):  # in use already
                taken.enter_context(listening_socket(port))
        demo = Demo(tmp_path)
        try:
            demo.wait_until_stored()
            rows = demo.overview()
            notes = [
                note
                for note in demo.output().partition("\n\n")[0].splitlines()[1:]
                if "console uses" in note or "health uses" in note
            ]
            for port, note, url in zip(
                (CONSOLE_PORT, HEALTH_PORT),
                notes,
                (rows["console"], rows["health"].split()[-1]),
                strict=True,
            ):
                assert note.startswith(f"Port {port}: ")
                assert f":{port}/" not in url
                assert urlopen(url, timeout=10).status == 200
            demo.end()
        finally:
            demo.kill()
