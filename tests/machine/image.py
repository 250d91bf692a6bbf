"""A root folder with a fresh Debian, built once and shared by all runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

RELEASE: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org/debian"

#: Packages of a new server, and those that debootstrap needs for a system that boots.
SYSTEM: Final = ("systemd-sysv", "dbus", "iproute2", "procps", "ca-certificates")
#: Packages that docs/install.rst installs beside Tracker, and dependencies of its package.
SERVERS: Final = ("redis-server", "postgresql", "python3")

#: Prevents packages from starting servers while no systemd runs that could stop them.
_POLICY: Final = "#!/bin/sh\nexit 101\n"
#: The image need not survive a crash of this host, so dpkg can skip its syncs.
_DPKG: Final = "force-unsafe-io\n"


def cache() -> Path:
    """Return the folder of the image (500 MB), outside the checkout."""
    folder = os.environ.get("TRACKER_MACHINE_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "tracker-machine").absolute()


def image() -> Path:
    """Return the root folder, which must not be changed; building it takes some minutes."""
    recipe = "\n".join((RELEASE, *SYSTEM, *SERVERS, _POLICY, _DPKG))
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / f"{RELEASE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with _locked(folder / "lock"):
        if not root.exists():
            unfinished = folder / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            _make(unfinished, folder / "image.log")
            unfinished.rename(root)
    return root


def _make(root: Path, log: Path) -> None:
    mirror = os.environ.get("TRACKER_MACHINE_MIRROR", MIRROR)
    include = ",".join(SYSTEM)
    with log.open("wb") as output:

        def run(*command: str) -> None:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8", "HOME": "/root",
                },
            )  # fmt: skip
            if ended.returncode:
                tail = log.read_text(errors="replace")[-2000:]
                raise AssertionError(f"{command[0]} failed, see {log}:\n{tail}")

        run("debootstrap", "--variant=minbase", f"--include={include}", RELEASE, str(root), mirror)
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text(_POLICY)
        policy.chmod(0o755)
        run("chroot", str(root), "apt-get", "update")
        run("chroot", str(root), "apt-get", "install", "--yes", "--no-install-recommends", *SERVERS)
        run("chroot", str(root), "apt-get", "clean")
        policy.unlink()
        (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text(_DPKG)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
