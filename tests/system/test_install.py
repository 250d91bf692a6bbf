"""``make install`` with DESTDIR."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.processes import environment

ROOT = Path(__file__).parents[2]

#: Python of the system. That of the tests may be in a home folder, which services cannot read.
PYTHON = "/usr/bin/python3"


def has_venv(python: str) -> bool:
    """Return True if a Python exists, is recent enough, and has the module venv."""
    program = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return (
            subprocess.run([python, "-c", program], capture_output=True, check=False).returncode
            == 0
        )
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_venv(PYTHON), reason=f"{PYTHON} has no venv")


def install(folder: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "install", f"DESTDIR={folder}", f"PYTHON={PYTHON}", *variables],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the DESTDIR of an installation with the environment in /srv/gps."""
    folder = tmp_path_factory.mktemp("install") / "root"
    ended = install(folder, "PREFIX=/srv/gps")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_units_refer_to_the_given_prefix(installed: Path) -> None:
    units = installed / "usr/local/lib/systemd/system"
    delivered = [path for path in (ROOT / "systemd").rglob("tracker*") if path.is_file()]
    assert delivered
    for path in delivered:
        if path.parent.name not in ("sysusers.d", "tmpfiles.d"):
            text = (units / path.relative_to(ROOT / "systemd")).read_text()
            assert text == path.read_text().replace("/opt/tracker/", "/srv/gps/")
    service = (units / "tracker-janitor.service").read_text()
    assert "\nExecStart=/srv/gps/bin/twistd " in service


def test_no_file_refers_to_destdir(installed: Path) -> None:
    for path in installed.rglob("*"):
        if path.is_symlink():
            assert str(installed) not in str(path.readlink())
        elif path.is_file():
            assert str(installed).encode() not in path.read_bytes(), path


def test_commands_find_the_environment(installed: Path) -> None:
    for command in ("tracker", "tracker-admin"):
        link = installed / "usr/local/bin" / command
        assert link.readlink() == Path("/srv/gps/bin") / command
    for command in ("tracker", "tracker-admin", "twistd"):
        first = (installed / "srv/gps/bin" / command).read_text().splitlines()[0]
        assert first.startswith("#!/srv/gps/bin/python")
    python = installed / "srv/gps/bin/python3"
    code = "import psycopg, tracker; print(tracker.__file__)"
    ended = subprocess.run([python, "-Ic", code], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(f"{installed}/srv/gps/lib/")


def test_bytecode_and_plugin_cache_are_installed(installed: Path) -> None:
    (site,) = installed.glob("srv/gps/lib/python3.*/site-packages")
    assert b"tracker_plugin" in (site / "twisted/plugins/dropin.cache").read_bytes()
    sources = list((site / "tracker").rglob("*.py"))
    assert sources
    for path in sources:
        assert list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")), path


def test_python_in_a_home_folder_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho /home/alice/.pyenv/bin/python3.11\n")
    python.chmod(0o755)
    ended = install(tmp_path / "root", f"PYTHON={python}")
    assert ended.returncode != 0
    assert "install: /home/alice/.pyenv/bin/python3.11 is in a home folder" in ended.stderr
    assert not (tmp_path / "root").exists()
