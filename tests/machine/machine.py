"""A whole machine: a Debian that its own systemd has booted, beside this one."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.machine.image import image
from tests.waiting import wait_for

#: Status of systemd-nspawn when the machine is to be started again.
_REBOOT: Final = 133

#: What commands in the machine find in their environment.
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}


class Machine:
    """A machine with a network of its own, that only this host is in, and a disk for Redis.

    :ivar address: where this host finds it.
    :ivar root: its root folder, as this host sees it.
    """

    HOSTNAME: Final = "gate"
    REDIS: Final = "/var/lib/redis"

    def __init__(self, redis_bytes: int) -> None:
        """:param redis_bytes: size of the disk that Redis keeps its data on."""
        self._folder = Path(tempfile.mkdtemp(prefix="run-", dir=image().parent))
        self.root = self._folder / "root"
        self.log = self._folder / "console.log"
        self._name = f"tracker-{os.getpid()}"
        self._interface = f"trk{os.getpid()}"
        network = f"198.18.{os.getpid() % 256}"  # of RFC 2544, so nobody's
        self.address = f"{network}.2"
        self._host = f"{network}.1"
        self._disk = self._folder / "redis"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        try:
            self._make_root()
            self._make_disk(redis_bytes)
            self._make_network()
        except BaseException:
            self.remove()
            raise

    def boot(self) -> None:
        """Start it; returns when all its units are started."""
        self._leader = 0
        with self.log.open("ab") as output:
            self._nspawn = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM"),  # it ends with these tests
                    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"),
                    *("--directory", str(self.root), "--machine", self._name),
                    *("--resolv-conf=off", "--link-journal=no", "--console=pipe"),
                    f"--network-namespace-path=/run/netns/{self._name}",
                    f"--bind={self._disk}:{self.REDIS}",
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_for(self._is_up, "the machine is up", timeout=120)

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> str:
        """Run a command in it; what it has written to its standard output.

        :raises AssertionError: when its status is not 0, unless told not to mind.
        """
        ended = self._enter(*command, timeout=timeout)
        if check and ended.returncode:
            raise AssertionError(
                f"{shlex.join(command)}: status {ended.returncode}\n{ended.stdout}{ended.stderr}"
            )
        return ended.stdout

    def succeeds(self, *command: str) -> bool:
        """Run a command in it; whether its status is 0."""
        return self._enter(*command).returncode == 0

    def show(self, unit: str, key: str) -> str:
        """A property of a unit, as systemctl tells it."""
        return self.run("systemctl", "show", "--value", "--property", key, unit).strip()

    def is_active(self, unit: str) -> bool:
        """Whether a unit is active."""
        return self.show(unit, "ActiveState") == "active"

    def reboot(self) -> None:
        """Reboot it; returns when it is up again."""
        self._enter("systemctl", "reboot")
        assert self._nspawn is not None
        assert self._nspawn.wait(120) == _REBOOT, self.log.read_text(errors="replace")[-2000:]
        self.boot()

    def remove(self) -> None:
        """Turn it off, and leave nothing of it."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            # Its first process: the others end with it.
            if self._leader:
                with suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)
            else:
                self._nspawn.kill()
            self._nspawn.wait(60)
        _run("ip", "netns", "delete", self._name, check=False)
        for mounted in (self._disk, self.root):
            _run("umount", str(mounted), check=False)
        with suppress(OSError):
            Path("/run/systemd/nspawn/propagate", self._name).rmdir()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_root(self) -> None:
        # Only what changes is written down, on top of the image.
        layers = [self._folder / name for name in ("changes", "work")]
        for folder in (*layers, self.root):
            folder.mkdir()
        options = f"lowerdir={image()},upperdir={layers[0]},workdir={layers[1]}"
        _run("mount", "-t", "overlay", "-o", options, "overlay", str(self.root))
        (self.root / "etc/hostname").write_text(f"{self.HOSTNAME}\n")

    def _make_disk(self, size: int) -> None:
        # In memory, and of this host, so that it outlives a reboot of the machine.
        inside = (self.root / self.REDIS.lstrip("/")).stat()
        options = f"size={size},mode={inside.st_mode & 0o7777:o}"
        options += f",uid={inside.st_uid},gid={inside.st_gid}"
        self._disk.mkdir()
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._disk))

    def _make_network(self) -> None:
        # Not nspawn's own, so that it, too, outlives a reboot.
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
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        return subprocess.run(
            ["nsenter", "--target", str(self._leader), *namespaces, "--", *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
            env=_ENVIRONMENT,
        )  # fmt: skip


def _run(*command: str, check: bool = True) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and ended.returncode:
        raise AssertionError(f"{shlex.join(command)}: {ended.stderr}")
