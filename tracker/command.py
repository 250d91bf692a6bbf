"""A command to a device, and the responses to it, as stored in Redis.

The fields of ``commands:outbound:*`` and ``commands:responses`` are a contract with programs in
other languages; they change only by addition.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.untrusted import shown

#: Seconds to wait for an answer, unless the command has its own timeout.
DEFAULT_TIMEOUT: Final = 30.0
#: Maximum timeout of a command, in seconds.
MAX_TIMEOUT: Final = 86_400.0
#: Maximum length of a command's text in UTF-8, or of its bytes.
MAX_TEXT_BYTES: Final = 4096
#: Maximum length of a command's bytes in hex, with what stands between the pairs, in characters.
MAX_HEX_LENGTH: Final = 4 * MAX_TEXT_BYTES
#: Maximum length of a device's answer in a response, in bytes.
MAX_RESPONSE_BYTES: Final = 8192
#: Maximum length of a command's text in a response, in bytes; longer texts are cut.
MAX_RECORDED_BYTES: Final = 512
#: Maximum length of the name of a command's sender, in characters; longer names are cut.
MAX_SENDER_LENGTH: Final = 64
#: Maximum length of a device ID, in characters.
MAX_DEVICE_ID_LENGTH: Final = 32
#: Maximum number of fields of an entry, known or not. A Redis script can pass on only a few
#: thousand arguments.
MAX_FIELDS: Final = 100

_COMMAND_ID: Final = re.compile(r"[!-~]{1,64}")
_DEVICE_ID: Final = re.compile(rf"[0-9A-Z]{{1,{MAX_DEVICE_ID_LENGTH}}}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}(?:[: \t\r\n]*[0-9A-Fa-f]{2})*")
_BETWEEN_PAIRS: Final = re.compile(r"[: \t\r\n]+")
_CODEC: Final = re.compile(r"[0-9A-Za-z_.-]{0,16}")
#: Characters of a time in ISO 8601. Python would ignore the characters after a NUL.
_TIME: Final = re.compile(r"[0-9TtWZ:.,+ -]+")
#: The fields of an entry of ``commands:outbound:*``.
_FIELDS: Final = (
    *("command_id", "device_id", "payload", "payload_hex", "codec", "expires_at", "timeout"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BadCommand(ValueError):
    """An entry is not a command; the message gives the reason in one line."""


class Status(StrEnum):
    """The status of a response. ``delivered`` is not final; each command gets one final status."""

    DELIVERED = "delivered"
    """The command was written to the device's connection."""
    RESPONDED = "responded"
    """The device has answered."""
    REJECTED = "rejected"
    """The device has answered that the command is for another device."""
    FAILED = "failed"
    """The command has failed; the response gives the :class:`Reason`."""
    EXPIRED = "expired"
    """The command was not written before its expiry, and never will be."""


class Reason(StrEnum):
    """The reason why a command has failed, or the warning of a device that has answered it."""

    OFFLINE = "offline"
    """The device was not connected, and commands do not wait."""
    DISCONNECTED = "disconnected"
    """The connection was lost after the command was written, and before an answer."""
    TIMEOUT = "timeout"
    """The device did not answer in time."""
    IN_DOUBT = "in_doubt"
    """The process died while it wrote the command or waited for the answer."""
    MALFORMED = "malformed"
    """The entry is not a command, or its codec cannot carry the text."""
    UNKNOWN_COMMAND = "unknown_command"
    """The device has answered that it does not know the command; the status is ``responded``."""


