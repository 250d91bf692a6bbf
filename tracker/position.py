"""A position, and the stream entry that carries it from ingestion to the database.

The entry is a contract with consumers in other languages; it changes only by
addition. Its payload is byte-deterministic: a record that a device sends twice
gives the same bytes twice, which is what makes :func:`digest` recognise it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from attrs import frozen

from tracker.untrusted import parse_json

#: Largest integer that every JSON reader keeps exact.
MAX_SAFE_INTEGER: Final = 2**53 - 1

#: Attribute of an entry without a place: what the device said.
MESSAGE: Final = "message"

#: Characters of a payload. A message of 64,000 bytes takes at most six times as many.
MAX_PAYLOAD: Final = 16 * 1024 * 1024

#: The last millisecond that ISO 8601 can write with a four-digit year.
MAX_TIMESTAMP_MS: Final = 253_402_300_799_999

_EPOCH: Final = datetime(1970, 1, 1)  # naive on purpose: everything here is UTC
_SECOND: Final = tuple(f"{second:02}." for second in range(60))
_MILLISECOND: Final = tuple(f"{millisecond:03}Z" for millisecond in range(1000))
_MAX_TEXT: Final = 64
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
#: The payload of a record as :meth:`Position.to_payload` writes it, with nothing in it that
#: could be another JSON value than it seems.
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
_INT64: Final = range(-(2**63), 2**63)


class BadEntry(ValueError):
    """A stream entry that is not a position; the text says what is wrong with it."""


class EncodedAttributes(Mapping[str, Any]):
    """The attributes of a payload as its text, decoded only if somebody looks at them."""

    __slots__ = ("_decoded", "text")

    def __init__(self, text: str) -> None:
        """:param text: a JSON object, written as :meth:`Position.to_payload` does."""
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
        # Called for each record, so the text is decoded only if it seems to contain the key.
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
    """The four fields of a stream entry, as text."""

    ts: str
    """Device time, ISO 8601 UTC with milliseconds and Z."""
    device_id: str
    """The IMEI."""
    codec: str
    """``8``, ``8E``, … or the vendor's message type."""
    payload: str
    """:meth:`Position.to_payload`."""


def iso_milliseconds(timestamp_ms: int) -> str:
    """``2026-11-22T10:00:00.000Z`` from milliseconds since 1970 (UTC).

    :raises ValueError: outside 0 … :data:`MAX_TIMESTAMP_MS`.
    """
    if not 0 <= timestamp_ms <= MAX_TIMESTAMP_MS:
        raise ValueError(f"no four-digit year: {timestamp_ms} ms")
    minute, rest = divmod(timestamp_ms, 60_000)
    return _minute(minute) + _SECOND[rest // 1000] + _MILLISECOND[rest % 1000]


@lru_cache(maxsize=1024)  # records come from few minutes, and a packet's from one
def _minute(minutes: int) -> str:
    """``2026-11-22T10:00:`` from minutes since 1970."""
    return (_EPOCH + timedelta(minutes=minutes)).isoformat()[:-2]


def attribute(value: int | bytes) -> Any:
    """An IO element's value as it stands in the payload's ``attributes``."""
    if isinstance(value, bytes):
        return {"__buffer_b64": base64.b64encode(value).decode("ascii")}
    if value > MAX_SAFE_INTEGER:
        return {"__bigint": str(value)}
    return value


def digest(payload: str) -> bytes:
    """What tells two records of one device and millisecond apart: 16 bytes of BLAKE2b."""
    return blake2b(payload.encode("utf-8"), digest_size=16).digest()


@frozen
class Position:
    """One record of a device.

    Units: degrees WGS 84, metres above sea level, degrees clockwise from north,
    km/h. ``priority`` is 0 low, 1 high, 2 panic; ``event`` the id of the IO
    element that caused the record, 0 for a periodic one. ``attributes`` maps the
    IO id as text to :func:`attribute` of the raw value.
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
    """How a record of Codec 16 came about; no key of the payload for other codecs."""

    @property
    def is_message(self) -> bool:
        """Whether this is what a device said unasked, and no place at all."""
        return self.latitude is None and MESSAGE in self.attributes

    @property
    def has_fix(self) -> bool:
        """Whether the coordinates are where the device was at ``timestamp``.

        Without a fix devices repeat the last known place and report no satellites.
        """
        return self.latitude is not None and self.longitude is not None and bool(self.satellites)

    def to_payload(self) -> str:
        """The JSON text of the stream entry, the same for the same record."""
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
        return json.dumps(document, separators=(",", ":"))

    def to_entry(self, codec: str) -> Entry:
        """The stream entry of this position."""
        return Entry(self.timestamp, self.device_id, codec, self.to_payload())

    @classmethod
    def from_payload(cls, payload: str) -> Position:
        """Read a payload back; keys it does not know are left alone.

        :raises BadEntry: when it is not JSON, or a field is missing or of the wrong type.
        """
        # What ingestion has written for a record is known to the last quotation mark. To
        # read it as any JSON takes five times as long.
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
    try:
        if not _TIMESTAMP.fullmatch(value):
            raise ValueError(value)
        datetime.fromisoformat(value)  # there is such a day and such an hour
    except ValueError:
        raise BadEntry("payload: timestamp is not like 2026-11-22T10:00:00.000Z") from None


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
