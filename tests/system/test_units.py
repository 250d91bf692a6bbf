"""The units, as systemd understands them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.processes import BIN

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))

#: What is run: of those that there may be several of, one; and all that stands by itself.
RUN = (
    *(name.replace("@.", "@1.") for name in SERVICES),
    *("tracker-ingest@socket.service", "tracker-ingest.socket", "tracker.target"),
)

#: The worst mark that a service may get, in tenths; ten is the worst there is.
THRESHOLD = 15

#: Comes with every Debian that these units are for; .ci/run installs it where it is missing.
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy of the units, with the commands where this environment has them."""
    copy = tmp_path / "units"
    shutil.copytree(UNITS, copy)
    for path in copy.rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace("/opt/tracker/bin/", f"{BIN}/"))
    return copy


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd-analyze, which looks for units there before it does so elsewhere."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )  # fmt: skip


def test_there_is_a_unit_for_each_role_and_nothing_else() -> None:
    assert SERVICES == [
        "tracker-bridge.service",
        "tracker-console.service",
        "tracker-ingest@.service",
        "tracker-janitor.service",
        "tracker-process@.service",
    ]


@needs_systemd
@pytest.mark.parametrize("unit", RUN)
def test_a_unit_verifies(unit: str, units: Path) -> None:
    ended = analyze(units, "verify", "--man=no", unit)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_exposed_to_little(service: str, units: Path) -> None:
    path = str(units / service)
    ended = analyze(units, "security", "--offline=true", f"--threshold={THRESHOLD}", path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Overall exposure level" in ended.stdout
