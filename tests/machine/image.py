"""A root folder with a fresh Debian, built once and shared by all runs.

It has no network. Packages that the documentation installs come from a repository in its files,
and Python packages from a folder that each machine gets.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.machine.documented import packages

ROOT: Final = Path(__file__).parents[2]

RELEASE: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org/debian"

#: Packages of a new server that debootstrap's smallest variant lacks. They include no program that
#: the documentation has to install.
SYSTEM: Final = (
    *("systemd-sysv", "libpam-systemd", "dbus", "iproute2", "procps", "ca-certificates"),
    "sudo",
)
#: Dependency of Tracker's package, which ``apt install`` gets from Debian.
DEPENDENCY: Final = "python3"

#: The machine's repository of Debian packages, and its folder of Python packages.
REPOSITORY: Final = "var/lib/debian"
WHEELS: Final = "var/lib/wheels"

#: Name of the ordinary user, who may use sudo without a password as in images for clouds.
USER: Final = "ada"

_FILES: Final = {
    "etc/apt/sources.list": f"deb [trusted=yes] file:/{REPOSITORY} ./\n",
    # Commands run without a person who would confirm them.
    "etc/apt/apt.conf.d/assume-yes": 'APT::Get::Assume-Yes "true";\n',
    # The image need not survive a crash of this host, so dpkg can skip its syncs.
    "etc/dpkg/dpkg.cfg.d/unsafe-io": "force-unsafe-io\n",
    "etc/pip.conf": f"[global]\nno-index = true\nfind-links = /{WHEELS}\n",
    "etc/default/locale": "LANG=C.UTF-8\n",
    f"etc/sudoers.d/{USER}": f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n",
}


def cache() -> Path:
    """Return the folder of images (500 MB each), outside the checkout."""
    folder = os.environ.get("TRACKER_MACHINE_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "tracker-machine").absolute()


def image() -> Path:
    """Return the root folder, which must not be changed; building it takes some minutes."""
    return _kept(RELEASE, (*SYSTEM, DEPENDENCY, *packages(), *_FILES.values()), _make)


def wheels() -> Path:
    """Return a folder with all Python packages that the documentation installs."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    required = (setup["options"]["install_requires"], extras["embedded"], extras["postgresql"])
    # What builds the distribution itself, as pip does in a new environment.
    names = ["setuptools>=68", "wheel"]
    names += [name for lines in required for name in lines.split("\n") if name]
    return _kept("wheels", names, lambda folder, log: _make_wheels(folder, log, names))


def _kept(kind: str, recipe: Sequence[str], make: Callable[[Path, Path], None]) -> Path:
    """Return the folder of this recipe; make it if it does not exist."""
    digest = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]
    cache().mkdir(parents=True, exist_ok=True)
    folder = cache() / f"{kind}-{digest}"
    with _locked(cache() / "lock"):
        if not folder.exists():
            unfinished = cache() / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished, cache() / f"{kind}.log")
            unfinished.rename(folder)
    return folder


def _make(root: Path, log: Path) -> None:
    mirror = os.environ.get("TRACKER_MACHINE_MIRROR", MIRROR)
    include = ",".join(SYSTEM)
    run = _runner(log)
    run("debootstrap", "--variant=minbase", f"--include={include}", RELEASE, str(root), mirror)
    inside = ("chroot", str(root))
    run(*inside, "apt-get", "clean")
    run(*inside, "apt-get", "update")
    run(*inside, "apt-get", "install", "--yes", "--download-only", DEPENDENCY, *packages())
    repository = root / REPOSITORY
    repository.mkdir()
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.rename(repository / package.name)
    _index(repository)
    run(*inside, "useradd", "--create-home", "--shell", "/bin/bash", USER)
    for path, text in _FILES.items():
        (root / path).write_text(text)
    # A new machine has no list of packages yet.
    shutil.rmtree(root / "var/lib/apt/lists")


def _index(repository: Path) -> None:
    """Write the index that apt reads."""
    with (repository / "Packages").open("w") as index:
        for package in sorted(repository.glob("*.deb")):
            control = subprocess.check_output(["dpkg-deb", "--field", str(package)], text=True)
            digest = hashlib.sha256(package.read_bytes()).hexdigest()
            index.write(
                f"{control}Filename: ./{package.name}\nSize: {package.stat().st_size}\n"
                f"SHA256: {digest}\n\n"
            )


def _make_wheels(folder: Path, log: Path, names: Sequence[str]) -> None:
    run = _runner(log)
    environment = folder.with_name("pip")
    # Debian's Python, since what is required depends on its version.
    run("/usr/bin/python3", "-m", "venv", "--clear", str(environment))
    run(str(environment / "bin/pip"), "wheel", "--wheel-dir", str(folder), *names)
    shutil.rmtree(environment)


def _runner(log: Path) -> Callable[..., None]:
    """Return a function that runs a command, and appends its output to a file."""

    def run(*command: str) -> None:
        variables = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        with log.open("ab") as output:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8", "HOME": "/root",
                    **variables,
                },
            )  # fmt: skip
        if ended.returncode:
            tail = log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{command[0]} failed, see {log}:\n{tail}")

    log.unlink(missing_ok=True)
    return run


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
