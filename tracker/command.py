"""A command to a device, and the responses to it, as both stand in Redis.

The fields of ``commands:outbound:*`` and ``commands:responses`` are a contract with
programs in other languages; they change only by addition.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from attrs import frozen

from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.untrusted import shown

#: Seconds to wait for an answer, unless the command has a timeout of its own.
DEFAULT_TIMEOUT: Final = 30.0
#: Maximal timeout of a command, in seconds.
MAX_TIMEOUT: Final = 86_400.0
#: Bytes of a command's text (UTF-8).
MAX_TEXT_BYTES: Final = 4096
#: Bytes of a device's answer that its response holds.
MAX_RESPONSE_BYTES: Final = 8192
#: Fields of an entry, known or not: a script can pass on no more than some thousands.
MAX_FIELDS: Final = 100

_COMMAND_ID: Final = re.compile(r"[!-~]{1,64}")
_DEVICE_ID: Final = re.compile(r"[0-9]{15}")
_CODEC: Final = re.compile(r"[0-9A-Za-z_.-]{0,16}")
#: Characters of a time in ISO 8601; Python would ignore what follows a NUL.
_TIME: Final = re.compile(r"[0-9TtWZ:.,+ -]+")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BadCommand(ValueError):
    """An entry that is not a command; the text gives the reason in one line."""


class Status(StrEnum):
    """The status of a response. ``delivered`` is not final; each command gets one final status."""

    DELIVERED = "delivered"
    """Its bytes were written to the device's connection."""
    RESPONDED = "responded"
    """The device has answered."""
    REJECTED = "rejected"
    """The device has answered that the command is not for it."""
    FAILED = "failed"
    """See its :class:`Reason`."""
    EXPIRED = "expired"
    """It was not written in time, and never will be."""


class Reason(StrEnum):
    """The reason why a command has failed."""

    OFFLINE = "offline"
    """The device was not connected, and commands do not wait."""
    DISCONNECTED = "disconnected"
    """The connection was lost after the command was written, and before an answer."""
    TIMEOUT = "timeout"
    """No answer came in time."""
    IN_DOUBT = "in_doubt"
    """The process died while it wrote the command, or waited for the answer."""
    MALFORMED = "malformed"
    """The entry is not a command, or cannot be written in the codec that it asks for."""


@frozen
class Command:
    """A command to one device."""

    command_id: str
    """Up to 64 printable ASCII characters, without spaces."""
    device_id: str
    """The IMEI: 15 digits."""
    text: str
    """The text for the device: 1 to :data:`MAX_TEXT_BYTES` bytes of UTF-8."""
    expires_at: int
    """Milliseconds since 1970 (UTC) from which on it is not written."""
    codec: str = ""
    """The vendor's name of the codec; empty: the vendor's usual one."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds to wait for the answer."""

    @classmethod
    def from_entry(cls, content: Sequence[bytes]) -> Command:
        """Return the command in a stream entry; unknown fields are ignored.

        :param content: names and values in turn; the last one where a name occurs twice.
        :raises BadCommand: if a field is missing or invalid.
        """
        if len(content) > 2 * MAX_FIELDS:
            raise BadCommand(f"more than {MAX_FIELDS} fields")
        if len(content) % 2:
            raise BadCommand("a name without a value")
        fields = dict(zip(content[::2], content[1::2], strict=True))
        texts = {}
        for name in ("command_id", "device_id", "payload", "codec", "expires_at", "timeout"):
            try:
                texts[name] = fields.get(name.encode(), b"").decode()
            except UnicodeDecodeError:
                raise BadCommand(f"{name} is not UTF-8") from None
        return cls.checked(
            texts["command_id"],
            texts["device_id"],
            texts["payload"],
            texts["expires_at"],
            codec=texts["codec"],
            timeout=texts["timeout"],
        )

    @classmethod
    def checked(
        cls,
        command_id: str,
        device_id: str,
        text: str,
        expires_at: str,
        *,
        codec: str = "",
        timeout: str = "",
    ) -> Command:
        """Return a command from texts that are not trusted.

        :param expires_at: ISO 8601, with an offset or Z.
        :param timeout: seconds; empty: the default.
        :raises BadCommand: if one of them is invalid.
        """
        if not _COMMAND_ID.fullmatch(command_id):
            raise BadCommand("command_id: must be 1 to 64 printable ASCII characters, no spaces")
        if not _DEVICE_ID.fullmatch(device_id):
            raise BadCommand("device_id: must be an IMEI of 15 digits")
        try:
            length = len(text.encode())
        except UnicodeEncodeError:  # bytes of a command line that are no text
            raise BadCommand("payload is not UTF-8") from None
        if not 0 < length <= MAX_TEXT_BYTES:
            raise BadCommand(f"payload: must be 1 to {MAX_TEXT_BYTES} bytes long")
        if not _CODEC.fullmatch(codec):
            raise BadCommand("codec: must be the short name of one")
        return cls(command_id, device_id, text, _milliseconds(expires_at), codec, _timeout(timeout))

    def to_fields(self) -> tuple[str, ...]:
        """Return names and values in turn, as in a stream entry."""
        return (
            *("command_id", self.command_id, "device_id", self.device_id, "payload", self.text),
            *("codec", self.codec, "expires_at", iso_milliseconds(self.expires_at)),
            *("timeout", f"{self.timeout:.10g}"),
        )


