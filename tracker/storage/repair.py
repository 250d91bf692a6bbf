"""Repair of rows that earlier versions of Tracker have stored.

Afterwards the tables hold what this version would have stored: records that are not places are
marked, attributes are named as this version names them, and each device has its latest place and
its latest contact. It runs beside processors. A step is one short transaction of limited size,
which also records how far the repair has come, so that it continues there after it was killed.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from attrs import asdict, define, field, frozen

from tracker.clock import ClockRule
from tracker.extra import CLOCK, NO_EXTRA, Extra, judged, read_extra
from tracker.interfaces import INaming, SinkTimedOut
from tracker.position import MAX_PAYLOAD, Position
from tracker.storage.rows import encode_json
from tracker.untrusted import parse_json

#: Maximum number of rows in a step, and number of characters of attributes after which it ends.
PAGE_ROWS: Final = 1000
PAGE_LENGTH: Final = 4 << 20
#: Number of last positions in a step.
PAGE_DEVICES: Final = 200

#: Seconds between two commits if no row changes.
SAVE_INTERVAL: Final = 1.0
#: Attempts of a step while other sessions lock the rows, and seconds between two of them.
ATTEMPTS: Final = 10
PAUSE: Final = 1.0

T = TypeVar("T")

Key = tuple[str, str, bytes]
"""Device ID, time (ISO 8601 UTC) and digest: the key of a row."""

#: A key before all others.
FIRST: Final[Key] = ("", "0001-01-01T00:00:00.000Z", b"")


@frozen
class Row:
    """The values of a row of ``positions`` or ``messages`` that its repair depends on."""

    device_id: str
    ts: str
    digest: bytes
    received_at: str
    extra: str | None
    """JSON; None in rows of versions that did not judge records."""
    vendor: str = ""
    codec: str = ""
    latitude: float | None = None
    longitude: float | None = None
    satellites: int | None = None
    attributes: str | None = None
    """JSON; None if attributes are not named."""
    named: str | None = None
    """JSON, or None."""

    @property
    def key(self) -> Key:
        """The primary key."""
        return self.device_id, self.ts, self.digest


@define
class Changes:
    """Changes of a step."""

    extra: list[tuple[Key, str]] = field(factory=list)
    named: list[tuple[Key, str]] = field(factory=list)
    contacts: dict[str, str] = field(factory=dict)
    """Device → its latest arrival."""
    clock_errors: dict[str, tuple[str, str, str]] = field(factory=dict)
    """Device → arrival, time and kind of the latest record whose time is wrong."""

    @property
    def rows(self) -> int:
        """Number of changes of rows."""
        return len(self.extra) + len(self.named)

    @property
    def devices(self) -> list[str]:
        """Devices whose last position may change."""
        named = {device_id for (device_id, _, _), _ in self.named}
        return sorted(named | self.contacts.keys() | self.clock_errors.keys())

    def contact(self, device_id: str, arrival: str) -> None:
        """Add a contact of a device."""
        self.contacts[device_id] = max(arrival, self.contacts.get(device_id, arrival))

    def clock_error(self, device_id: str, error: tuple[str, str, str]) -> None:
        """Add a wrong time of a device."""
        self.clock_errors[device_id] = max(error, self.clock_errors.get(device_id, error))


@define
class Counts:
    """Numbers of rows that a repair has examined and changed, or would change."""

    rows: int = 0
    """Rows that were examined."""
    no_fix: int = 0
    wrong_clock: int = 0
    named: int = 0
    last_positions: int = 0
    malformed: int = 0
    """Rows whose attributes or names cannot be read, and stay as they are."""


@define
class State:
    """The place that a repair has reached, and its counts."""

    table: str = "last_positions"
    """The table that is being repaired."""
    after: Key = FIRST
    """All rows up to this key are done."""
    counts: Counts = field(factory=Counts)

    def document(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state in types that JSON can represent.

        :param options: the options of the repair; others do not continue it.
        """
        device_id, ts, digest = self.after
        after = [device_id, ts, digest.hex()]
        return {
            "options": dict(options),
            "table": self.table,
            "after": after,
            "counts": asdict(self.counts),
        }

    @classmethod
    def read(cls, document: Any, options: Mapping[str, Any]) -> State | None:
        """Return the state in a document; None if it is of a repair with other options."""
        try:
            if document["options"] != dict(options) or document["table"] not in TABLES:
                return None
            device_id, ts, digest = document["after"]
            key = (str(device_id), str(ts), bytes.fromhex(digest))
            return cls(document["table"], key, Counts(**document["counts"]))
        except (KeyError, TypeError, ValueError):
            return None


#: The tables in the order of their repair. The first one is done within seconds, and is what
#: people look at.
TABLES: Final = ("last_positions", "positions", "messages")


class RepairedDatabase(ABC):
    """A database whose rows are repaired. Methods that write have committed when they return.

    Each method raises :class:`SinkTimedOut` if another attempt may succeed, and :class:`SinkDown`
    if the connection is lost or the database refuses a statement.
    """

    @abstractmethod
    def unfinished(self) -> Any:
        """Return the document of a repair that was interrupted, or None."""

    @abstractmethod
    def devices(self, after: str) -> Sequence[tuple[str, bool]]:
        """Return the next devices, and True for each whose last position needs a repair."""

    @abstractmethod
    def repair_device(self, device_id: str) -> None:
        """Replace what is not the latest place or the latest contact of a device.

        What a processor stores meanwhile is later, and stays.
        """

    @abstractmethod
    def page(self, table: str, after: Key, attributes: bool) -> Sequence[Row]:
        """Return the rows of the next step, in the order of their keys; none at the end.

        :param attributes: True if attributes and their names are required.
        """

    @abstractmethod
    def save(self, table: str, changes: Changes, document: Mapping[str, Any]) -> None:
        """Commit changes of a table together with the state of the repair after them."""

    @abstractmethod
    def finish(self) -> None:
        """Record that the repair is complete."""

    @abstractmethod
    def close(self) -> None:
        """Close the database."""


