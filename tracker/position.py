"""A position, and the stream entry that carries it from ingestion to the database.

The entry is a contract with consumers in other languages; it changes only by addition. Its
payload is byte-deterministic: a record that a device sends twice results in the same bytes twice,
so that both have the same :func:`digest`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple

from attrs import frozen

from tracker.untrusted import parse_json

#: Largest integer that every JSON reader keeps exact.
MAX_SAFE_INTEGER: Final = 2**53 - 1

#: Attribute of an entry without coordinates that holds the text of a message.
MESSAGE: Final = "message"

#: Maximum number of characters of a payload. A message of 64,000 bytes takes at most six times as
#: many characters.
MAX_PAYLOAD: Final = 16 * 1024 * 1024

#: The last millisecond that ISO 8601 can write with a four-digit year.
MAX_TIMESTAMP_MS: Final = 253_402_300_799_999
LAST_TIME: Final = "9999-12-31T23:59:59.999Z"

_EPOCH: Final = datetime(1970, 1, 1)  # naive on purpose: all times in this module are UTC
_SECOND: Final = tuple(f"{second:02}." for second in range(60))
_MILLISECOND: Final = tuple(f"{millisecond:03}Z" for millisecond in range(1000))
_MAX_TEXT: Final = 64
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
#: The payload of a record as :meth:`Position.to_payload` writes it. Every text that matches is
#: valid JSON with the value that the groups suggest.
_RECORD: Final = re.compile(
    r'\{"device_id":"([0-9]{1,20})","timestamp":"([^"]{24})",'
    r'"latitude":(-?(?:0|[1-9][0-9]{0,2})\.[0-9]{1,16}(?:e-[0-9]{2})?),'
    r'"longitude":(-?(?:0|[1-9][0-9]{0,2})\.[0-9]{1,16}(?:e-[0-9]{2})?),'
    r'"altitude":(-?(?:0|[1-9][0-9]{0,8})),"angle":(0|[1-9][0-9]{0,8}),'
    r'"speed":(0|[1-9][0-9]{0,8}),"satellites":(0|[1-9][0-9]{0,8}),'
    r'"priority":(0|[1-9][0-9]{0,8}),"event":(0|[1-9][0-9]{0,8}),'
    r'"attributes":(\{(?:"[0-9]{1,10}":'
    r'(?:(?:0|[1-9][0-9]{0,15})|\{"__bigint":"[0-9]{1,20}"\}'
    r'|\{"__buffer_b64":"[A-Za-z0-9+/=]*"\})(?:,(?!\})|(?=\})))*\})'
    r'(?:,"generation_type":(0|[1-9][0-9]{0,8}))?\}'
)
#: ``json.dumps`` would build an encoder at each call.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_INT64: Final = range(-(2**63), 2**63)


class BadEntry(ValueError):
    """A stream entry is not a position; the message gives the reason."""


class EncodedAttributes(Mapping[str, Any]):
    """The attributes of a payload as JSON text, decoded at the first access."""

    __slots__ = ("_decoded", "text")

    def __init__(self, text: str) -> None:
        """:param text: a JSON object, as :meth:`Position.to_payload` writes it."""
        self.text = text
        self._decoded: dict[str, Any] | None = None

    def decode(self) -> dict[str, Any]:
        """Decode the attributes without caching them."""
        return dict(parse_json(self.text, MAX_PAYLOAD))

    def forget(self) -> None:
        """Discard decoded attributes, which take many times the memory of the text."""
        self._decoded = None

    def _all(self) -> dict[str, Any]:
        if self._decoded is None:
            self._decoded = self.decode()
        return self._decoded

    def __contains__(self, key: object) -> bool:
        if self._decoded is not None:
            return key in self._decoded
        # Called for each record; decoding every text would cost too much.
        return f"{json.dumps(key)}:" in self.text and key in self.decode()

    def __getitem__(self, key: str) -> Any:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


class Entry(NamedTuple):
    """The fields of a stream entry, as text."""

    ts: str
    """Device time, ISO 8601 UTC with milliseconds and Z."""
    device_id: str
    """The device ID, for example an IMEI."""
    codec: str
    """``8``, ``8E``, … or the vendor's message type."""
    payload: str
    """The JSON text that :meth:`Position.to_payload` returns."""
    extra: str = ""
    """Facts that the digest omits, see :mod:`tracker.extra`; empty: the entry lacks the field."""


