"""The status of a command, as the control port sends it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from attrs import evolve

from tracker.command import (
    MAX_RECORDED_BYTES,
    BadCommand,
    Command,
    Recorded,
    Response,
    StatusUpdate,
)
from tracker.control.commands import MAX_NAME, MAX_TEXT, QUEUED, WAITING, brief
from tracker.log.entries import StreamEntry
from tracker.position import iso_milliseconds


def queued_fields(command_id: str, owner: str, entry: StreamEntry) -> dict[str, Any]:
    """Return the status of a command that no instance has claimed.

    :param owner: the instance whose stream has the entry; empty if the command waits.
    """
    expires_at = None
    with suppress(BadCommand):  # its instance or a janitor ends it as malformed
        expires_at = iso_milliseconds(Command.from_entry(entry.content or ()).expires_at)
    return {
        "command_id": command_id,
        "instance_id": brief(owner, MAX_NAME) or None,
        "status": QUEUED if owner else WAITING,
        "expires_at": expires_at,
        **recorded_fields(Recorded.from_fields(entry.fields)),
    }


def recorded_fields(recorded: Recorded | None) -> dict[str, Any]:
    """Return text, sender and time of a command; nothing if they are unknown."""
    if recorded is None:
        return {}
    return {
        "text": brief(recorded.text, MAX_RECORDED_BYTES) or None,
        "sender": brief(recorded.sender, MAX_NAME) or None,
        "sent_at": recorded.sent_at or None,
    }


def response_fields(command_id: str, response: Response) -> dict[str, Any]:
    """Return the final status of a command."""
    update = _cut(response.update)
    return {
        "command_id": command_id,
        "instance_id": brief(response.instance_id, MAX_NAME) or None,
        "status": update.status.value,
        "reason": brief(update.reason) or None,
        "response": update.response or None,
        "truncated": update is not response.update,
        "at": brief(response.at, MAX_NAME) or None,
        **recorded_fields(response.recorded),
    }


def _cut(update: StatusUpdate) -> StatusUpdate:
    if len(update.response) <= MAX_TEXT:
        return update
    return evolve(update, response=update.response[:MAX_TEXT])
