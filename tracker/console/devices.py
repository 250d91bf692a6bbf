"""Data of devices, from the database, Redis and control ports."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from tracker.clock import DEFAULT_CLOCKS
from tracker.commands.deviceregistry import owners, vendors
from tracker.console.ports import ControlPorts, NoInstance
from tracker.console.snapshot import unknown_reason
from tracker.control.commands import ControlError
from tracker.errors import Refused, Unavailable
from tracker.extra import WIDTHS, read_widths
from tracker.interfaces import INaming
from tracker.keys import CONNECTIONS, DEVICE_MODELS
from tracker.position import MAX_SAFE_INTEGER, BadEntry, iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping
from tracker.storage.reader import DOCUMENTS, MAX_DEVICES, PositionReader, QueryFailed, Search
from tracker.untrusted import is_unicode, parse_json, shown
from tracker.vendors.installed import installed_vendors

#: Maximum length of a track, in hours.
MAX_HOURS: Final = 24 * 7
#: Maximum number of attributes of a record, and of characters of each.
MAX_ATTRIBUTES: Final = 1000
MAX_TEXT: Final = 100_000

#: HSCAN calls on the device registry for one page, if the console has no database.
_MAX_SCANS: Final = 20
_SEARCH: Final = re.compile(r"[0-9A-Za-z]{0,32}")
_ORDERS: Final = ("id", "contact")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


class BadRequest(ValueError):
    """Malformed parameter of a request. The message gives the reason."""


class Devices:
    """Data of devices, from the database, Redis and control ports.

    :param positions: None if the console has no database. It then knows only connected devices,
        with their ids and instances.
    :param namings: vendor → the names of its attributes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        *,
        positions: PositionReader | None,
        ports: ControlPorts,
        namings: Mapping[str, INaming],
    ) -> None:
        self._clock = clock
        self._redis = redis
        self._positions = positions
        self._ports = ports
        self._namings = namings

    async def owner(self, device_id: str) -> str | None:
        """Return the instance that a device is connected to, or None."""
        return (await owners(self._redis, [device_id]))[0]

    async def page(self, text: str, order: str, after: str, limit: int) -> dict[str, Any]:
        """Return a page of the table of devices.

        :param text: part of the device IDs.
        :param order: ``id`` or ``contact``, which is the latest contact first.
        :param after: ``after`` of the previous page; empty for the first page.
        :return: ``devices``; ``after``, which is None on the last page; ``stored``, which is False
            if the console has no database; and ``instances_error``, the reason if it is unknown
            which devices are connected.
        :raises BadRequest: if an argument is malformed.
        :raises QueryFailed: if the database is not available.
        :raises Refused: if Redis refuses a command, and the console has no database.
        :raises Unavailable: if Redis is not available, and the console has no database.
        """
        if not _SEARCH.fullmatch(text):
            raise BadRequest("text: must be a part of a device ID (letters and digits, up to 32)")
        if order not in _ORDERS:
            raise BadRequest(f"order: must be {' or '.join(_ORDERS)}")
        limit = min(max(1, limit), MAX_DEVICES)
        if self._positions is None:
            return await self._connected(text, after, limit)
        search = Search(text, order == "contact", _after(after), limit)
        rows = await self._positions.devices(search)
        where, error = await self._instances([row["device_id"] for row in rows])
        for row, instance_id in zip(rows, where, strict=True):
            row["instance_id"] = instance_id
        await self._add_vendors(rows)
        more = len(rows) == limit
        last = json.dumps([rows[-1]["last_contact"], rows[-1]["device_id"]]) if more else None
        return {"devices": rows, "after": last, "stored": True, "instances_error": error}

    async def _add_vendors(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add the vendors of connected devices that have no position."""
        unknown = [row for row in rows if not row.get("vendor")]
        try:
            found = await vendors(self._redis, [row["device_id"] for row in unknown])
        except (Refused, Unavailable):
            return  # the devices are shown without their vendors
        for row, vendor in zip(unknown, found, strict=True):
            row["vendor"] = vendor and shown(vendor)

    async def _instances(
        self, device_ids: Sequence[str]
    ) -> tuple[Sequence[str | None], str | None]:
        """Return the instance of each device, and the reason if they are unknown."""
        try:
            return await owners(self._redis, device_ids), None
        except (Refused, Unavailable) as error:
            return [None] * len(device_ids), unknown_reason(error, CONNECTIONS, "a hash")

    async def one(self, device_id: str) -> dict[str, Any]:
        """Return the data of a device.

        ``position`` is None if no position is stored, or if it cannot be read; ``position_error``
        then gives the reason. ``instance_error`` gives the reason if it is unknown whether the
        device is connected.
        """
        row, position_error = None, None
        if self._positions is None:
            position_error = _NO_SINK
        else:
            try:
                row = await self._positions.device(device_id)
            except QueryFailed as error:
                position_error = str(error)
        (instance_id,), instance_error = await self._instances([device_id])
        vendor, model = await self._vendor(device_id), await self._model(device_id)
        try:
            connection = await self._ports.device(device_id, instance_id)
        except (ControlError, NoInstance):
            connection = None
        vendor = vendor or (row["vendor"] if row else None)
        return {
            "device_id": device_id,
            "instance_id": instance_id,
            "instance_error": instance_error,
            "vendor": vendor,
            "command_codecs": _command_codecs(vendor),
            "model": model,
            "connection": connection,
            "position_error": position_error,
            "position": row and {name: row[name] for name in row if name not in DOCUMENTS},
            "attributes": [] if row is None else self._attributes(row, vendor, model),
        }

    async def _vendor(self, device_id: str) -> str | None:
        try:
            return (await vendors(self._redis, [device_id]))[0]
        except (Refused, Unavailable):
            return None  # the last position has the vendor, too

    async def _model(self, device_id: str) -> str | None:
        try:
            (model,) = await self._redis.execute("HMGET", DEVICE_MODELS, device_id)
        except (Refused, Unavailable):
            return None  # the device is shown without its model
        return None if model is None else shown(model)

    async def track(self, device_id: str, hours: float) -> dict[str, Any]:
        """Return the track of a device in the last hours.

        :return: ``points``; ``read``, the number of positions that they were thinned from; and
            ``complete``, which is False if earlier positions were not read.
        :raises BadRequest: if ``hours`` is out of range.
        :raises QueryFailed: if the database is not available.
        """
        if not 0 < hours <= MAX_HOURS:
            raise BadRequest(f"hours: must be more than 0, up to {MAX_HOURS}")
        if self._positions is None:
            raise QueryFailed(_NO_SINK)
        now = self._clock.seconds()
        since = iso_milliseconds(int((now - hours * 3600) * 1000))
        until = iso_milliseconds(int((now + DEFAULT_CLOCKS.clock_tolerance) * 1000))
        track = await self._positions.track(device_id, since, until)
        return {"points": track.points, "read": track.read, "complete": track.complete}

    def _attributes(
        self, row: Mapping[str, Any], vendor: str | None, model: str | None
    ) -> list[dict[str, Any]]:
        """Return the last record's attributes: named ones by name, then the others by id."""
        raw = row["attributes"] if isinstance(row["attributes"], dict) else {}
        raw = dict(islice(raw.items(), MAX_ATTRIBUTES))
        named = row["named"]
        if named is None and (naming := self._namings.get(vendor or "")) is not None:
            named = naming.named(raw, _widths(row["extra"]), model or None, row["codec"] or "")
        named = named if isinstance(named, dict) else {}
        by_id = {
            str(about.get("id")): {**about, "name": name}
            for name, about in named.items()
            if isinstance(about, dict)
        }
        elements = [
            {"value": value, **by_id.get(key, {"name": None}), "id": key, "raw": value}
            for key, value in raw.items()
        ]
        for element in elements:
            for name, value in element.items():
                element[name] = _shown(value)
        return sorted(elements, key=lambda one: (one["name"] is None, one["name"] or "", one["id"]))

    async def _connected(self, text: str, after: str, limit: int) -> dict[str, Any]:
        """Return a page of the device registry, which has no order."""
        cursor = _cursor(after)
        found: list[dict[str, Any]] = []
        for _ in range(_MAX_SCANS):
            next_cursor, reply = await self._redis.execute(
                "HSCAN", CONNECTIONS, cursor, "MATCH", f"*{text}*", "COUNT", limit
            )
            cursor = next_cursor.decode()
            found += [
                {"device_id": shown(device_id), "instance_id": shown(instance_id)}
                for device_id, instance_id in mapping(reply).items()
            ]
            if cursor == "0" or len(found) >= limit:
                break
        await self._add_vendors(found)
        return {
            "devices": found,
            "after": None if cursor == "0" else cursor,
            "stored": False,
            "instances_error": None,
        }


def _command_codecs(vendor: str | None) -> list[str]:
    """Return the codecs of commands to a vendor's devices, the usual one first."""
    installed = installed_vendors().get(vendor or "")
    return [] if installed is None else list(installed.command_codecs)


def _widths(extra: Any) -> Mapping[int, int] | None:
    """Return the widths in the column ``extra``; None if it has none."""
    try:
        return read_widths(extra.get(WIDTHS)) if isinstance(extra, dict) else None
    except BadEntry:
        return None


_BAD_AFTER: Final = "after: must be the value that the previous page returned"
_NO_SINK: Final = "positions are not available: the console runs without --sink"


def _after(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    if len(text) >= 150:
        raise BadRequest(_BAD_AFTER)
    try:
        contact, device_id = parse_json(text)
        fits = _TIME.fullmatch(contact) and device_id and is_unicode(device_id)
        fits = fits and "\0" not in device_id
        datetime.fromisoformat(contact)  # rejects 30 February, which the database would refuse
    except (ValueError, TypeError, AttributeError):
        raise BadRequest(_BAD_AFTER) from None
    if not fits:
        raise BadRequest(_BAD_AFTER)
    return contact, device_id


def _cursor(text: str) -> str:
    """Return the cursor of a scan, an unsigned 64-bit number (Redis documentation, SCAN)."""
    if not text:
        return "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << 64):
        raise BadRequest(_BAD_AFTER)
    return text


def _shown(value: Any) -> Any:
    """Return a value for display: large numbers without loss of precision, bytes in base64."""
    if isinstance(value, dict):
        if "__bigint" in value:
            value = str(value["__bigint"])
        elif "__buffer_b64" in value:
            value = f"base64 {value['__buffer_b64']}"
    if isinstance(value, dict | list):
        value = json.dumps(value)
    if isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        value = str(value)
    return value[:MAX_TEXT] if isinstance(value, str) else value
