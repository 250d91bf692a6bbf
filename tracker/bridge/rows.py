"""Rows of the collections ``commands`` and ``devices``, and what they mean here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker.bridge.schema import DEFAULT_EXPIRY, PENDING, ROUTED
from tracker.command import BadCommand, Command, Outcome, Reason, Status
from tracker.position import iso_milliseconds

#: The reason of a command that was routed to nobody as yet.
WAITING: Final = "waiting"

#: The fields of a command's row that are read.
COMMAND_FIELDS: Final = (
    *("id", "imei", "text", "codec", "status", "expires_at", "timeout", "date_created"),
)
DEVICE_FIELDS: Final = ("imei", "model", "enabled")

#: Characters of an instance's name that a row has room for.
LONGEST_INSTANCE: Final = 255

#: Status → those that it may follow. So one that comes late never overwrites a later one.
_MAY_FOLLOW: Final = {
    ROUTED: [PENDING],
    Status.DELIVERED.value: [PENDING, ROUTED],
}
_UNFINISHED: Final = [PENDING, ROUTED, Status.DELIVERED.value]


def command_in(row: Mapping[str, Any]) -> Command:
    """The command of a row.

    :raises BadCommand: when a field makes no sense; in one line, for the row.
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


def malformed(error: Exception) -> Outcome:
    """What is said of a row that is refused."""
    return Outcome.failed(Reason.MALFORMED, f"{error}; nothing was sent: create it anew")


def too_late(command: Command) -> Outcome:
    """What is said of a command whose time is over before anybody has it."""
    moment = iso_milliseconds(command.expires_at)
    return Outcome(
        Status.EXPIRED,
        response=f"expires_at: {moment} was over before it could be sent; "
        "create it anew with more time",
    )


def _in_words_of_a_row(complaint: str) -> str:
    """The same, with the names that the fields have there."""
    for name, ours in {"device_id": "imei", "payload": "text", "command_id": "id"}.items():
        complaint = complaint.replace(name, ours, 1)
    return complaint


def may_be_followed_by(status: str) -> list[str]:
    """The statuses that this one may follow."""
    return _MAY_FOLLOW.get(status, _UNFINISHED)


def is_unfinished(status: str) -> bool:
    """Whether another status may follow this one."""
    return status in _UNFINISHED


def fields_of(outcome: Outcome, instance_id: str, at: str) -> dict[str, Any]:
    """What a row is told of what has become of its command.

    :param at: a time as :func:`moment_of` has it.
    """
    fields: dict[str, Any] = {"status": outcome.status.value}
    if instance_id:
        fields["instance"] = _text(instance_id)[:LONGEST_INSTANCE]
    if outcome.status is Status.DELIVERED:
        return fields | {"delivered_at": at, "reason": None}
    return fields | {
        "reason": _text(outcome.reason) or None,
        "response": _text(outcome.response) or None,
        "finished_at": at,
    }


def moment_of(text: str) -> str | None:
    """A time as every database takes it, with an offset; None for what is no time."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        return None


def _text(text: str) -> str:
    """Without what PostgreSQL takes in no text: NUL."""
    return text.replace("\0", "\\x00")


def _default_expiry(created: Any) -> str:
    try:
        begin = datetime.fromisoformat(str(created))
        return (begin + timedelta(seconds=DEFAULT_EXPIRY)).isoformat()
    except (ValueError, OverflowError):
        raise BadCommand("expires_at: is missing, and date_created is no time") from None
