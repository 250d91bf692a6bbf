"""Options and socket of the embedded server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracker.net.socketpaths import MAX_SOCKET_PATH
from tracker.redis.embedded import server_arguments, socket_address


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--appendonly", "yes"),
        ("--appendfsync", "always"),
        ("--no-appendfsync-on-rewrite", "no"),
        ("--maxmemory-policy", "noeviction"),
        ("--port", "0"),
        ("--unixsocketperm", "700"),
    ],
)
def test_server_is_durable_private_and_never_evicts(option: str, value: str) -> None:
    arguments = server_arguments(Path("/data"))
    assert arguments[arguments.index(option) + 1] == value


def test_folder_with_too_long_path_is_refused() -> None:
    longest = Path("/" + "d" * (MAX_SOCKET_PATH - len("//redis.sock")))
    assert len(socket_address(longest).path) == MAX_SOCKET_PATH
    with pytest.raises(ValueError, match="too long"):
        socket_address(Path(f"{longest}d"))
