"""A device on a connection, as the tests of the protocol need it."""

from __future__ import annotations

import pytest

from tests.unit.vendors.teltonika.conversation import LOGIN, Conversation, frame
from tests.unit.vendors.teltonika.turns import ACK, LIMITS


@pytest.fixture
def talk() -> Conversation:
    """A connection on which nothing has come."""
    return Conversation(LIMITS)


@pytest.fixture
def online(talk: Conversation) -> Conversation:
    """It has logged in, and nothing more yet."""
    talk.send(LOGIN)
    assert talk.answer() == b"\x01"
    return talk


@pytest.fixture
def settled(online: Conversation) -> Conversation:
    """A packet was confirmed and acknowledged."""
    online.send(frame(1))
    online.confirm()
    assert online.answer() == ACK
    return online