@frozen
class Command:
    """A command to one device."""

    command_id: str
    """Up to 64 printable ASCII characters, without spaces."""
    device_id: str
    """1 to 32 digits and capital letters; its vendor may demand more."""
    text: str
    """The text for the device: 1 to :data:`MAX_TEXT_BYTES` bytes of UTF-8; empty if the command
    has :attr:`raw` bytes."""
    expires_at: int
    """Time of its expiry, in milliseconds since 1970 (UTC); it is not written then or later."""
    codec: str = ""
    """The vendor's name of the codec; empty: the vendor's usual one."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds to wait for the answer."""
    raw: bytes = b""
    """The bytes for the device, if they are given as such: 1 to :data:`MAX_TEXT_BYTES`."""
    sender: str = ""
    """Name of the sender, for people; empty if unknown."""
    sent_at: str = ""
    """Time when the sender sent the command, ISO 8601 UTC; empty if unknown."""

    @property
    def content(self) -> bytes:
        """The bytes for the device."""
        return self.raw or self.text.encode()

    @classmethod
    def from_entry(cls, content: Sequence[bytes]) -> Command:
        """Return the command in a stream entry; unknown fields are ignored.

        :param content: alternating names and values. If a name occurs twice, the last value counts.
        :raises BadCommand: if a field is missing or invalid.
        """
        if len(content) > 2 * MAX_FIELDS:
            raise BadCommand(f"more than {MAX_FIELDS} fields")
        if len(content) % 2:
            raise BadCommand("a name without a value")
        fields = dict(zip(content[::2], content[1::2], strict=True))
        texts = {}
        for name in _FIELDS:
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
            payload_hex=texts["payload_hex"],
            sender=_field(fields, "sender"),
            sent_at=_field(fields, "sent_at"),
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
        payload_hex: str = "",
        sender: str = "",
        sent_at: str = "",
    ) -> Command:
        """Return a command from untrusted texts.

        :param command_id: 1 to 64 printable ASCII characters, without spaces.
        :param device_id: 1 to 32 digits and capital letters.
        :param text: 1 to :data:`MAX_TEXT_BYTES` bytes in UTF-8; empty with ``payload_hex``.
        :param expires_at: time in ISO 8601, with an offset or Z.
        :param codec: the vendor's name of the codec; empty: the vendor's usual one.
        :param timeout: seconds, up to :data:`MAX_TIMEOUT`; empty: :data:`DEFAULT_TIMEOUT`.
        :param payload_hex: bytes instead of a text, see :func:`parse_hex`; empty without them.
        :param sender: any text; it is made printable and cut to :data:`MAX_SENDER_LENGTH`.
        :param sent_at: time in ISO 8601, with an offset or Z; anything else counts as unknown.
        :raises BadCommand: if one of them is invalid.
        """
        if not _COMMAND_ID.fullmatch(command_id):
            raise BadCommand("command_id: must be 1 to 64 printable ASCII characters, no spaces")
        if not _DEVICE_ID.fullmatch(device_id):
            raise BadCommand(
                f"device_id: must be 1 to {MAX_DEVICE_ID_LENGTH} digits and capital letters"
            )
        raw = b""
        if payload_hex:
            if text:
                raise BadCommand("payload and payload_hex: one of them must be empty")
            try:
                raw = parse_hex(payload_hex)
            except ValueError as error:
                raise BadCommand(f"payload_hex: {error}") from None
        else:
            _check_text(text)
        if not _CODEC.fullmatch(codec):
            raise BadCommand("codec: must be at most 16 letters, digits, '.', '_' and '-'")
        return cls(
            command_id,
            device_id,
            text,
            parse_time(expires_at),
            codec,
            _timeout(timeout),
            raw,
            _sender(sender),
            _time_or_empty(sent_at),
        )

    def to_fields(self) -> tuple[str, ...]:
        """Return alternating names and values, as in a stream entry."""
        # Bytes are no payload: programs of earlier versions would send their hex digits as text.
        # Without a payload, they refuse the command.
        content = ("payload_hex", self.raw.hex()) if self.raw else ("payload", self.text)
        return (
            *("command_id", self.command_id, "device_id", self.device_id, *content),
            *("codec", self.codec, "expires_at", iso_milliseconds(self.expires_at)),
            *("timeout", f"{self.timeout:.10g}"),
            *("sender", self.sender, "sent_at", self.sent_at),
        )


@frozen
class CommandFrame:
    """The bytes of a command."""

    codec: str
    """The vendor's name of its codec; the answer has the same."""
    data: bytes = field(repr=False)
    token: str = ""
    """What the device repeats in its answer, so that the answer is matched by it; empty if the
    protocol has nothing of the kind."""
    shown: bytes | None = None
    """The bytes for people to see, if ``data`` contains a secret; None: ``data``."""


@frozen
class Answer:
    """A text from a device that may be the answer to a command."""

    codec: str
    text: str
    refused: bool = False
    """True if the device answers that the command is for another device."""
    unknown: bool = False
    """True if the device answers that it does not know the command."""
    token: str = ""
    """The token of the command that it answers, see :attr:`CommandFrame.token`; empty if the
    device does not say."""


@frozen
class StatusUpdate:
    """A status with its reason or answer."""

    status: Status
    reason: str = ""
    """A :class:`Reason` if the status is ``failed``, or if a device that has answered does not know
    the command; else empty."""
    response: str = ""
    """The device's answer, or an explanation of the reason."""

    @classmethod
    def failed(cls, reason: Reason, response: str = "") -> StatusUpdate:
        """Return the status ``failed`` with its reason.

        :param response: an explanation of the reason; may be empty.
        """
        return cls(Status.FAILED, reason.value, response)


@frozen
class Recorded:
    """The text and the sender of a command, as its responses repeat them."""

    payload: str = ""
    """The text, cut to :data:`MAX_RECORDED_BYTES`; empty if the command has bytes."""
    payload_hex: str = ""
    """The bytes in hex, cut to as many digits; empty if the command has a text."""
    sender: str = ""
    """Name of the sender; empty if unknown."""
    sent_at: str = ""
    """Time when the command was sent, ISO 8601 UTC; empty if unknown."""

    @property
    def text(self) -> str:
        """The text, or the bytes as ``0x`` and pairs of hex digits."""
        return f"0x{self.payload_hex}" if self.payload_hex else self.payload

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Recorded:
        """Return what an entry, which may be malformed, says of a command."""
        payload_hex = _field(fields, "payload_hex")
        return cls(
            "" if payload_hex else _cut(_field(fields, "payload")),
            _cut(payload_hex),
            _sender(_field(fields, "sender")),
            _time_or_empty(_field(fields, "sent_at")),
        )

    @classmethod
    def of(cls, command: Command) -> Recorded:
        """Return what the responses to a command repeat."""
        payload_hex = _cut(command.raw.hex())
        return cls(_cut(command.text), payload_hex, command.sender, command.sent_at)


