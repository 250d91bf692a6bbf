"""The Directus server of these tests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.directus.server import DirectusServer


def test_directus_server_of_the_tests_keeps_its_data_after_a_kill(tmp_path: Path) -> None:
    server = DirectusServer(tmp_path / "directus")
    try:
        server.start()
        status, answer = server.ask("GET", "/users/me?fields=email")
        assert (status, answer) == (200, {"data": {"email": server.EMAIL}})
        assert server.ask("GET", "/users/me", token="another")[0] == 401
        server.data("PATCH", "/users/me", {"title": "kept"})
        server.kill()
        with pytest.raises(OSError, match="refused"):
            server.ask("GET", "/server/ping")
        before = time.monotonic()
        server.start()
        assert time.monotonic() - before < 60
        assert server.data("GET", "/users/me?fields=title") == {"title": "kept"}
        server.stop()
        server.postgres.kill()
        server.postgres.start()
        server.start()
        assert server.data("GET", "/users/me?fields=title") == {"title": "kept"}
    finally:
        server.remove()
