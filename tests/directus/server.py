"""A real Directus for tests, from the npm registry, with a database on PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.directus.installation import installed, node
from tests.process import OwnProcess
from tests.servers import PostgresServer, free_port
from tests.waiting import wait_for

#: A deny list of Directus that allows Flows to connect to its own machine.
LOCAL_ALLOWED: Final = "169.254.169.254"


def ask(
    url: str, method: str, path: str, body: Any, token: str | None, timeout: float = 60
) -> tuple[int, Any]:
    """Send a request to a Directus, and return status and body of the response.

    :return: the status, and the parsed JSON, or text if it is not JSON, or None without a body.
    :raises OSError: if no response arrives.
    """
    request = urllib.request.Request(url + path, method=method)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            status, content = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    try:
        return status, json.loads(content) if content else None
    except ValueError:
        return status, content.decode()


class DirectusServer(OwnProcess):
    """A Directus that can be killed and restarted with its data.

    :param folder: the folder of its log and its files.
    :param postgres: a running server, which gets a database for it; by default it has a server of
        its own, which is removed with it.
    :param template: a database to copy, of a Directus that does not run.
    :param variables: environment variables.
    """

    EMAIL: Final = "admin@example.com"
    PASSWORD: Final = "known-to-the-tests"
    TOKEN: Final = "the-token-of-the-first-administrator"

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer | None = None,
        template: str | None = None,
        **variables: str,
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.variables = variables
        """Environment variables; changes take effect at the next start."""
        self.log = folder / "directus.log"
        self.database = f"directus_{self.port}"
        self.postgres = postgres or PostgresServer()
        self._owns_postgres = postgres is None
        self._folder = folder
        self._template = template
        self._made = False

    def start(self, wait: bool = True) -> None:
        """Start Directus, and wait until it responds unless ``wait`` is False."""
        program = installed()
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._made:
            self.make_database()
        self._launch(
            self.log,
            *self._command(program, "start"),
            cwd=self._folder,
            env=self._environment(program),
        )
        if wait:
            wait_for(self.is_up, f"Directus responds; see {self.log}", timeout=300)

    def make_database(self) -> None:
        """Create its database, with the system tables and the first administrator."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._owns_postgres:
            self.postgres.start()
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            template = f" TEMPLATE {self._template}" if self._template else ""
            connection.execute(f"CREATE DATABASE {self.database}{template}")
        if not self._template:
            self._bootstrap()
        self._made = True

    def _bootstrap(self) -> None:
        program = installed()
        with self.log.open("ab") as log:
            done = subprocess.run(
                self._command(program, "bootstrap"),
                cwd=self._folder,
                env=self._environment(program),
                stdout=log,
                stderr=log,
                check=False,
            )
        assert done.returncode == 0, f"directus bootstrap: see {self.log}"

    @property
    def database_url(self) -> str:
        """URL of its database."""
        return self.postgres.url_of(self.database)

    def is_up(self) -> bool:
        """Return True if Directus responds."""
        ended = self._process is not None and self._process.poll() is not None
        assert not ended, f"Directus has ended; see {self.log}"
        try:
            status, _ = self.ask("GET", "/server/ping", token=None)
        except OSError:
            return False
        return status == 200

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = TOKEN
    ) -> tuple[int, Any]:
        """Send a request as the administrator, or with another token; see :func:`ask`."""
        return ask(self.url, method, path, body, token)

    def data(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request as the administrator, which must succeed, and return its ``data``."""
        status, response = self.ask(method, path, body)
        assert 200 <= status < 300, (method, path, status, response)
        return response["data"] if response else None

    def remove(self) -> None:
        """Kill it, and remove its data."""
        self.kill()
        if self._owns_postgres:
            self.postgres.remove()
        elif self._made:
            with psycopg.connect(self.postgres.url, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {self.database} WITH (FORCE)")

    def _command(self, program: Path, verb: str) -> list[str]:
        return [str(node(program)), str(program / "node_modules" / "directus" / "cli.js"), verb]

    def _environment(self, program: Path) -> dict[str, str]:
        return {
            "PATH": f"{node(program).parent}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PUBLIC_URL": self.url,
            "DB_CLIENT": "pg",
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(self.postgres.port),
            "DB_DATABASE": self.database,
            "DB_USER": self.postgres.USER,
            "DB_PASSWORD": self.postgres.PASSWORD,
            "SECRET": "only-for-tests",
            "ADMIN_EMAIL": self.EMAIL,
            "ADMIN_PASSWORD": self.PASSWORD,
            "ADMIN_TOKEN": self.TOKEN,
            "TELEMETRY": "false",
            "CACHE_ENABLED": "false",
            # Otherwise it refuses requests while the machine is busy.
            "PRESSURE_LIMITER_ENABLED": "false",
            **self.variables,
        }
