"""Permissions of the roles' Redis users: sufficient, and nothing else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey

from tests.acl import OPS, ROLES, AclRedisServer
from tests.admin import admin
from tests.servers import REDIS_70, VALKEY, RedisServer, free_port
from tests.system.processes import environment
from tracker.redis.embedded import find_server
from tracker.redis.rights import commands

#: Commands that no role may run.
FORBIDDEN = (
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

#: Errors of Redis about a command, and about a command in a script.
NO_PERMISSION = re.compile(r"permission|The user executing the script can't")

#: Role → commands that only other roles may run, which users.acl must never permit to it.
FORBIDDEN_TO: dict[str, tuple[tuple[str, ...], ...]] = {
    "ingest": (
        ("XREADGROUP", "GROUP", "processor", "x", "STREAMS", "telemetry:teltonika", ">"),
        ("XACK", "telemetry:teltonika", "processor", "0-1"),
        ("XTRIM", "telemetry:teltonika", "MAXLEN", "0"),
        ("XDEL", "telemetry:teltonika", "0-1"),
        ("XGROUP", "CREATE", "telemetry:teltonika", "x", "0"),
        ("SADD", "devices:allowed", "356307042441013"),
        ("HSET", "devices:vendors", "356307042441013", "teltonika"),
        ("HGETALL", "devices:models"),
        ("XREADGROUP", "GROUP", "directus", "x", "STREAMS", "commands:responses", ">"),
        ("CONFIG", "GET", "dir"),
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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AclRedisServer]:
    server = AclRedisServer(tmp_path_factory.mktemp("server"))
    server.start()
    server.client.xgroup_create("telemetry:teltonika", "processor", mkstream=True)
    server.client.xgroup_create("commands:responses", "directus", mkstream=True)
    yield server
    server.kill()


@pytest.mark.parametrize("role", ROLES)
def test_role_has_only_the_listed_permissions(server: AclRedisServer, role: str) -> None:
    before = server.client.dbsize()
    for command in (*FORBIDDEN, *FORBIDDEN_TO[role]):
        # Each command has its own connection, since MONITOR or SUBSCRIBE would change its mode.
        with pytest.raises(valkey.ResponseError) as refused:
            server.client_as(role).execute_command(*command)
        assert NO_PERMISSION.search(str(refused.value)), (command, refused.value)
    assert server.client.dbsize() == before


@pytest.mark.parametrize("role", ROLES)
def test_server_grants_all_listed_permissions(server: AclRedisServer, role: str) -> None:
    for command in commands(role, ["telemetry:teltonika"]):
        reply = server.client.execute_command("ACL", "DRYRUN", f"tracker-{role}", *command)
        assert reply in (True, b"OK"), command


@pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])
@pytest.mark.parametrize("right", ["-xinfo|groups", "-evalsha", "%W~*"])
def test_exit_code_says_that_rights_are_missing(redis: RedisServer, right: str) -> None:
    redis.client.xgroup_create("telemetry:teltonika", "processor", mkstream=True)
    keys = () if right.startswith("-") else ("resetkeys",)
    redis.client.execute_command("ACL", "SETUSER", "weak", "on", ">x", "~*", "+@all", *keys, right)
    url = f"redis://weak:x@127.0.0.1:{redis.port}/0"
    assert admin("lag", env=environment(REDIS_URL=url)).returncode == 4


def test_login_requires_the_password_of_the_user(
    server: AclRedisServer,
) -> None:
    with pytest.raises(valkey.AuthenticationError):
        valkey.Valkey(port=server.port).ping()
    for role in ROLES:
        for password in ("", role, "tracker", f"@{role}@"):
            with pytest.raises(valkey.AuthenticationError):
                server.client.__class__(
                    port=server.port, username=f"tracker-{role}", password=password, retry=None
                ).execute_command("AUTH", f"tracker-{role}", password)
        assert server.client_as(role).ping()


def test_server_refuses_to_start_with_the_template_of_users(tmp_path: Path) -> None:
    ended = subprocess.run(
        [find_server(), "--port", str(free_port()), "--aclfile", str(OPS / "users.acl")],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "ACL" in ended.stdout


def test_make_users_generates_new_passwords_each_time(tmp_path: Path) -> None:
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


def test_restart_with_our_users_restores_all_confirmed_writes(tmp_path: Path) -> None:
    # The server replays its append-only file with the permissions of the user "default", and
    # skips forbidden commands silently. Scripts and XREADGROUP are in the file as transactions.
    server = AclRedisServer(tmp_path / "redis")
    server.start()
    try:
        ingest, process = server.client_as("ingest"), server.client_as("process")
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
