"""The server of our own: how it is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracker.net.endpoints import MAX_SOCKET_PATH
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
def test_it_is_durable_evicts_nothing_and_is_no_ones_but_ours(option: str, value: str) -> None:
    arguments = server_arguments(Path("/data"))
    assert arguments[arguments.index(option) + 1] == value


def test_a_path_that_is_too_long_for_a_socket_is_told() -> None:
    longest = Path("/" + "d" * (MAX_SOCKET_PATH - len("//redis.sock")))
    assert len(socket_address(longest).path) == MAX_SOCKET_PATH
    with pytest.raises(ValueError, match="too long"):
        socket_address(Path(f"{longest}d"))