@frozen
class Names:
    """The present names of attributes."""

    namings: Mapping[str, INaming] = field(factory=dict)
    """Vendor → names; empty: names stay as they are."""
    models: Mapping[str, str] = field(factory=dict)
    """Device → model."""

    def of(self, row: Row, extra: Extra) -> str | None:
        """Return the JSON of a row's names; None if they need no change.

        :raises ValueError: if the attributes of the row are malformed.
        """
        naming = self.namings.get(row.vendor)
        if naming is None or row.attributes is None:
            return None
        attributes = parse_json(row.attributes, MAX_PAYLOAD)
        if not isinstance(attributes, dict):
            raise ValueError("attributes is not a JSON object")
        model = self.models.get(row.device_id) or None
        named = naming.named(attributes, extra.widths, model, row.codec)
        if row.named is not None and parse_json(row.named, MAX_PAYLOAD) == named:
            return None
        return encode_json(named)


@define
class Repair:
    """One repair of a database.

    :param options: what the result depends on; a repair with others does not continue it.
    :param report: called with the state after each step.
    """

    database: RepairedDatabase
    clocks: ClockRule
    names: Names
    options: Mapping[str, Any]
    dry_run: bool = False
    report: Callable[[State], None] = lambda state: None
    state: State = field(factory=State)
    _changes: Changes = field(factory=Changes)  # of rows up to the state, not committed yet
    _saved: float = 0.0  # time of the last commit

    def resume(self) -> bool:
        """Continue an interrupted repair with the same options, if there is one."""
        document = self._attempt(self.database.unfinished)
        state = None if document is None else State.read(document, self.options)
        if state is None:
            return False
        self.state = state
        return True

    def run(self) -> Counts:
        """Repair all tables, and return the counts."""
        for table in TABLES[TABLES.index(self.state.table) :]:
            if table != self.state.table:
                self.state.table, self.state.after = table, FIRST
            step = self._devices if table == TABLES[0] else self._rows
            while step():
                self.report(self.state)
                if self._changes.rows or time.monotonic() >= self._saved + SAVE_INTERVAL:
                    self._save()
            self._save()
        if not self.dry_run:
            self._attempt(self.database.finish)
        return self.state.counts

    def _devices(self) -> bool:
        """Repair the next last positions; return False at the end of the table."""
        devices = self._attempt(self.database.devices, self.state.after[0])
        for device_id, wrong in devices:
            if wrong:
                self.state.counts.last_positions += 1
                if not self.dry_run:
                    self._attempt(self.database.repair_device, device_id)
            self.state.after = (device_id, *FIRST[1:])
        return bool(devices)

    def _rows(self) -> bool:
        """Repair the next rows; return False at the end of the table."""
        table = self.state.table
        named = bool(self.names.namings) and table == "positions"
        rows = self._attempt(self.database.page, table, self.state.after, named)
        for row in rows:
            try:
                self._examine(row, is_message=table == "messages")
            except Exception:  # noqa: BLE001 - one row must not stop all others
                self.state.counts.malformed += 1
            self.state.after = row.key
        self.state.counts.rows += len(rows)
        return bool(rows)

    def _examine(self, row: Row, is_message: bool) -> None:
        counts, changes, device_id = self.state.counts, self._changes, row.device_id
        extra = NO_EXTRA if row.extra is None else read_extra(row.extra)
        if row.extra is None:
            extra = self._judged(row, is_message)
            if extra.text:
                changes.extra.append((row.key, extra.text))
                counts.no_fix += extra.fix is False
                counts.wrong_clock += extra.clock is not None
        changes.contact(device_id, row.received_at)
        if extra.clock is not None:
            changes.clock_error(device_id, (row.received_at, row.ts, extra.clock))
        if (named := self.names.of(row, extra)) is not None:
            changes.named.append((row.key, named))
            counts.named += 1

    def _judged(self, row: Row, is_message: bool) -> Extra:
        if is_message:
            error = self.clocks.error(row.ts, row.received_at)
            return NO_EXTRA if error is None else NO_EXTRA.marked(CLOCK, error)
        position = Position(
            device_id=row.device_id,
            timestamp=row.ts,
            latitude=row.latitude,
            longitude=row.longitude,
            altitude=None,
            angle=None,
            speed=None,
            satellites=row.satellites,
            priority=0,
            event=0,
            attributes={},
        )
        return judged(NO_EXTRA, position, row.received_at, self.clocks)

    def _save(self) -> None:
        """Commit the changes since the last call, and how far the repair has come."""
        if not self.dry_run:
            document = self.state.document(self.options)
            self._attempt(self.database.save, self.state.table, self._changes, document)
        self._changes = Changes()
        self._saved = time.monotonic()

    def _attempt(self, function: Callable[..., T], *arguments: Any) -> T:
        for _ in range(ATTEMPTS - 1):
            with suppress(SinkTimedOut):
                return function(*arguments)
            time.sleep(PAUSE)
        return function(*arguments)