def iso_milliseconds(timestamp_ms: int) -> str:
    """Return a time in the form ``2026-11-22T10:00:00.000Z``.

    :param timestamp_ms: milliseconds since 1970 (UTC).
    :raises ValueError: if it is not between 0 and :data:`MAX_TIMESTAMP_MS`.
    """
    if not 0 <= timestamp_ms <= MAX_TIMESTAMP_MS:
        raise ValueError(f"{timestamp_ms} ms is not between the years 1970 and 9999")
    minute, rest = divmod(timestamp_ms, 60_000)
    return _minute(minute) + _SECOND[rest // 1000] + _MILLISECOND[rest % 1000]


@lru_cache(maxsize=1024)  # current records have few different minutes
def _minute(minutes: int) -> str:
    """Return ``2026-11-22T10:00:`` from minutes since 1970."""
    return (_EPOCH + timedelta(minutes=minutes)).isoformat()[:-2]


def attribute(value: int | bytes) -> Any:
    """Return an IO element's value in the form that the payload's ``attributes`` have.

    :param value: the raw value. Integers above :data:`MAX_SAFE_INTEGER` become text; bytes become
        Base64.
    """
    if isinstance(value, bytes):
        return {"__buffer_b64": base64.b64encode(value).decode("ascii")}
    if value > MAX_SAFE_INTEGER:
        return {"__bigint": str(value)}
    return value


def truncation(content: bytes) -> dict[str, Any]:
    """Return the attributes of a truncated message: size in bytes and SHA-256 of the whole message.

    They keep messages with the same beginning apart, and allow each to be compared with its source.
    """
    return {"message_length": len(content), "message_sha256": sha256(content).hexdigest()}


def digest(payload: str) -> bytes:
    """Return 16 bytes of BLAKE2b, which distinguish records of one device and millisecond."""
    return blake2b(payload.encode("utf-8"), digest_size=16).digest()


def has_fix(
    latitude: float | None, longitude: float | None, satellites: int | None, fix: bool | None = None
) -> bool:
    """Return True if these coordinates are those of their record.

    Without a fix devices report 0 satellites, and repeat the last known coordinates or send
    zeros. Coordinates of exactly 0, 0 with satellites, and coordinates off the globe, are
    errors of the device.

    :param latitude: degrees.
    :param longitude: degrees.
    :param fix: see :data:`tracker.extra.FIX`.
    """
    if not (satellites if fix is None else fix) or latitude is None or longitude is None:
        return False
    on_globe = -90.0 <= latitude <= 90.0 and -180.0 <= longitude <= 180.0
    return on_globe and not latitude == 0.0 == longitude


@frozen
class Position:
    """One record of a device.

    ``latitude`` and ``longitude`` are in degrees (WGS 84), ``altitude`` in metres above sea
    level, ``angle`` in degrees clockwise from north, ``speed`` in km/h. ``priority`` is 0 (low),
    1 (high) or 2 (panic). ``event`` is the vendor's number of what caused the record, or 0 for a
    periodic record. ``attributes`` maps names, or the ID of an IO element as text, to values in
    the form of :func:`attribute`.
    """

    device_id: str
    timestamp: str
    latitude: float | None
    longitude: float | None
    altitude: int | None
    angle: int | None
    speed: int | None
    satellites: int | None
    priority: int
    event: int
    attributes: Mapping[str, Any]
    generation_type: int | None = None
    """Generation type of a Codec 16 record; the payloads of other codecs do not have this key."""

    @classmethod
    def without_place(
        cls,
        device_id: str,
        timestamp_ms: int,
        attributes: Mapping[str, Any],
        *,
        priority: int = 0,
        event: int = 0,
    ) -> Position:
        """Return a record that reports no place, such as a message.

        :param timestamp_ms: see :func:`iso_milliseconds`.
        """
        return cls(
            device_id=device_id,
            timestamp=iso_milliseconds(timestamp_ms),
            latitude=None,
            longitude=None,
            altitude=None,
            angle=None,
            speed=None,
            satellites=None,
            priority=priority,
            event=event,
            attributes=attributes,
        )

    @property
    def is_message(self) -> bool:
        """True for an unsolicited message, which has no coordinates."""
        return self.latitude is None and MESSAGE in self.attributes

    def has_fix(self, fix: bool | None = None) -> bool:
        """Return True if the coordinates are those of ``timestamp``, see :func:`has_fix`."""
        return has_fix(self.latitude, self.longitude, self.satellites, fix)

    def to_payload(self) -> str:
        """Return the JSON text for the stream entry; equal records have equal texts."""
        document = {
            "device_id": self.device_id,
            "timestamp": self.timestamp,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "altitude": self.altitude,
            "angle": self.angle,
            "speed": self.speed,
            "satellites": self.satellites,
            "priority": self.priority,
            "event": self.event,
            "attributes": dict(self.attributes),
        }
        if self.generation_type is not None:
            document["generation_type"] = self.generation_type
        return _encode(document)

    def to_entry(self, codec: str, extra: str = "") -> Entry:
        """Return the stream entry of this position.

        :param extra: see :attr:`Entry.extra`.
        """
        return Entry(self.timestamp, self.device_id, codec, self.to_payload(), extra)

    @classmethod
    def from_payload(cls, payload: str) -> Position:
        """Return the position in a payload; unknown keys are ignored.

        :param payload: the JSON text of a stream entry.
        :raises BadEntry: if it is not JSON, or a field is missing or has the wrong type.
        """
        # Payloads of records that ingestion has written have exactly this form. Parsing them as
        # arbitrary JSON takes five times as long.
        if (parts := _RECORD.fullmatch(payload)) is not None:
            (device_id, timestamp, latitude, longitude, *numbers, attributes_text, generation) = (
                parts.groups()
            )
            altitude, angle, speed, satellites, priority, event = map(int, numbers)
            _check_timestamp(timestamp)
            return cls(
                device_id,
                timestamp,
                float(latitude),
                float(longitude),
                altitude,
                angle,
                speed,
                satellites,
                priority,
                event,
                EncodedAttributes(attributes_text),
                None if generation is None else int(generation),
            )
        try:
            document = parse_json(payload, MAX_PAYLOAD)
        except ValueError as error:
            raise BadEntry(f"payload is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise BadEntry("payload is not a JSON object")
        attributes = document.get("attributes")
        if not isinstance(attributes, dict):
            raise BadEntry("payload: attributes is not an object")
        return cls(
            device_id=_text(document, "device_id"),
            timestamp=_timestamp(document, "timestamp"),
            latitude=_degrees(document, "latitude"),
            longitude=_degrees(document, "longitude"),
            altitude=_integer_or_none(document, "altitude"),
            angle=_integer_or_none(document, "angle"),
            speed=_integer_or_none(document, "speed"),
            satellites=_integer_or_none(document, "satellites"),
            priority=_integer(document, "priority"),
            event=_integer(document, "event"),
            attributes=attributes,
            generation_type=_integer_or_none(document, "generation_type"),
        )


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise BadEntry(f"payload: {key} is not a short ASCII text")
    if not (value.isascii() and value.isprintable()):
        raise BadEntry(f"payload: {key} is not a short ASCII text")
    return value


def _timestamp(document: Mapping[str, Any], key: str) -> str:
    value = _text(document, key)
    _check_timestamp(value)
    return value


def _check_timestamp(value: str) -> None:
    if not is_timestamp(value):
        raise BadEntry("payload: timestamp is not of the form 2026-11-22T10:00:00.000Z")


def is_timestamp(value: object) -> bool:
    """Return True for an existing time in the form ``2026-11-22T10:00:00.000Z``."""
    if not (isinstance(value, str) and _TIMESTAMP.fullmatch(value)):
        return False
    try:
        datetime.fromisoformat(value)  # rejects days and hours that do not exist
    except ValueError:
        return False
    return True


def _integer_or_none(document: Mapping[str, Any], key: str) -> int | None:
    return None if document.get(key) is None else _integer(document, key)


def _integer(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
        raise BadEntry(f"payload: {key} is not an integer")
    return value


def _degrees(document: Mapping[str, Any], key: str) -> float | None:
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadEntry(f"payload: {key} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise BadEntry(f"payload: {key} is too large a number") from None
