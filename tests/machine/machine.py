"""A whole machine: a Debian in a container, booted by its own systemd."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.machine.image import WHEELS, image, wheels
from tests.waiting import wait_for

#: Exit code of systemd-nspawn if the machine requests a reboot.
_REBOOT: Final = 133

#: Environment of commands in the machine.
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}


class Machine:
    """A fresh machine, with a network that only this host can reach.

    :ivar address: IP address of the machine.
    :ivar root: its root folder on this host.
    """

    HOSTNAME: Final = "gate"
    REDIS: Final = "/var/lib/redis"

    def __init__(self, redis_bytes: int | None = None) -> None:
        """:param redis_bytes: size of the disk for Redis' data; None for no disk of its own."""
        self._folder = Path(tempfile.mkdtemp(prefix="run-", dir=image().parent))
        self.root = self._folder / "root"
        self.log = self._folder / "console.log"
        self._name = f"tracker-{os.getpid()}"
        self._interface = f"trk{os.getpid()}"
        network = f"198.18.{os.getpid() % 256}"  # reserved for tests by RFC 2544
        self.address = f"{network}.2"
        self._host = f"{network}.1"
        self._disk = self._folder / "redis" if redis_bytes else None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        try:
            self._make_root()
            if self._disk:
                # In memory of this host, so that it survives a reboot of the machine.
                self._disk.mkdir()
                size = ("-o", f"size={redis_bytes}")
                _run("mount", "-t", "tmpfs", *size, "tmpfs", str(self._disk))
            self._make_network()
        except BaseException:
            self.remove()
            raise

    def boot(self) -> None:
        """Start the machine, and wait until all its units are started."""
        self._leader = 0
        binds = [f"--bind={self._disk}:{self.REDIS}"] if self._disk else []
        with self.log.open("ab") as output:
            self._nspawn = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM"),  # ends with these tests
                    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"),
                    *("--directory", str(self.root), "--machine", self._name),
                    *("--resolv-conf=off", "--link-journal=no", "--console=pipe"),
                    f"--network-namespace-path=/run/netns/{self._name}",
                    *binds,
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_for(self._is_up, "the machine is up", timeout=120)

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> str:
        """Run a command in the machine; return its standard output.

        :raises AssertionError: if its exit code is not 0 and ``check`` is set.
        """
        ended = self._enter(*command, timeout=timeout)
        if check and ended.returncode:
            raise AssertionError(
                f"{shlex.join(command)}: exit code {ended.returncode}\n{ended.stdout}{ended.stderr}"
            )
        return ended.stdout

    def begin(self, log: Path, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in the machine, with a pipe to its input; append its output to a file."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self._entering(command),
                stdin=subprocess.PIPE, stdout=output, stderr=output, env=_ENVIRONMENT,
            )  # fmt: skip

    def succeeds(self, *command: str) -> bool:
        """Run a command in the machine; return True if its exit code is 0."""
        return self._enter(*command).returncode == 0

    def show(self, unit: str, key: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", key, unit).strip()

    def is_active(self, unit: str) -> bool:
        """Return True if a unit is active."""
        return self.show(unit, "ActiveState") == "active"

    def reboot(self) -> None:
        """Reboot the machine, and wait until it is up again."""
        self._enter("systemctl", "reboot")
        assert self._nspawn is not None
        assert self._nspawn.wait(120) == _REBOOT, self.log.read_text(errors="replace")[-2000:]
        self.boot()

    def remove(self) -> None:
        """Stop the machine, and remove all its files."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            # All other processes of the machine end with its first one.
            if self._leader:
                with suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)
            else:
                self._nspawn.kill()
            self._nspawn.wait(60)
        _run("ip", "netns", "delete", self._name, check=False)
        for mounted in (self._disk, self.root, self._folder):
            if mounted:
                _run("umount", str(mounted), check=False)
        with suppress(OSError):
            Path("/run/systemd/nspawn/propagate", self._name).rmdir()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_root(self) -> None:
        # An overlay on top of the image holds only the changes, up to 800 MB. They are in memory of
        # this host: on its disk they would take most of the time.
        _run("mount", "-t", "tmpfs", "tmpfs", str(self._folder))
        layers = [self._folder / name for name in ("changes", "work")]
        for folder in (*layers, self.root):
            folder.mkdir()
        options = f"lowerdir={image()},upperdir={layers[0]},workdir={layers[1]}"
        _run("mount", "-t", "overlay", "-o", options, "overlay", str(self.root))
        (self.root / "etc/hostname").write_text(f"{self.HOSTNAME}\n")
        # As Debian's installer does; sudo looks its own host up.
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.HOSTNAME}\n")
        shutil.copytree(wheels(), self.root / WHEELS)

    def _make_network(self) -> None:
        # Created outside of nspawn, so that it survives a reboot of the machine.
        peer = ("peer", "name", "host0", "netns", self._name)
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", self._interface, "type", "veth", *peer)
        _run("ip", "address", "add", f"{self._host}/30", "dev", self._interface)
        _run("ip", "link", "set", self._interface, "up")
        inside = ("ip", "-netns", self._name)
        _run(*inside, "address", "add", f"{self.address}/30", "dev", "host0")
        _run(*inside, "link", "set", "host0", "up")
        _run(*inside, "link", "set", "lo", "up")

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise AssertionError(f"systemd-nspawn has ended:\n{self.log.read_text()[-2000:]}")
        pid = self._nspawn.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._leader = int(children[0]) if len(children) == 1 else 0
        if not self._leader:
            return False
        state = self._enter("systemctl", "is-system-running").stdout.strip()
        return state in ("running", "degraded")

    def _enter(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._entering(command),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            env=_ENVIRONMENT,
        )  # fmt: skip

    def _entering(self, command: Sequence[str]) -> list[str]:
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        return ["nsenter", "--target", str(self._leader), *namespaces, "--", *command]


def _run(*command: str, check: bool = True) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and ended.returncode:
        raise AssertionError(f"{shlex.join(command)}: {ended.stderr}")
