"""The texts that the bridge writes into rows; no other test holds their wording."""

from __future__ import annotations

from tracker.bridge.overdue import LOST
from tracker.bridge.rows import expired_unsent, malformed
from tracker.command import BadCommand, Command, Status

COMMAND = Command.checked("c1", "356307042441013", "getinfo", "2026-11-22T10:00:00Z")


def test_malformed_command_fails_with_the_reason_in_its_response() -> None:
    update = malformed(BadCommand("text: must be 1 to 4096 bytes long"))
    assert (update.status, update.reason) == (Status.FAILED, "malformed")
    assert update.response == (
        "text: must be 1 to 4096 bytes long. The command was not sent; create a corrected one."
    )


def test_command_that_expires_unsent_has_an_explanation_in_its_response() -> None:
    update = expired_unsent(COMMAND)
    assert (update.status, update.reason) == (Status.EXPIRED, "")
    assert update.response == (
        "expires_at: the command expired at 2026-11-22T10:00:00.000Z, before it could be sent. "
        "Create a new one with a later expiry."
    )


def test_command_that_redis_has_lost_has_an_explanation_in_its_response() -> None:
    assert (LOST.status, LOST.reason) == (Status.FAILED, "in_doubt")
    assert LOST.response == (
        "Redis has lost the status of this command; the device may have executed it. "
        "Check the state of the device, and create a new command if needed."
    )
