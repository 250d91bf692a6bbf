"""The folders of control sockets: which one an instance uses, and what a client trusts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from tracker.control.sockets import FoundSockets, NoFolder, SocketFolders

UID = os.geteuid()
#: A user that is neither root nor the user of the tests.
OTHER = 12_345


@pytest.fixture
def folders(tmp_path: Path) -> SocketFolders:
    """Provide folders of a user on a machine without any, in a temporary one."""
    (tmp_path / "tmp").mkdir()
    return SocketFolders(
        {"TRACKER_DATA": str(tmp_path / "data")},
        uid=UID or OTHER,
        system=tmp_path / "run/tracker",
        sessions=tmp_path / "sessions",
        temporary=tmp_path / "tmp",
        service_data=tmp_path / "service",
    )


@pytest.fixture
def own(folders: SocketFolders) -> SocketFolders:
    """Provide the same folders for the user of the tests, who may be root."""
    return evolve(folders, uid=UID)


@pytest.fixture
def served() -> Iterator[list[socket.socket]]:
    """Provide a list of sockets, which are closed at the end."""
    sockets: list[socket.socket] = []
    yield sockets
    for one in sockets:
        one.close()


def serve(path: Path, served: list[socket.socket]) -> Path:
    """Listen on a socket."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    listening = socket.socket(socket.AF_UNIX)
    served.append(listening)
    listening.bind(os.fspath(path))
    listening.listen()
    return path


def reason_for(folders: SocketFolders) -> str:
    """Return the reason why the only folder is not usable."""
    with pytest.raises(NoFolder) as raised:
        folders.prepare("s.sock")
    return str(raised.value)


