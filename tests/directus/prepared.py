"""A Directus that ``tracker-admin directus setup`` has prepared."""

from __future__ import annotations

from pathlib import Path

import psycopg
from attrs import frozen

from tests.directus.server import DirectusServer
from tests.system.processes import run
from tests.unit.bridge.double import BRIDGE_TOKEN

#: Seconds for a response of Directus, and for a command with many requests, on a busy machine.
RESPONSE_TIMEOUT = 60
SETUP_TIMEOUT = 300


@frozen
class Prepared:
    """A prepared Directus, and the files of its tokens and of the secret."""

    server: DirectusServer
    token_file: Path
    secret_file: Path
    bridge_token_file: Path
    setup_output: str
    """The output of the first setup."""

    def options(self) -> list[str]:
        """Return the options of the setup."""
        return [
            *("--url", self.server.url, "--token-file", str(self.token_file)),
            *("--secret-file", str(self.secret_file)),
            *("--bridge-token-file", str(self.bridge_token_file)),
        ]

    def wipe(self) -> None:
        """Delete all commands and devices."""
        with psycopg.connect(self.server.database_url, autocommit=True) as connection:
            connection.execute("DELETE FROM commands")
            connection.execute("DELETE FROM devices")


def prepare(server: DirectusServer, folder: Path, *options: str) -> Prepared:
    """Run the setup, as an operator does."""
    token_file = folder / "admin"
    token_file.write_text(f"{server.TOKEN}\n")
    bridge_token_file = folder / "bridge"
    bridge_token_file.write_text(f"{BRIDGE_TOKEN}\n")
    prepared = Prepared(server, token_file, folder / "secret", bridge_token_file, "")
    ended = run(
        *("tracker-admin", "directus", "setup", *prepared.options(), *options),
        timeout=SETUP_TIMEOUT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Prepared(server, token_file, folder / "secret", bridge_token_file, ended.stdout)


def add_user(server: DirectusServer, token: str, *policies: str) -> str:
    """Add a user with a static token and some policies, and return its id."""
    made = server.data("POST", "/users", {"first_name": token[:40], "token": token})
    for policy in policies:
        server.data("POST", "/access", {"user": made["id"], "policy": policy})
    user: str = made["id"]
    return user


def point_flows_at(directus: Prepared, port: int) -> None:
    """Let the Flows post to a bridge on this machine."""
    ended = run(
        *("tracker-admin", "directus", "setup", *directus.options()),
        *("--bridge-url", f"http://127.0.0.1:{port}/commands"),
        timeout=SETUP_TIMEOUT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
