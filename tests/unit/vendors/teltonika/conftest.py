"""Fixtures: a device on a connection, at several stages."""

from __future__ import annotations

import pytest

from tests.unit.vendors.teltonika.conversation import LOGIN, Conversation, frame
from tests.unit.vendors.teltonika.pending import ACK, LIMITS


@pytest.fixture
def talk() -> Conversation:
    """Return a connection that has received nothing."""
    return Conversation(LIMITS)


@pytest.fixture
def online(talk: Conversation) -> Conversation:
    """Return the connection of a device that has logged in, and has sent nothing else."""
    talk.send(LOGIN)
    assert talk.received() == b"\x01"
    return talk


@pytest.fixture
def settled(online: Conversation) -> Conversation:
    """Return the connection of a device that has received the ACK of a packet."""
    online.send(frame(1))
    online.confirm()
    assert online.received() == ACK
    return online
