"""A console on a socket that it inherits."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from twisted.internet.endpoints import AdoptedStreamServerEndpoint

from tracker.config import ConfigError
from tracker.tap import console

NAME = "--console systemd:domain=INET:name=console"


@pytest.mark.parametrize(("address", "served"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_inherited_socket_is_served_only_on_loopback(
    address: str, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind((address, 0))
        endpoint = AdoptedStreamServerEndpoint(None, held.fileno(), socket.AF_INET)
        monkeypatch.setattr(console, "endpoint_of", lambda reactor, name, description: endpoint)
        reactor: Any = None
        if served:
            assert console.console_endpoint(reactor, NAME, NAME.split()[1]) == (endpoint, True)
        else:
            with pytest.raises(ConfigError, match="not encrypted"):
                console.console_endpoint(reactor, NAME, NAME.split()[1])
        assert os.fstat(held.fileno())  # the socket is still open
