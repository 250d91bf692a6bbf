"""Convert rows of the collection ``commands`` into commands, and responses into rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker.bridge.schema import DEFAULT_EXPIRY, PENDING, ROUTED
from tracker.command import BadCommand, Command, Reason, Status, StatusUpdate
from tracker.position import iso_milliseconds
from tracker.vendors.installed import checked_device_id

#: The sender of all commands of rows.
SENDER: Final = "Directus"
#: The reason of a routed command that waits for its device to connect.
WAITING: Final = "waiting"

#: The fields of a command's row that the bridge reads.
COMMAND_FIELDS: Final = (
    *("id", "imei", "text", "hex", "codec", "status", "expires_at", "timeout", "date_created"),
)
DEVICE_FIELDS: Final = ("imei", "model", "vendor", "enabled")

#: Maximum length of an instance's name in a row, in characters.
MAX_INSTANCE_LENGTH: Final = 255

#: Status → statuses that it may replace, so that a late update never sets a status back.
_MAY_FOLLOW: Final = {
    ROUTED: [PENDING],
    Status.DELIVERED.value: [PENDING, ROUTED],
}
#: Name of a command's field → name of the row's field.
_ROW_FIELDS: Final = {
    "device_id": "imei",
    "payload_hex": "hex",
    "payload": "text",
    "command_id": "id",
}
_UNFINISHED: Final = [PENDING, ROUTED, Status.DELIVERED.value]


def command_from_row(row: Mapping[str, Any]) -> Command:
    """Return the command of a row.

    :raises BadCommand: if a field is malformed; the message names the row's field.
    """
    timeout = row.get("timeout")
    texts = {name: row.get(name) or "" for name in ("imei", "text", "hex", "codec")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BadCommand(f"{name}: must be text")
    try:
        device_id = checked_device_id(texts["imei"].strip())
    except ValueError as error:
        raise BadCommand(f"imei: {error}") from None
    try:
        return Command.checked(
            str(row["id"]),
            device_id,
            texts["text"],
            str(row.get("expires_at") or _default_expiry(row.get("date_created"))),
            codec=texts["codec"].strip(),
            timeout="" if timeout is None else str(timeout),
            payload_hex=texts["hex"].strip(),
        )
    except BadCommand as error:
        raise BadCommand(_with_row_field_names(str(error))) from None


def device_of(row: Mapping[str, Any]) -> str:
    """Return the device ID of a row; the text as it is if no vendor has such IDs."""
    text = str(row.get("imei") or "").strip()
    try:
        return checked_device_id(text)
    except ValueError:
        return text


def malformed(error: Exception) -> StatusUpdate:
    """Return the final status of a malformed command."""
    return StatusUpdate.failed(
        Reason.MALFORMED, f"{error}. The command was not sent; create a corrected one."
    )


def expired_unsent(command: Command) -> StatusUpdate:
    """Return the final status of a command that expired before it was sent."""
    expiry = iso_milliseconds(command.expires_at)
    return StatusUpdate(
        Status.EXPIRED,
        response=f"expires_at: the command expired at {expiry}, before it could be sent. "
        "Create a new one with a later expiry.",
    )


def _with_row_field_names(text: str) -> str:
    for name, field in _ROW_FIELDS.items():
        text = text.replace(name, field, 1)
    return text


def predecessors_of(status: str) -> list[str]:
    """Return the statuses that this one may replace."""
    return _MAY_FOLLOW.get(status, _UNFINISHED)


def is_unfinished(status: str) -> bool:
    """Return True if another status may replace this one."""
    return status in _UNFINISHED


def fields_of(update: StatusUpdate, instance_id: str, at: str) -> dict[str, Any]:
    """Return the fields of a row for a status.

    :param instance_id: the instance that had the command, or "".
    :param at: time of the status, in the form of :func:`timestamp_of`.
    """
    fields: dict[str, Any] = {"status": update.status.value}
    if instance_id:
        fields["instance"] = _text(instance_id)[:MAX_INSTANCE_LENGTH]
    if update.status is Status.DELIVERED:
        return fields | {"delivered_at": at, "reason": None}
    return fields | {
        "reason": _text(update.reason) or None,
        "response": _text(update.response) or None,
        "finished_at": at,
    }


def timestamp_of(text: str) -> str | None:
    """Return an ISO 8601 time with an offset, which every database accepts; None if malformed."""
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        return None


def _text(text: str) -> str:
    """Escape NUL, which PostgreSQL cannot store in a text."""
    return text.replace("\0", "\\x00")


def _default_expiry(created: Any) -> str:
    try:
        start = datetime.fromisoformat(str(created))
        return (start + timedelta(seconds=DEFAULT_EXPIRY)).isoformat()
    except (ValueError, OverflowError):
        raise BadCommand("expires_at: must be set, because date_created is not a time") from None
