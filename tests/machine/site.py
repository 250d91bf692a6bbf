"""A machine with Tracker, and the fleet outside of it that sends to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.machine.fleet import Fleet
from tests.machine.machine import Machine
from tests.system import recipes
from tests.system.processes import Key
from tests.waiting import wait_for

ROOT: Final = Path(__file__).parents[2]

#: Bytes of Redis' disk: more than the whole test appends, but quickly filled.
REDIS_DISK: Final = 256 << 20

_POSITIONS: Final = (
    "SELECT device_id, to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),"
    " encode(digest, 'hex') FROM positions"
)


class Site:
    """The machine, the fleet, and the lines of the report."""

    def __init__(self, folder: Path, report: list[str]) -> None:
        self._report = report
        self.machine = Machine(REDIS_DISK)
        self._folder = folder
        self._fleet: Fleet | None = None

    @property
    def fleet(self) -> Fleet:
        """The fleet, started at the first access."""
        if self._fleet is None:
            self._fleet = Fleet(self._folder, self.machine.address)
        return self._fleet

    def stored(self, database: str = "tracker") -> list[Key]:
        """Return the keys of all positions in a database of PostgreSQL."""
        psql = ("psql", "--dbname", database, "--tuples-only", "--no-align", "--field-separator=,")
        text = self.machine.run("runuser", "-u", "postgres", "--", *psql, "--command", _POSITIONS)
        return [(device, ts, digest) for device, ts, digest in _rows(text)]

    def account(self) -> int:
        """Wait until all records acknowledged by now are stored; return their number."""
        acknowledged = set(self.fleet.acknowledged())
        wait_for(lambda: acknowledged <= set(self.stored()), "all records are stored", timeout=60)
        return len(acknowledged)

    def heartbeat(self, service: str) -> dict[str, Any]:
        """Wait for the heartbeat of an ingest instance, and return it."""
        name = f"{self.machine.HOSTNAME}-{service.partition('@')[2]}"
        url = (self.machine.root / "etc/tracker/credentials/admin.redis-url").read_text().strip()
        get = ("redis-cli", "--no-auth-warning", "-u", url, "GET", f"instance:heartbeat:{name}")
        text = wait_for(lambda: self.machine.run(*get).strip(), f"{service} is alive", timeout=60)
        heartbeat: dict[str, Any] = json.loads(text)
        return heartbeat

    def restarts(self, unit: str) -> int:
        """Return the number of automatic restarts of a unit."""
        return int(self.machine.show(unit, "NRestarts"))

    def wait_for_restart(self, unit: str, before: int, timeout: float = 60) -> None:
        """Wait until systemd has restarted a unit once more, and it is active."""
        wait_for(
            lambda: self.restarts(unit) > before and self.machine.is_active(unit),
            f"{unit} was restarted",
            timeout,
        )

    def follow(self, page: str, name: str) -> str:
        """Run a recipe of the documentation in the machine; return its output."""
        script = "\n".join(("cd /srv", *recipes.commands(page, name)))
        return self.machine.run("bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script}")

    def settings(self, file: str, text: str) -> None:
        """Add lines to a file in ``/etc/tracker`` of the machine."""
        with (self.machine.root / "etc/tracker" / file).open("a") as opened:
            opened.write(f"{text}\n")

    def put(self, file: Path) -> str:
        """Copy a file into the machine; return its path there."""
        shutil.copy(file, self.machine.root / "srv")
        return f"/srv/{file.name}"

    def note(self, line: str) -> None:
        """Add a line to the report."""
        self._report.append(line)

    def remove(self) -> None:
        """Stop the fleet, and remove the machine."""
        if self._fleet is not None:
            self._fleet.kill()
        self.machine.remove()


def build_package() -> Path:
    """Run ``make deb``; return the package."""
    ended = subprocess.run(
        ["make", "--no-print-directory", "deb"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ROOT / ended.stdout.splitlines()[-1]


def build_successor(package: Path, folder: Path) -> Path:
    """Return a package of the next version, with different default settings."""
    tree = folder / "successor"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True)
    _edit(tree / "DEBIAN/control", r"(?m)^(Version: .*)$", r"\1+1")
    (code,) = tree.glob("opt/tracker/lib/python3.*/site-packages/tracker/__init__.py")
    _edit(code, r'(?m)^(__version__ = ".*)"$', r'\1+1"')
    for bytecode in (code.parent / "__pycache__").glob("__init__.*"):
        bytecode.unlink()
    settings = tree / "usr/share/tracker/etc/ingest.env"
    settings.write_text(f"# Delivered with the next version.\n{settings.read_text()}")
    successor = _build(tree, folder / package.name.replace("_", "_next-", 1))
    shutil.rmtree(tree)
    return successor


def build_earlier(package: Path, folder: Path) -> Path:
    """Return a package with the name and epoch of before, and a module that is gone since."""
    tree = folder / "earlier"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True)
    _edit(tree / "DEBIAN/control", r"(?m)^Package: .*$", "Package: tracker")
    _edit(tree / "DEBIAN/control", r"(?m)^Version: (.*)$", r"Version: 1:\1")
    _edit(tree / "DEBIAN/control", r"(?m)^Replaces: .*\n", "")
    (code,) = tree.glob("opt/tracker/lib/python3.*/site-packages/tracker")
    (code / "gone.py").touch()
    earlier = _build(tree, folder / package.name.replace("tracker-plane_", "tracker_", 1))
    shutil.rmtree(tree)
    return earlier


def _build(tree: Path, package: Path) -> Path:
    build = ("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build")
    subprocess.run([*build, str(tree), str(package)], check=True, stdout=subprocess.DEVNULL)
    return package


def _edit(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text())
    assert count == 1, f"{file}: {count} times {pattern}"
    file.write_text(text)


def _rows(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()]
