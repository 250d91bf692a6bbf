"""Rows of the collections ``commands`` and ``devices``, and what they mean here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker.bridge.schema import PENDING, ROUTED
from tracker.command import BadCommand, Command, Outcome, Status

#: The reason of a command that was routed to nobody as yet.
WAITING: Final = "waiting"

#: The fields of a command's row that are read.
COMMAND_FIELDS: Final = (
    *("id", "imei", "text", "codec", "status", "expires_at", "timeout", "date_created"),
)
DEVICE_FIELDS: Final = ("imei", "model", "enabled")

#: Seconds for which a command holds whose row does not say when it expires.
DEFAULT_EXPIRY: Final = 3600.0

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
    expires_at = row.get("expires_at") or _default_expiry(row.get("date_created"))
    timeout = row.get("timeout")
    texts = {name: row.get(name) or "" for name in ("imei", "text", "codec")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BadCommand(f"{name} is no text")
    return Command.checked(
        str(row["id"]),
        texts["imei"].strip(),
        texts["text"],
        str(expires_at),
        texts["codec"],
        "" if timeout is None else str(timeout),
    )


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
    except ValueError:
        raise BadCommand("expires_at is missing, and date_created is no time") from None
    return (begin + timedelta(seconds=DEFAULT_EXPIRY)).isoformat()
