"""The wheel, its commands and data files, and the standalone .tac file."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.servers import free_port
from tests.system.processes import BIN, Daemon, environment, stored, wait_until_stored
from tests.waiting import wait_for
from tracker import __version__

ROOT = Path(__file__).parents[2]


#: A data file of a vendor, which no list names.
ADDED = Path("tracker", "vendors", "acme", "tables", "reports.tsv")


def files_of_the_tree() -> str:
    """Return the names of all files of the working tree, each followed by a NUL."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return "".join(f"{name}\0" for name in names.split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what ``make dist`` builds from the tree with an added data file."""
    tree, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    copied = subprocess.run(
        f"tar -c --null --files-from=- | tar -x -C {tree}",
        cwd=ROOT, shell=True, input=files_of_the_tree(), text=True, check=False,
    )  # fmt: skip
    assert copied.returncode == 0
    (tree / ADDED).parent.mkdir(parents=True)
    (tree / ADDED).write_text("GTFRI\tposition\n")
    subprocess.run(["git", "init", "--quiet", str(tree)], check=True)
    dist = (str(tree / "packaging" / "dist.sh"), sys.executable, str(folder))
    ended = subprocess.run(dist, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of a clean environment with only the wheel installed."""
    (wheel,) = built.glob("*.whl")
    made = tmp_path_factory.mktemp("wheel") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(made / "bin" / "python"), "install"),
            *("--quiet", "--no-compile", f"{wheel}[embedded]"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return made / "bin"


def run_installed(installed: Path, folder: Path, *arguments: str) -> str:
    """Run a command of the clean environment outside the source tree, and return its output."""
    ended = subprocess.run(
        [str(installed / arguments[0]), *arguments[1:]],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_distributions_are_named_after_this_version(built: Path) -> None:
    name = f"tracker_plane-{__version__}"
    assert {path.name for path in built.iterdir()} == {
        *(f"{name}.tar.gz", f"{name}-py3-none-any.whl")
    }


def test_source_distribution_contains_every_file_of_the_tree(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        contained = {name.partition("/")[2] for name in opened.getnames()}
    there = set(files_of_the_tree().split("\0")) - {""}
    assert "setup.cfg" in there
    assert there <= contained


def test_commands_of_the_wheel_say_the_version(installed: Path, tmp_path: Path) -> None:
    for command in ("tracker", "tracker-admin"):
        assert __version__ in run_installed(installed, tmp_path, command, "--version")
    assert "\n    tracker " in run_installed(installed, tmp_path, "twistd", "--help")


def test_wheel_contains_the_roles_of_twistd_tracker(installed: Path, tmp_path: Path) -> None:
    output = run_installed(installed, tmp_path, "twistd", "tracker", "--help")
    assert all(role in output for role in ("ingest", "process", "standalone"))


def test_wheel_contains_the_command_tracker(installed: Path, tmp_path: Path) -> None:
    output = run_installed(installed, tmp_path, "tracker", "--help")
    assert output.startswith("Usage: tracker ROLE [options]\n")


def test_wheel_contains_tracker_admin(installed: Path, tmp_path: Path) -> None:
    output = run_installed(installed, tmp_path, "tracker-admin", "--help")
    assert all(command in output for command in ("simulate", "demo"))


def test_wheel_contains_the_dictionary_of_elements(installed: Path, tmp_path: Path) -> None:
    output = run_installed(
        installed, tmp_path, "tracker-admin", "decode", "--names",
        "000000000000002808010000016B40D9AD80010000000000000000000000000000000103"
        "021503010101425E100000010000F22A",
    )  # fmt: skip
    assert '"name": "External Voltage", "scaled": 24.08, "unit": "V"' in output


def test_wheel_contains_the_vendors_and_the_schema(installed: Path, tmp_path: Path) -> None:
    output = run_installed(
        installed, tmp_path, "tracker-admin", "demo", "--seconds", "2", "--devices", "3",
        "--port", str(free_port()),
    )  # fmt: skip
    assert re.search(
        r"demo: (\d+) positions? from 3 devices acknowledged, \1 stored, lag 0", output
    )


def test_wheel_contains_data_files_of_vendors_without_a_list_of_them(installed: Path) -> None:
    (site,) = (installed.parent / "lib").glob("python3.*/site-packages")
    assert (site / ADDED).is_file()
    assert (site / "tracker/vendors/teltonika/avl_ids.csv").is_file()


def test_wheel_contains_the_files_of_the_console(installed: Path, tmp_path: Path) -> None:
    output = run_installed(
        installed, tmp_path, "python", "-c",
        "from tracker.console.files import static_files; print(*sorted(static_files()))",
    )  # fmt: skip
    expected = sorted(path.name for path in (ROOT / "tracker" / "console" / "static").iterdir())
    assert output.split() == expected


def test_wheel_contains_the_rights_of_the_roles_in_redis(installed: Path, tmp_path: Path) -> None:
    output = run_installed(
        installed, tmp_path, "python", "-c",
        "from tracker.redis.rights import grants; print(*grants())",
    )  # fmt: skip
    assert output.split() == ["ingest", "process", "janitor", "bridge", "console", "admin"]


def test_wheel_contains_only_the_package_and_its_plugins(installed: Path) -> None:
    (site,) = (installed.parent / "lib").glob("python3.*/site-packages")
    (record,) = site.glob("tracker_plane-*.dist-info/RECORD")
    top = {line.split("/")[0] for line in record.read_text().splitlines()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"..", "tracker", "twisted"}
    plugins = {path.name for path in (site / "twisted" / "plugins").glob("tracker_*.py")}
    ours = {path.name for path in (ROOT / "twisted" / "plugins").glob("tracker_*.py")}
    assert plugins == ours >= {"tracker_plugin.py", "tracker_teltonika.py"}


def test_standalone_tac_file_runs(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "twistd.log"
    # A copy of the file listens on another port than the default, which may be in use.
    tac = tmp_path / "standalone.tac"
    text = (ROOT / "tap" / "standalone.tac").read_text()
    listen = f'["standalone", "--listen", "teltonika=tcp:{port}:interface=127.0.0.1"]'
    assert '["standalone"]' in text
    tac.write_text(text.replace('["standalone"]', listen))
    with log.open("wb") as output:
        twistd = subprocess.Popen(
            [str(BIN / "twistd"), "-ny", str(tac), "--pidfile="],
            cwd=tmp_path, stdout=output, stderr=output,
            env=environment(TRACKER_DATA=str(tmp_path / "data")),
        )  # fmt: skip
    try:
        wait_for(lambda: "] ready" in log.read_text(), "ready")
        ended = subprocess.run(
            [
                *(str(BIN / "tracker-admin"), "simulate", "--target", f"tcp:127.0.0.1:{port}"),
                *("--devices", "2", "--interval", "0.1", "--seconds", "1"),
            ],
            env=environment(), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        count = int(re.findall(r"([\d,]+) acknowledged", ended.stdout)[-1])
        assert count > 0
        wait_until_stored(tmp_path / "data" / "positions.sqlite", count)
        assert len(stored(tmp_path / "data" / "positions.sqlite")) == count
        twistd.terminate()
        assert twistd.wait(30) == 0
    finally:
        twistd.kill()


def test_daemon_without_the_nodaemon_option_starts_and_stops(tmp_path: Path) -> None:
    data = tmp_path / "data"
    daemon = Daemon(
        *(tmp_path, "standalone", "standalone", "--data", str(data)),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
    )
    daemon.start()
    assert daemon.stop() == 0
    assert not (data / "redis.sock").exists()