@frozen
class CommandFrame:
    """The bytes of a command."""

    codec: str
    """The vendor's name of its codec; the answer has the same."""
    data: bytes


@frozen
class Answer:
    """A text of a device that may be the answer to a command."""

    codec: str
    text: str
    refused: bool = False
    """True if the device answers that the command is not for it."""


@frozen
class StatusUpdate:
    """A status with its reason or answer."""

    status: Status
    reason: str = ""
    """A :class:`Reason`, with ``failed``."""
    response: str = ""
    """The device's answer; or an explanation of the reason."""

    @classmethod
    def failed(cls, reason: Reason, response: str = "") -> StatusUpdate:
        """Return a failure."""
        return cls(Status.FAILED, reason.value, response)


DELIVERED: Final = StatusUpdate(Status.DELIVERED)
EXPIRED: Final = StatusUpdate(Status.EXPIRED)


@frozen
class Response:
    """An entry of ``commands:responses``."""

    command_id: str
    device_id: str
    instance_id: str
    """ID of the instance that gave the response, or the janitor's name."""
    update: StatusUpdate
    at: str
    """ISO 8601 UTC."""

    @property
    def final(self) -> bool:
        """True if no other response follows."""
        return self.update.status is not Status.DELIVERED

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Response:
        """Return the response in the fields of an entry.

        :raises ValueError: if the status is unknown.
        """
        texts = {
            name.decode(errors="replace"): value.decode(errors="replace")
            for name, value in fields.items()
        }
        try:
            status = Status(texts.get("status", ""))
        except ValueError:
            raise ValueError(f"status: {shown(texts.get('status', ''))} is not one") from None
        update = StatusUpdate(status, texts.get("reason", ""), texts.get("response", ""))
        return cls(
            texts.get("command_id", ""),
            texts.get("device_id", ""),
            texts.get("instance_id", ""),
            update,
            texts.get("at", ""),
        )


def is_device_id(text: str) -> bool:
    """Return True if this may be the ID of a device: an IMEI."""
    return _DEVICE_ID.fullmatch(text) is not None


def claimed_identity(fields: Mapping[bytes, bytes]) -> tuple[str, str]:
    """Return command ID and device ID of an entry that may be invalid; empty if not usable."""
    command_id = fields.get(b"command_id", b"").decode(errors="replace")
    device_id = fields.get(b"device_id", b"").decode(errors="replace")
    return (
        command_id if _COMMAND_ID.fullmatch(command_id) else "",
        device_id if _DEVICE_ID.fullmatch(device_id) else "",
    )


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or not _TIME.fullmatch(text):
            raise ValueError(text)
    except ValueError:
        raise BadCommand(
            "expires_at: must be like 2026-11-22T10:00:00Z, with Z or an offset"
        ) from None
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)  # exact: no floats
    if not 0 <= milliseconds <= MAX_TIMESTAMP_MS:
        raise BadCommand("expires_at: must be between the years 1970 and 9999")
    return milliseconds


def _timeout(text: str) -> float:
    if not text:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT:
        raise BadCommand(f"timeout: must be seconds, up to {MAX_TIMEOUT:g}")
    return seconds
