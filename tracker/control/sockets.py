"""The folders of control sockets on this machine, in which instances create and clients find them.

The folders are, in this order: ``$RUNTIME_DIRECTORY``, which systemd sets; ``/run/tracker``;
``$XDG_RUNTIME_DIR/tracker``; ``/tmp/tracker-UID``. Everyone can create files in ``/tmp``. An
instance therefore uses a folder of its own only if no other user has rights to it, and a client
uses a socket only if it trusts the owners of the socket and of the folder: a hostile process
behind a socket would receive the commands for devices, and could invent the replies.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from tracker.config import data_folder
from tracker.net.socketpaths import MAX_SOCKET_PATH, connect_error_number
from tracker.untrusted import shown

SYSTEM_FOLDER: Final = Path("/run/tracker")
#: The data folder of a standalone process that ``tracker-admin`` finds wherever it is called.
SERVICE_DATA: Final = Path("/var/lib/tracker")
#: The user that runs the roles as services; clients trust its sockets.
SERVICE_USER: Final = "tracker"
#: The name of the socket in the data folder of a standalone process.
STANDALONE_SOCKET: Final = "control.sock"

#: Maximum number of sockets of a folder that a client examines.
MAX_SOCKETS: Final = 100

_ROOT: Final = 0
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class NoFolder(Exception):
    """No folder can hold a control socket; the message gives the reason for each."""


@frozen
class FoundSockets:
    """The result of a search for control sockets."""

    served: list[Path] = field(factory=list)
    """Sockets on which a process listens."""
    unusable: list[str] = field(factory=list)
    """Sockets and folders that cannot be used, each with the reason, for messages."""


@frozen
class SocketFolders:
    """The folders of control sockets of one user.

    :param environ: environment of the process.
    :param uid: the user.
    """

    environ: Mapping[str, str] = field(factory=lambda: os.environ)
    uid: int = field(factory=os.geteuid)
    system: Path = SYSTEM_FOLDER
    sessions: Path = Path("/run/user")
    temporary: Path = Path("/tmp")  # noqa: S108 - used only after checks of owner and mode
    service_data: Path = SERVICE_DATA

    def prepare(self, name: str) -> Path:
        """Return the path for a new socket in the first usable folder, which is created if missing.

        :param name: name of the socket.
        :raises NoFolder: if no folder is usable.
        """
        reasons = []
        for folder, is_own in self._folders():
            path = folder / name
            try:
                if len(os.fsencode(path)) > MAX_SOCKET_PATH:
                    raise NoFolder(f"the socket's path would exceed {MAX_SOCKET_PATH} bytes")
                if is_own:
                    self._prepare_own(folder)
                else:
                    self._prepare_shared(folder)
            except NoFolder as error:
                reasons.append(f"{folder}: {error}")
            except OSError as error:
                reasons.append(f"{folder}: {_text(error)}")
            else:
                return path
        raise NoFolder("; ".join(reasons))

    def search(self) -> FoundSockets:
        """Return the control sockets of instances on this machine, and of standalone processes."""
        found = FoundSockets()
        examined: set[Path] = set()
        for folder in self.searched:
            try:
                names = sorted(name for name in os.listdir(folder) if self._may_be(folder, name))
                real = folder.resolve()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                found.unusable.append(f"{folder}: {_text(error)}{_owners(folder)}")
                continue
            if real in examined or not names:
                continue
            examined.add(real)
            if (reason := self._distrust(folder)) is not None:
                found.unusable.append(f"{folder} is ignored: {reason}")
                continue
            for name in names[:MAX_SOCKETS]:
                self._examine(folder / name, found)
        return found

    @property
    def searched(self) -> list[Path]:
        """The folders in which :meth:`search` looks, the first one first."""
        folders = [folder for folder, _ in self._folders()]
        # The client may lack the variable that the instance had, and the other way round.
        session = self.sessions / str(self.uid) / "tracker"
        return list(dict.fromkeys([*folders, session, *self._data_folders()]))

    def _folders(self) -> Iterator[tuple[Path, bool]]:
        """Yield the folders for new sockets, and True for those that the user alone may use."""
        if given := self.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
            yield Path(given).absolute(), False
        yield self.system, False
        if given := self.environ.get("XDG_RUNTIME_DIR", ""):
            yield Path(given).absolute() / "tracker", True
        yield self.temporary / f"tracker-{self.uid}", True

    def _data_folders(self) -> list[Path]:
        return [data_folder(None, self.environ), self.service_data]

    def _may_be(self, folder: Path, name: str) -> bool:
        """Return True if a file may be a control socket, by its name."""
        if folder in self._data_folders():
            return name == STANDALONE_SOCKET  # the folder has the socket of Redis as well
        return name.endswith(".sock")

    def _prepare_shared(self, folder: Path) -> None:
        """Check a folder that the system provides; root creates it if it is missing."""
        if self.uid == _ROOT and folder == self.system:
            folder.mkdir(mode=0o750, exist_ok=True)
        found = folder.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise NoFolder("not a folder")
        if found.st_mode & stat.S_IWOTH:
            raise NoFolder("every user may write to it")
        _check_access(folder)

    def _prepare_own(self, folder: Path) -> None:
        """Create a folder for this user alone, or check the one that exists."""
        if folder.parent != self.temporary and folder.parent.stat().st_uid != self.uid:
            raise NoFolder(f"{folder.parent} belongs to another user")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NoFolder("not a folder")  # a link may lead to the folder of another user
        if found.st_uid != self.uid:
            raise NoFolder(f"it belongs to {_user(found.st_uid)}; remove it")
        if found.st_mode & _OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            raise NoFolder(f"other users have rights to it (mode {mode:04o}); set mode 0700")
        _check_access(folder)

    def _distrust(self, path: Path) -> str | None:
        """Return the reason why a client does not trust what is at a path; None if it does."""
        # The owner of a link decides where it leads.
        for found in (path.lstat(), path.stat()):
            if found.st_uid not in self._trusted():
                return f"it belongs to {_user(found.st_uid)}"
        if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH:
            return "every user may write to it"
        return None

    def _trusted(self) -> set[int]:
        try:
            return {_ROOT, self.uid, pwd.getpwnam(SERVICE_USER).pw_uid}
        except KeyError:
            return {_ROOT, self.uid}

    def _examine(self, path: Path, found: FoundSockets) -> None:
        try:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                return
            reason = self._distrust(path)
        except OSError:
            return  # it was removed meanwhile
        if reason is not None:
            found.unusable.append(f"{path} is ignored: {reason}")
            return
        number = connect_error_number(path)
        # A full backlog (EAGAIN) still means a live listener.
        if number in (0, errno.EAGAIN):
            found.served.append(path)
        elif number == errno.ECONNREFUSED:
            found.unusable.append(f"{path}: no process listens on it")
        elif number != errno.ENOENT:
            found.unusable.append(f"{path}: {os.strerror(number).lower()}{_owners(path)}")


def _check_access(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise NoFolder("not writable")


def _text(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _owners(path: Path) -> str:
    """Return the owner and the group of a file, in brackets, for a message."""
    try:
        found = path.stat()
    except OSError:
        return ""
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f" (user {_user(found.st_uid)}, group {shown(group)})"


def _user(uid: int) -> str:
    try:
        return shown(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)
