"""Turn entries that were read into rows for the sink."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.interfaces import StoredPosition
from tracker.log.entries import Delivered
from tracker.observe.ratelimit import LimitedLog
from tracker.position import BadEntry, EncodedAttributes, Position, digest
from tracker.processing.metrics import ProcessMetrics
from tracker.redis.replies import mapping
from tracker.storage.rows import encode_json
from tracker.untrusted import MAX_LINE, shown

#: Characters of a codec's name.
MAX_CODEC: Final = 64

Row = tuple[Delivered, StoredPosition]


@define
class Taken:
    """Entries that were read, by what is done with them."""

    rows: list[Row] = field(factory=list)
    dead: list[tuple[Delivered, str]] = field(factory=list)
    """Those that cannot be stored, and why."""
    deleted: defaultdict[str, list[str]] = field(factory=lambda: defaultdict(list))
    """Stream → those that were deleted before they were stored."""
    streams: set[str] = field(factory=set)
    """The streams that they come from."""
    count: int = 0


class Taker:
    """Makes rows of entries, and reports malformed entries.

    :param vendors: stream → the vendor whose positions it holds.
    :param name_attributes: adds names to a position, where they are asked for.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        vendors: Mapping[str, str],
        metrics: ProcessMetrics,
        name_attributes: Callable[[StoredPosition], StoredPosition] | None,
    ) -> None:
        self._vendors = vendors
        self._metrics = metrics
        self._name_attributes = name_attributes
        self._rejections = LimitedLog(clock, self._log)

    def take(self, entries: Sequence[Delivered], taken: Taken | None = None) -> Taken:
        """Make rows of entries, and append them to those that were taken before."""
        taken = taken or Taken()
        taken.count += len(entries)
        taken.streams.update(entry.stream for entry in entries)
        for entry in entries:
            if entry.content is None:
                taken.deleted[entry.stream].append(entry.id)
                self._metrics.deleted.labels(entry.stream).inc()
                self.report("lost: it was deleted before it was stored", entry)
                continue
            try:
                stored = stored_position(entry, self._vendors[entry.stream])
                if self._name_attributes is not None:
                    stored = self._name_attributes(stored)
                taken.rows.append((entry, stored))
            except BadEntry as error:
                taken.dead.append((entry, str(error)))
            except Exception as error:  # noqa: BLE001 - one entry must not stop all others
                self._log.failure("entry {id} cannot be read", id=entry.id)
                taken.dead.append((entry, shown(repr(error))))
        return taken

    def report(self, what: str, entry: Delivered) -> None:
        """Log what is wrong with an entry; rate-limited."""
        self._rejections.error(
            "{stream} {id}: {what}", stream=entry.stream, id=entry.id, what=shown(what, MAX_LINE)
        )


def stored_position(entry: Delivered, vendor: str) -> StoredPosition:
    """Return what is stored of an entry.

    :param entry: has its content.
    :raises BadEntry: if it is not a position.
    """
    fields = mapping(entry.content or ())
    try:
        codec = fields[b"codec"].decode("ascii")
        payload = fields[b"payload"].decode("utf-8")
    except KeyError as error:
        raise BadEntry(f"the field {error.args[0].decode()} is missing") from None
    except UnicodeDecodeError as error:
        raise BadEntry(f"not text: {error}") from None
    if not (0 < len(codec) <= MAX_CODEC and codec.isprintable()):
        raise BadEntry("codec is not a short ASCII text")
    position = Position.from_payload(payload)
    if not isinstance(position.attributes, EncodedAttributes):
        # A batch is bounded by the bytes of its entries; decoded objects would take many times
        # as much memory.
        position = evolve(position, attributes=EncodedAttributes(encode_json(position.attributes)))
    return StoredPosition(position, digest(payload), vendor, codec, entry.appended_at)
