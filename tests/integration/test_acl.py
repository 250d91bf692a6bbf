"""What the user of each role may do, and that it may do nothing else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey

from tests.guarded import OPS, ROLES, GuardedServer
from tests.servers import free_port
from tracker.redis.embedded import find_server
from tracker.redis.rights import commands

#: What no role may do: look around, change the server or its users, remove or read all there is.
NOBODY = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("CONFIG", "SET", "appendonly", "no"),
    ("ACL", "SETUSER", "x", "on"),
    ("ACL", "LIST"),
    ("SHUTDOWN",),
    ("MONITOR",),
    ("REPLICAOF", "NO", "ONE"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"),
    ("BGREWRITEAOF",),
    ("PUBLISH", "a", "b"),
    ("SUBSCRIBE", "a"),
    ("SET", "elsewhere", "a"),
    ("GET", "elsewhere"),
    ("DEL", "telemetry:teltonika"),
    ("UNLINK", "commands:responses"),
    ("DEL", "connections:registry"),
    ("XGROUP", "DESTROY", "telemetry:teltonika", "processor"),
    ("XADD", "elsewhere", "*", "a", "b"),
    ("EVAL", "return 1", "1", "elsewhere"),
    ("EVAL", "return redis.call('GET', 'elsewhere')", "0"),
    ("EVAL", "return redis.call('DEL', 'telemetry:teltonika')", "0"),
    ("MOVE", "telemetry:teltonika", "1"),
    ("RESTORE", "telemetry:x", "0", "x"),
)

#: What Redis says, of a command and of what a script does.
REFUSAL = re.compile(r"permission|The user executing the script can't")

#: What others may. A role has the rights in users.acl; this is what must never be among them.
NOT: dict[str, tuple[tuple[str, ...], ...]] = {
    "ingest": (
        ("XREADGROUP", "GROUP", "processor", "x", "STREAMS", "telemetry:teltonika", ">"),
        ("XACK", "telemetry:teltonika", "processor", "0-1"),
        ("XTRIM", "telemetry:teltonika", "MAXLEN", "0"),
        ("XDEL", "telemetry:teltonika", "0-1"),
        ("XGROUP", "CREATE", "telemetry:teltonika", "x", "0"),
        ("SADD", "devices:allowed", "356307042441013"),
        ("HGETALL", "devices:models"),
        ("XREADGROUP", "GROUP", "directus", "x", "STREAMS", "commands:responses", ">"),
        ("CONFIG", "GET", "dir"),
        ("INFO",),
    ),
    "process": (
        ("XADD", "telemetry:teltonika", "*", "a", "b"),
        ("XTRIM", "telemetry:teltonika", "MAXLEN", "0"),
        ("XDEL", "telemetry:teltonika", "0-1"),
        ("XADD", "commands:outbound:one", "*", "a", "b"),
        ("XRANGE", "commands:responses", "-", "+"),
        ("HGET", "connections:registry", "a"),
        ("SET", "instance:heartbeat:one", "a"),
        ("SMEMBERS", "devices:allowed"),
        ("CONFIG", "GET", "dir"),
    ),
    "janitor": (
        ("XADD", "telemetry:teltonika", "*", "a", "b"),
        ("XREADGROUP", "GROUP", "processor", "x", "STREAMS", "telemetry:teltonika", ">"),
        ("XACK", "telemetry:teltonika", "processor", "0-1"),
        ("SET", "instance:heartbeat:one", "a"),
        ("HSET", "connections:registry", "a", "b"),
        ("SADD", "devices:allowed", "a"),
        ("CONFIG", "GET", "dir"),
    ),
    "bridge": (
        ("XADD", "telemetry:teltonika", "*", "a", "b"),
        ("XRANGE", "telemetry:teltonika", "-", "+"),
        ("XADD", "commands:outbound:one", "*", "a", "b"),
        ("XADD", "commands:responses", "*", "a", "b"),
        ("XDEL", "commands:responses", "0-1"),
        ("SET", "commands:sent:a", "b"),
        ("HGETALL", "connections:registry"),
        ("SET", "instance:heartbeat:one", "a"),
        ("CONFIG", "GET", "dir"),
        ("INFO",),
    ),
    "console": (
        ("XADD", "telemetry:teltonika", "*", "a", "b"),
        ("XADD", "commands:outbound:one", "*", "a", "b"),
        ("XREADGROUP", "GROUP", "processor", "x", "STREAMS", "telemetry:teltonika", ">"),
        ("XACK", "telemetry:teltonika", "processor", "0-1"),
        ("XDEL", "telemetry:teltonika:dead", "0-1"),
        ("SADD", "devices:allowed", "a"),
        ("HSET", "connections:registry", "a", "b"),
        ("DEL", "instance:heartbeat:one"),
        ("EVAL", "return redis.call('XDEL', KEYS[1], '0-1')", "1", "telemetry:teltonika"),
        ("CONFIG", "GET", "dir"),
    ),
    "admin": (
        ("XTRIM", "telemetry:teltonika", "MAXLEN", "0"),
        ("XACK", "telemetry:teltonika", "processor", "0-1"),
        ("XADD", "commands:outbound:one", "*", "a", "b"),
        ("SET", "instance:heartbeat:one", "a"),
        ("HSET", "connections:registry", "a", "b"),
        ("SADD", "devices:allowed", "a"),
        ("EVAL", "return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)", "1", "telemetry:teltonika"),
    ),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    server = GuardedServer(tmp_path_factory.mktemp("guarded"))
    server.start()
    server.client.xgroup_create("telemetry:teltonika", "processor", mkstream=True)
    server.client.xgroup_create("commands:responses", "directus", mkstream=True)
    yield server
    server.kill()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_refused_what_is_not_its_own(guarded: GuardedServer, role: str) -> None:
    before = guarded.client.dbsize()
    for command in (*NOBODY, *NOT[role]):
        # A connection each: who may MONITOR or SUBSCRIBE would get something else next.
        with pytest.raises(valkey.ResponseError) as refused:
            guarded.as_role(role).execute_command(*command)
        assert REFUSAL.search(str(refused.value)), (command, refused.value)
    assert guarded.client.dbsize() == before


@pytest.mark.parametrize("role", ROLES)
def test_the_server_grants_what_the_file_lists(guarded: GuardedServer, role: str) -> None:
    for command in commands(role, ["telemetry:teltonika"]):
        answer = guarded.client.execute_command("ACL", "DRYRUN", f"tracker-{role}", *command)
        assert answer in (True, b"OK"), command


def test_nobody_gets_in_without_a_password_or_with_that_of_another(
    guarded: GuardedServer,
) -> None:
    with pytest.raises(valkey.AuthenticationError):
        valkey.Valkey(port=guarded.port).ping()
    for role in ROLES:
        for password in ("", role, "tracker", f"@{role}@"):
            with pytest.raises(valkey.AuthenticationError):
                guarded.client.__class__(
                    port=guarded.port, username=f"tracker-{role}", password=password, retry=None
                ).execute_command("AUTH", f"tracker-{role}", password)
        assert guarded.as_role(role).ping()


def test_the_file_as_it_is_shipped_lets_no_server_start(tmp_path: Path) -> None:
    ended = subprocess.run(
        [find_server(), "--port", str(free_port()), "--aclfile", str(OPS / "users.acl")],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "ACL" in ended.stdout


def test_each_making_of_users_makes_other_passwords(tmp_path: Path) -> None:
    made = []
    for name in ("first", "second"):
        subprocess.run([OPS / "make-users", tmp_path / name], check=True, timeout=60)
        made.append({path.name: path.read_text() for path in (tmp_path / name).iterdir()})
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / name).iterdir()} == {0o600}
    urls = [text for files in made for name, text in files.items() if name != "users.acl"]
    assert len(urls) == len(set(urls)) == 2 * len(ROLES)
    for files in made:
        assert set(files) == {"users.acl", *(f"{role}.redis-url" for role in ROLES)}
        assert len(re.findall(r"#[0-9a-f]{64} ", files["users.acl"])) == len(ROLES)
        assert "#@" not in files["users.acl"]
        for role in ROLES:
            url = files[f"{role}.redis-url"]
            assert re.fullmatch(rf"redis://tracker-{role}:[0-9a-f]{{64}}@127.0.0.1:6379/0\n", url)


def test_a_restart_brings_back_all_that_was_confirmed(tmp_path: Path) -> None:
    # The server reads its log with the rights of its default user: what that one may not do is
    # left out without a word. Scripts, and reading as a group, stand there as transactions.
    server = GuardedServer(tmp_path / "redis")
    server.start()
    try:
        ingest, process = server.as_role("ingest"), server.as_role("process")
        append = "for i = 1, 3 do redis.call('XADD', KEYS[1], '*', 'a', i) end"
        for _ in range(10):
            ingest.eval(append, 1, "telemetry:teltonika")
        process.xgroup_create("telemetry:teltonika", "processor", "0")
        process.xreadgroup("processor", "one", {"telemetry:teltonika": ">"}, count=20)

        def state() -> list[object]:
            client = server.client
            (group,) = client.xinfo_groups("telemetry:teltonika")
            return [
                client.xrange("telemetry:teltonika"),
                group["last-delivered-id"],
                client.xpending("telemetry:teltonika", "processor"),
            ]

        before = state()
        assert len(before[0]) == 30  # type: ignore[arg-type]
        server.kill()
        server.start()
        assert state() == before
        assert server.denied() == []
        with pytest.raises(valkey.AuthenticationError):
            valkey.Valkey(port=server.port, retry=None).ping()
        for password in ("", "default"):
            with pytest.raises(valkey.AuthenticationError):
                valkey.Valkey(port=server.port, retry=None).execute_command(
                    "AUTH", "default", password
                )
    finally:
        server.kill()