NOTHING_RECORDED: Final = Recorded()
DELIVERED: Final = StatusUpdate(Status.DELIVERED)
EXPIRED: Final = StatusUpdate(Status.EXPIRED)


@frozen
class Response:
    """An entry of ``commands:responses``."""

    command_id: str
    device_id: str
    instance_id: str
    """ID of the instance that wrote the response, or the janitor's name."""
    update: StatusUpdate
    at: str
    """Time of the response, ISO 8601 UTC."""
    recorded: Recorded | None = None
    """The text and the sender of the command; None in a response of an earlier version."""

    @property
    def final(self) -> bool:
        """True if the status is final, so that no other response follows."""
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
            raise ValueError(f"unknown status: {shown(texts.get('status', ''))}") from None
        update = StatusUpdate(status, texts.get("reason", ""), texts.get("response", ""))
        return cls(
            texts.get("command_id", ""),
            texts.get("device_id", ""),
            texts.get("instance_id", ""),
            update,
            texts.get("at", ""),
            Recorded.from_fields(fields) if b"sender" in fields else None,
        )


def parse_hex(text: str) -> bytes:
    """Return the bytes that pairs of hex digits denote.

    :param text: 1 to :data:`MAX_TEXT_BYTES` pairs of hex digits; colons, spaces and line ends may
        stand between pairs.
    :raises ValueError: if it is anything else. The message is one line.
    """
    digits = text.strip(" \t\r\n")
    if len(digits) > MAX_HEX_LENGTH:
        raise ValueError(f"must be at most {MAX_HEX_LENGTH} characters long")
    if not _HEX.fullmatch(digits):
        raise ValueError("must be pairs of hex digits, such as 0A0BFF, or 0A:0B:FF, or 0A 0B FF")
    content = bytes.fromhex(_BETWEEN_PAIRS.sub("", digits))
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"must be 1 to {MAX_TEXT_BYTES} bytes long")
    return content


def is_device_id(text: str) -> bool:
    """Return True for 1 to 32 digits and capital letters, the form that all vendors' IDs have."""
    return _DEVICE_ID.fullmatch(text) is not None


def claimed_identity(fields: Mapping[bytes, bytes]) -> tuple[str, str]:
    """Return command ID and device ID of an entry that may be invalid; each is empty if invalid."""
    command_id = fields.get(b"command_id", b"").decode(errors="replace")
    device_id = fields.get(b"device_id", b"").decode(errors="replace")
    return (
        command_id if _COMMAND_ID.fullmatch(command_id) else "",
        device_id if _DEVICE_ID.fullmatch(device_id) else "",
    )


def _field(fields: Mapping[bytes, bytes], name: str) -> str:
    return fields.get(name.encode(), b"").decode(errors="replace")


def _cut(text: str) -> str:
    """Return a text of at most :data:`MAX_RECORDED_BYTES`, with an ellipsis if it was cut."""
    content = text.encode(errors="replace")
    if len(content) <= MAX_RECORDED_BYTES:
        return text
    mark = "…"
    beginning = content[: MAX_RECORDED_BYTES - len(mark.encode())]
    return beginning.decode(errors="ignore") + mark


def _sender(text: str) -> str:
    """Return a name as one printable line of bounded length."""
    line = "".join(one if one.isprintable() else " " for one in text[: MAX_SENDER_LENGTH + 1])
    if len(line) > MAX_SENDER_LENGTH:
        return line[: MAX_SENDER_LENGTH - 1] + "…"
    return line.strip()


def _time_or_empty(text: str) -> str:
    try:
        return iso_milliseconds(parse_time(text))
    except BadCommand:
        return ""


def _check_text(text: str) -> None:
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # from a command line with bytes that are not UTF-8
        raise BadCommand("payload is not UTF-8") from None
    if not 0 < length <= MAX_TEXT_BYTES:
        raise BadCommand(f"payload: must be 1 to {MAX_TEXT_BYTES} bytes long")


def parse_time(text: str) -> int:
    """Return a time in milliseconds since 1970.

    :param text: ISO 8601, with an offset or Z.
    :raises BadCommand: if it is anything else.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or not _TIME.fullmatch(text):
            raise ValueError(text)
    except ValueError:
        raise BadCommand(
            "expires_at: must have the form 2026-11-22T10:00:00Z, with Z or an offset"
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
        raise BadCommand(f"timeout: must be a number of seconds up to {MAX_TIMEOUT:g}")
    return seconds
