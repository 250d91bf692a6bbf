"""A Unix socket that can be bound again after a crash.

A killed process leaves the file of its socket behind, and the next process cannot bind it.
Twisted's own solution (a lock that names a process id) fails where process ids repeat, as in
containers: the new process has the id of the dead one. Here the kernel holds the lock, and
releases it when the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.net.socketpaths import connect_error_number
from tracker.reactor import Reactor

_BACKLOG: Final = 50


@implementer(IStreamServerEndpoint)
@frozen
class UnixEndpoint:
    """A Unix socket with a mode. An empty file ``PATH.lock`` stays beside it."""

    reactor: Reactor
    path: Path
    mode: int

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint.

        Fails with CannotListenError if another process listens on the path, or the path is not a
        socket.
        """
        bound: Deferred[IListeningPort] = execute(self._open, factory)
        return bound

    def _open(self, factory: IProtocolFactory) -> Any:
        lock = self._lock()
        try:
            self._remove_stale_socket()
            port = LockedUnixPort(self.reactor, self.path, factory, mode=self.mode, lock=lock)
            port.startListening()
        except BaseException:
            os.close(lock)
            raise
        return port

    def _lock(self) -> int:
        lock = None
        try:
            name = self.path.with_name(f"{self.path.name}.lock")
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if lock is not None:
                os.close(lock)
            if error.errno == errno.EWOULDBLOCK:
                raise self._cannot("another process listens on this socket") from None
            raise self._cannot(error) from None
        return lock

    def _remove_stale_socket(self) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._cannot(error) from None
        if not stat.S_ISSOCK(found.st_mode):
            raise self._cannot(f"{self.path} exists and is not a socket; remove it")
        result = connect_error_number(self.path)
        # A full backlog (EAGAIN) still means a live listener.
        if result in (0, errno.EAGAIN, errno.EPROTOTYPE):
            raise self._cannot("another process listens on this socket")
        if result not in (errno.ECONNREFUSED, errno.ENOENT):
            raise self._cannot(OSError(result, os.strerror(result)))
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot(error) from None

    def _cannot(self, reason: object) -> CannotListenError:
        return CannotListenError(None, str(self.path), reason)


class LockedUnixPort(unix.Port):
    """Removes the file of its socket at the end, unless that was removed or replaced.

    Twisted's class removes any file at the path, and leaves the socket open if the file is gone.
    """

    def __init__(
        self, reactor: Reactor, path: Path, factory: IProtocolFactory, *, mode: int, lock: int
    ) -> None:
        super().__init__(os.fsencode(path), factory, _BACKLOG, mode, reactor)
        self._path = path
        self._lock: int | None = lock
        self._own: tuple[int, int] | None = None

    def startListening(self) -> None:
        """See IListeningPort."""
        super().startListening()
        self._own = self._file_id()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket, and release the lock."""
        if self._own is not None and self.is_reachable:
            with suppress(OSError):  # the next start removes it
                self._path.unlink()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
        tcp.Port.connectionLost(self, reason)

    @property
    def is_reachable(self) -> bool:
        """False if the file of the socket was removed or replaced, so that no client finds it."""
        return self._own is None or self._file_id() == self._own

    def _file_id(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
