"""Checks of the units by systemd-analyze."""

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

#: Units to verify; of templates, one instance.
VERIFIED = (
    *(name.replace("@.", "@1.") for name in SERVICES),
    *("tracker-ingest@socket.service", "tracker-ingest.socket", "tracker.target"),
)

#: Highest permitted exposure level of a service, in tenths; the worst level is 10.
THRESHOLD = 15

#: systemd-analyze is part of Debian's package systemd; .ci/run installs it if it is missing.
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a copy of the units that runs the commands of this environment."""
    copy = tmp_path / "units"
    shutil.copytree(UNITS, copy)
    for path in copy.rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace("/opt/tracker/bin/", f"{BIN}/"))
    return copy


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which prefers the units in this folder."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )  # fmt: skip


def test_each_role_has_a_unit() -> None:
    assert SERVICES == [
        "tracker-bridge.service",
        "tracker-console.service",
        "tracker-ingest@.service",
        "tracker-janitor.service",
        "tracker-process@.service",
    ]


@needs_systemd
@pytest.mark.parametrize("unit", VERIFIED)
def test_unit_passes_systemd_analyze_verify(unit: str, units: Path) -> None:
    ended = analyze(units, "verify", "--man=no", unit)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_service_has_a_low_exposure_level(service: str, units: Path) -> None:
    path = str(units / service)
    ended = analyze(units, "security", "--offline=true", f"--threshold={THRESHOLD}", path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Overall exposure level" in ended.stdout
