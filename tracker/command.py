"""A command to a device, and what becomes of it, as both stand in Redis.

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

#: Seconds that an answer is waited for, unless the command says otherwise.
DEFAULT_TIMEOUT: Final = 30.0
#: Seconds that it may say.
LONGEST_TIMEOUT: Final = 86_400.0
#: Bytes of a command's text (UTF-8).
LONGEST_TEXT: Final = 4096
#: Bytes of a device's answer that its response holds.
MAX_RESPONSE_BYTES: Final = 8192
#: Fields of an entry, known or not: a script can pass on no more than some thousands.
MOST_FIELDS: Final = 100

_COMMAND_ID: Final = re.compile(r"[!-~]{1,64}")
_DEVICE_ID: Final = re.compile(r"[0-9]{15}")
_CODEC: Final = re.compile(r"[0-9A-Za-z_.-]{0,16}")
#: What ISO 8601 writes times with; Python would overlook what follows a NUL.
_TIME: Final = re.compile(r"[0-9TtWZ:.,+ -]+")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BadCommand(ValueError):
    """An entry that is no command; the text says what is wrong with it, in one line."""


class Status(StrEnum):
    """What is said of a command. The first one is not final; then comes exactly one other."""

    DELIVERED = "delivered"
    """Its bytes were written to the device's connection."""
    RESPONDED = "responded"
    """The device has answered."""
    REJECTED = "rejected"
    """The device has answered that the command is not for it."""
    FAILED = "failed"
    """The reason says why."""
    EXPIRED = "expired"
    """It was not written in time, and never will be."""


class Reason(StrEnum):
    """Why a command has failed."""

    OFFLINE = "offline"
    """The device was not connected, and nobody wanted to wait for it."""
    DISCONNECTED = "disconnected"
    """The connection was lost after the command was written, and before an answer."""
    TIMEOUT = "timeout"
    """No answer came in time."""
    IN_DOUBT = "in_doubt"
    """The process died while it wrote the command, or waited for the answer."""
    MALFORMED = "malformed"
    """The entry is no command; or it cannot be written in the codec that it asks for."""


@frozen
class Command:
    """A command to one device."""

    command_id: str
    """Up to 64 printable ASCII characters, without spaces."""
    device_id: str
    """The IMEI: 15 digits."""
    text: str
    """What the device is told: 1 to :data:`LONGEST_TEXT` bytes of UTF-8."""
    expires_at: int
    """Milliseconds since 1970 (UTC); from then on it is not written any more."""
    codec: str = ""
    """The vendor's name of the codec; empty: the vendor's usual one."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds that the answer is waited for."""

    @classmethod
    def from_entry(cls, content: Sequence[bytes]) -> Command:
        """Read a stream entry; fields that it does not know are left alone.

        :param content: names and values in turn; the last one where a name occurs twice.
        :raises BadCommand: when one is missing or makes no sense.
        """
        if len(content) > 2 * MOST_FIELDS:
            raise BadCommand(f"more than {MOST_FIELDS} fields")
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
            texts["codec"],
            texts["timeout"],
        )

    @classmethod
    def checked(
        cls,
        command_id: str,
        device_id: str,
        text: str,
        expires_at: str,
        codec: str = "",
        timeout: str = "",
    ) -> Command:
        """A command of what somebody has written.

        :param expires_at: ISO 8601, with an offset or Z.
        :param timeout: seconds; empty: the default.
        :raises BadCommand: when something of it makes no sense.
        """
        if not _COMMAND_ID.fullmatch(command_id):
            raise BadCommand("command_id: must be 1 to 64 printable ASCII characters, no spaces")
        if not _DEVICE_ID.fullmatch(device_id):
            raise BadCommand("device_id: must be an IMEI of 15 digits")
        try:
            length = len(text.encode())
        except UnicodeEncodeError:  # bytes of a command line that are no text
            raise BadCommand("payload is not UTF-8") from None
        if not 0 < length <= LONGEST_TEXT:
            raise BadCommand(f"payload: must be 1 to {LONGEST_TEXT} bytes long")
        if not _CODEC.fullmatch(codec):
            raise BadCommand("codec: must be the short name of one")
        return cls(command_id, device_id, text, _milliseconds(expires_at), codec, _timeout(timeout))

    def to_fields(self) -> tuple[str, ...]:
        """Names and values in turn, as the stream entry has them."""
        return (
            *("command_id", self.command_id, "device_id", self.device_id, "payload", self.text),
            *("codec", self.codec, "expires_at", iso_milliseconds(self.expires_at)),
            *("timeout", f"{self.timeout:.10g}"),
        )


@frozen
class CommandFrame:
    """A command as it goes to the device."""

    codec: str
    """The vendor's name of its codec; the answer is of the same one."""
    data: bytes


@frozen
class Answer:
    """What a device has said that may be the answer to a command."""

    codec: str
    text: str
    refused: bool = False
    """The device says that the command is not for it."""


@frozen
class Outcome:
    """What has become of a command."""

    status: Status
    reason: str = ""
    """A :class:`Reason`, with ``failed``."""
    response: str = ""
    """The device's answer; or in words what is wrong, where that helps."""

    @classmethod
    def failed(cls, reason: Reason, response: str = "") -> Outcome:
        """It has failed."""
        return cls(Status.FAILED, reason.value, response)


DELIVERED: Final = Outcome(Status.DELIVERED)
EXPIRED: Final = Outcome(Status.EXPIRED)


@frozen
class Response:
    """An entry of ``commands:responses``."""

    command_id: str
    device_id: str
    instance_id: str
    """Of the instance (or the janitor) that says so."""
    outcome: Outcome
    at: str
    """ISO 8601 UTC."""

    @property
    def final(self) -> bool:
        """Whether nothing more follows."""
        return self.outcome.status is not Status.DELIVERED

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Response:
        """Read the fields of an entry.

        :raises ValueError: when its status is none.
        """
        texts = {
            name.decode(errors="replace"): value.decode(errors="replace")
            for name, value in fields.items()
        }
        try:
            status = Status(texts.get("status", ""))
        except ValueError:
            raise ValueError(f"status: {shown(texts.get('status', ''))} is not one") from None
        outcome = Outcome(status, texts.get("reason", ""), texts.get("response", ""))
        return cls(
            texts.get("command_id", ""),
            texts.get("device_id", ""),
            texts.get("instance_id", ""),
            outcome,
            texts.get("at", ""),
        )


def is_device_id(text: str) -> bool:
    """Whether this may be the id of a device: an IMEI."""
    return _DEVICE_ID.fullmatch(text) is not None


def claimed_identity(fields: Mapping[bytes, bytes]) -> tuple[str, str]:
    """Command id and device of what may be no command; each empty unless it is usable."""
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
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise BadCommand(f"timeout: must be seconds, up to {LONGEST_TIMEOUT:g}")
    return seconds
