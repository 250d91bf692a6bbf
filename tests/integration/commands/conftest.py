"""The ledger of commands on a real server."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tracker.commands.ledger import CommandLedger


@pytest.fixture
def ledger(connected: Connected, clock: Clock) -> CommandLedger:
    """The ledger as instance ``one`` uses it."""
    return CommandLedger(clock, connected.connection, "one")
