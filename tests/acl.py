"""A Redis server with the redis.conf of ops/redis and one user per role."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import valkey

from tests.servers import RedisServer
from tracker.redis.address import RedisAddress
from tracker.redis.embedded import find_server
from tracker.redis.rights import grants

OPS: Final = Path(__file__).parents[1] / "ops" / "redis"
ROLES: Final = tuple(grants())


class AclRedisServer(RedisServer):
    """A server with the users of the roles, and the user ``test`` with all permissions."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        subprocess.run(
            [OPS / "make-users", folder, f"127.0.0.1:{self.port}/0"], check=True, timeout=60
        )
        self.users = folder / "users.acl"
        with self.users.open("a") as users:
            users.write("user test on >test ~* &* +@all\n")
        self._file = folder / "server.conf"
        self._file.write_text(
            f"include {OPS / 'redis.conf'}\n"
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\naclfile {self.users}\n"
        )
        self.client: Any = valkey.Valkey(
            port=self.port, username="test", password="test", retry=None
        )

    def _command(self) -> list[str]:
        return [find_server(), str(self._file)]

    def url_file(self, role: str) -> Path:
        """Return the path of the file with a role's URL."""
        return self.folder / f"{role}.redis-url"

    def url_of(self, role: str) -> str:
        """Return the URL with which a role logs in."""
        return self.url_file(role).read_text().strip()

    def client_as(self, role: str) -> Any:
        """Return a client that is logged in as a role."""
        address = RedisAddress.from_url(self.url_of(role))
        return valkey.Valkey(
            port=self.port, username=address.username, password=address.password, retry=None
        )

    def denied(self) -> list[tuple[str, str, str]]:
        """Return user, reason and object of each refusal since the start."""
        return [
            (entry["username"], entry["reason"], entry["object"]) for entry in self.client.acl_log()
        ]