def test_first_usable_folder_holds_the_socket(own: SocketFolders, tmp_path: Path) -> None:
    runtime, session = tmp_path / "runtime", tmp_path / "session"
    for folder in (runtime, session, own.system.parent):
        folder.mkdir(mode=0o700)
    private = own.temporary / f"tracker-{UID}"
    unset = evolve(own, system=own.temporary / "missing/tracker")
    assert unset.prepare("s.sock") == private / "s.sock"
    given = {"XDG_RUNTIME_DIR": str(session)}
    assert evolve(unset, environ=given).prepare("s.sock") == session / "tracker/s.sock"
    own.system.mkdir()
    assert evolve(own, environ=given).prepare("s.sock") == own.system / "s.sock"
    given["RUNTIME_DIRECTORY"] = f"{runtime}:{tmp_path}/second"
    assert evolve(own, environ=given).prepare("s.sock") == runtime / "s.sock"
    for folder in (private, session / "tracker"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_root_creates_the_system_folder(folders: SocketFolders) -> None:
    folders.system.parent.mkdir()
    assert evolve(folders, uid=0).prepare("s.sock") == folders.system / "s.sock"
    assert folders.system.stat().st_mode & 0o007 == 0


def test_folder_whose_path_is_too_long_is_passed_over(own: SocketFolders, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    folders = evolve(
        own, environ={"RUNTIME_DIRECTORY": str(long)}, system=own.temporary / "missing/tracker"
    )
    assert folders.prepare("s.sock") == own.temporary / f"tracker-{UID}/s.sock"
    assert "107 bytes" in reason_for(evolve(folders, temporary=long))


@pytest.mark.parametrize("kind", ["link", "file", "open"])
def test_private_folder_that_another_user_could_control_is_refused(
    own: SocketFolders, tmp_path: Path, kind: str
) -> None:
    private = own.temporary / f"tracker-{UID}"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        private.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        private.touch()
    else:
        private.mkdir()
        private.chmod(0o770)
    reason = reason_for(evolve(own, system=own.temporary / "missing/tracker"))
    assert str(private) in reason
    assert ("0770" in reason) == (kind == "open")
    assert os.listdir(tmp_path / "elsewhere" if kind == "link" else own.temporary) in (
        *([], [private.name]),
    )


def test_private_folder_of_another_user_is_refused(folders: SocketFolders) -> None:
    # The folder belongs to the user of the tests, who is another one here.
    others = evolve(folders, uid=OTHER)
    (others.temporary / f"tracker-{OTHER}").mkdir(mode=0o700)
    assert "belongs to" in reason_for(others)


def test_session_folder_of_another_user_stays_untouched(
    folders: SocketFolders, tmp_path: Path
) -> None:
    session = tmp_path / "session"
    session.mkdir()
    (folders.temporary / f"tracker-{OTHER}").touch()
    assert str(session) in reason_for(
        evolve(folders, uid=OTHER, environ={"XDG_RUNTIME_DIR": str(session)})
    )
    assert not list(session.iterdir())


def test_shared_folder_that_every_user_may_write_to_is_refused(own: SocketFolders) -> None:
    own.system.mkdir(parents=True)
    own.system.chmod(0o777)
    assert own.prepare("s.sock").parent == own.temporary / f"tracker-{UID}"


def test_client_finds_the_sockets_of_all_folders(
    own: SocketFolders, tmp_path: Path, served: list[socket.socket]
) -> None:
    paths = [
        tmp_path / "runtime/a.sock",
        own.system / "control-b.sock",
        tmp_path / "session/tracker/c.sock",
        own.temporary / f"tracker-{UID}/d.sock",
        own.sessions / f"{UID}/tracker/e.sock",
        tmp_path / "data/control.sock",
        own.service_data / "control.sock",
    ]
    for path in paths:
        serve(path, served)
    serve(tmp_path / "data/redis.sock", served)
    (own.system / "no.sock").touch()
    (own.system / "link.sock").symlink_to(paths[0])
    environ = {
        **own.environ,
        "RUNTIME_DIRECTORY": str(tmp_path / "runtime"),
        "XDG_RUNTIME_DIR": str(tmp_path / "session"),
    }
    assert evolve(own, environ=environ).search() == FoundSockets(paths, [])


def test_client_finds_a_socket_once(own: SocketFolders, served: list[socket.socket]) -> None:
    path = serve(own.system / "control-a.sock", served)
    environ = {**own.environ, "RUNTIME_DIRECTORY": str(own.system)}
    assert evolve(own, environ=environ).search().served == [path]


def test_client_finds_the_standalone_process_of_its_folder(
    own: SocketFolders, tmp_path: Path, served: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = serve(tmp_path / "tracker-data/control.sock", served)
    monkeypatch.chdir(tmp_path)
    assert evolve(own, environ={}).search().served == [path]


def test_client_skips_a_socket_that_no_process_serves(
    own: SocketFolders, served: list[socket.socket]
) -> None:
    dead = serve(own.system / "dead.sock", served)
    served.pop().close()
    alive = serve(own.system / "live.sock", served)
    found = own.search()
    assert found.served == [alive]
    assert found.unusable == [f"{dead}: no process listens on it"]


@pytest.mark.skipif(UID != 0, reason="only root can give files away")
@pytest.mark.parametrize("hostile", ["folder", "socket", "link", "open folder"])
def test_client_ignores_a_socket_that_another_user_could_control(
    folders: SocketFolders, served: list[socket.socket], hostile: str
) -> None:
    user = evolve(folders, uid=OTHER)
    path = serve(user.temporary / f"tracker-{OTHER}/control-a.sock", served)
    for one in (path, path.parent):
        os.chown(one, OTHER, OTHER)
    assert user.search() == FoundSockets([path], [])
    match hostile:
        case "folder":
            os.chown(path.parent, OTHER + 1, OTHER)
        case "socket":
            os.chown(path, OTHER + 1, OTHER)
        case "link":
            path.parent.rename(user.temporary / "moved")
            path.parent.symlink_to(user.temporary / "moved")
            os.lchown(path.parent, OTHER + 1, OTHER)
        case "open folder":
            path.parent.chmod(0o777)
    found = user.search()
    assert not found.served
    assert len(found.unusable) == 1
    assert "ignored" in found.unusable[0]


def test_search_without_any_folder_finds_nothing(own: SocketFolders) -> None:
    assert own.search() == FoundSockets()


@pytest.mark.skipif(UID == 0, reason="root may read every folder")
def test_folder_without_access_is_reported_with_its_owner(own: SocketFolders) -> None:
    own.system.mkdir(parents=True)
    own.system.chmod(0)
    (reason,) = own.search().unusable
    assert "permission denied (user " in reason
    own.system.chmod(0o700)
