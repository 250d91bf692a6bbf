"""Fixtures of the tests of the ledger on a real Redis."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tracker.commands.ledger import CommandLedger


@pytest.fixture
def ledger(connected: Connected, clock: Clock) -> CommandLedger:
    """Return the ledger of instance ``one``."""
    return CommandLedger(clock, connected.connection, "one")
