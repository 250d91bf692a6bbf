"""Conversion between rows of the collection ``commands`` and commands and responses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker.bridge.schema import DEFAULT_EXPIRY, PENDING, ROUTED
from tracker.command import BadCommand, Command, Reason, Status, StatusUpdate
from tracker.position import iso_milliseconds

#: The reason of a command that was routed to no instance yet.
WAITING: Final = "waiting"

#: The fields of a command's row that are read.
COMMAND_FIELDS: Final = (
    *("id", "imei", "text", "codec", "status", "expires_at", "timeout", "date_created"),
)
DEVICE_FIELDS: Final = ("imei", "model", "enabled")

#: Characters of an instance's name that a row has room for.
LONGEST_INSTANCE: Final = 255

#: Status → statuses that it may follow, so that a late one never overwrites a later one.
_MAY_FOLLOW: Final = {
    ROUTED: [PENDING],
    Status.DELIVERED.value: [PENDING, ROUTED],
}
_UNFINISHED: Final = [PENDING, ROUTED, Status.DELIVERED.value]


def command_in(row: Mapping[str, Any]) -> Command:
    """Return the command of a row.

    :raises BadCommand: if a field is malformed; in one line, for the row.
    """
    timeout = row.get("timeout")
    texts = {name: row.get(name) or "" for name in ("imei", "text", "codec")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BadCommand(f"{name}: is no text")
    try:
        return Command.checked(
            str(row["id"]),
            texts["imei"].strip(),
            texts["text"],
            str(row.get("expires_at") or _default_expiry(row.get("date_created"))),
            codec=texts["codec"].strip(),
            timeout="" if timeout is None else str(timeout),
        )
    except BadCommand as error:
        raise BadCommand(_in_words_of_a_row(str(error))) from None


def malformed(error: Exception) -> StatusUpdate:
    """Return the final response to a row that is malformed."""
    return StatusUpdate.failed(Reason.MALFORMED, f"{error}; nothing was sent: create it anew")


def too_late(command: Command) -> StatusUpdate:
    """Return the final response to a command that has expired before it was sent."""
    moment = iso_milliseconds(command.expires_at)
    return StatusUpdate(
        Status.EXPIRED,
        response=f"expires_at: {moment} was over before it could be sent; "
        "create it anew with more time",
    )


def _in_words_of_a_row(complaint: str) -> str:
    """Return a complaint with the field names of the row."""
    for name, ours in {"device_id": "imei", "payload": "text", "command_id": "id"}.items():
        complaint = complaint.replace(name, ours, 1)
    return complaint


def may_be_followed_by(status: str) -> list[str]:
    """Return the statuses that this one may follow."""
    return _MAY_FOLLOW.get(status, _UNFINISHED)


def is_unfinished(status: str) -> bool:
    """Return whether another status may follow this one."""
    return status in _UNFINISHED


def fields_of(update: StatusUpdate, instance_id: str, at: str) -> dict[str, Any]:
    """Return the fields of a row that report a response.

    :param at: a time as :func:`moment_of` has it.
    """
    fields: dict[str, Any] = {"status": update.status.value}
    if instance_id:
        fields["instance"] = _text(instance_id)[:LONGEST_INSTANCE]
    if update.status is Status.DELIVERED:
        return fields | {"delivered_at": at, "reason": None}
    return fields | {
        "reason": _text(update.reason) or None,
        "response": _text(update.response) or None,
        "finished_at": at,
    }


def moment_of(text: str) -> str | None:
    """Return a time, with offset, as every database takes it; None if it is not a time."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        return None


def _text(text: str) -> str:
    """Remove NUL, which PostgreSQL does not store in a text."""
    return text.replace("\0", "\\x00")


def _default_expiry(created: Any) -> str:
    try:
        begin = datetime.fromisoformat(str(created))
        return (begin + timedelta(seconds=DEFAULT_EXPIRY)).isoformat()
    except (ValueError, OverflowError):
        raise BadCommand("expires_at: is missing, and date_created is no time") from None
