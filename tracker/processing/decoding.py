"""Decoding of entries into rows for the sink."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.extra import NO_EXTRA, judged, read_extra
from tracker.interfaces import StoredPosition
from tracker.log.entries import StreamEntry
from tracker.observe.ratelimit import LimitedLog
from tracker.position import (
    LAST_TIME,
    BadEntry,
    EncodedAttributes,
    Position,
    digest,
    iso_milliseconds,
)
from tracker.processing.metrics import ProcessMetrics
from tracker.redis.replies import mapping
from tracker.storage.rows import encode_json
from tracker.untrusted import MAX_LINE, shown

#: Maximum number of characters of a codec's name.
MAX_CODEC: Final = 64

Row = tuple[StreamEntry, StoredPosition]


@define
class DecodedEntries:
    """Decoded entries: rows, invalid entries and deleted entries."""

    rows: list[Row] = field(factory=list)
    dead: list[tuple[StreamEntry, str]] = field(factory=list)
    """Entries that cannot be stored, with the reason."""
    deleted: defaultdict[str, list[str]] = field(factory=lambda: defaultdict(list))
    """Stream → IDs of the entries that were deleted before they were stored."""
    streams: set[str] = field(factory=set)
    """The streams of all these entries."""
    count: int = 0


class EntryDecoder:
    """Decoder of entries, which reports deleted and malformed ones.

    :param vendors: stream → the vendor of its positions.
    :param name_attributes: adds names to the attributes of a position; None: no names are added.
    :param clocks: the rule that times of records must meet.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        vendors: Mapping[str, str],
        metrics: ProcessMetrics,
        name_attributes: Callable[[StoredPosition], StoredPosition] | None,
        *,
        clocks: ClockRule = DEFAULT_CLOCKS,
    ) -> None:
        self._clock = clock
        self._vendors = vendors
        self._metrics = metrics
        self._clocks = clocks
        self._name_attributes = name_attributes
        self._rejections = LimitedLog(clock, self._log)

    def decode(
        self, entries: Sequence[StreamEntry], decoded: DecodedEntries | None = None
    ) -> DecodedEntries:
        """Decode entries, and append them to those that were decoded before."""
        decoded = decoded or DecodedEntries()
        decoded.count += len(entries)
        decoded.streams.update(entry.stream for entry in entries)
        now = iso_milliseconds(int(self._clock.seconds() * 1000))
        for entry in entries:
            if entry.content is None:
                decoded.deleted[entry.stream].append(entry.id)
                self._metrics.deleted.labels(entry.stream).inc()
                self.report("is lost: deleted before it was stored", entry)
                continue
            try:
                vendor = self._vendors[entry.stream]
                stored = stored_position(entry, vendor, self._clocks, now)
                self._count(stored)
                if self._name_attributes is not None:
                    stored = self._name_attributes(stored)
                decoded.rows.append((entry, stored))
            except BadEntry as error:
                decoded.dead.append((entry, str(error)))
            except Exception as error:  # noqa: BLE001 - one entry must not block the others
                self._log.failure(
                    "{stream}: entry {id} cannot be decoded", stream=entry.stream, id=entry.id
                )
                decoded.dead.append((entry, shown(repr(error))))
        return decoded

    def _count(self, stored: StoredPosition) -> None:
        extra = stored.extra
        if extra.clock is not None:
            self._metrics.wrong_clock.labels(extra.clock).inc()
        if extra.fix is False:
            self._metrics.without_fix.inc()

    def report(self, what: str, entry: StreamEntry) -> None:
        """Log an event of an entry, with a rate limit.

        :param what: the predicate of the sentence, such as ``was moved``.
        """
        self._rejections.error(
            "{stream}: entry {id} {what}",
            stream=entry.stream,
            id=entry.id,
            what=shown(what, MAX_LINE),
        )


def stored_position(
    entry: StreamEntry,
    vendor: str,
    clocks: ClockRule = DEFAULT_CLOCKS,
    now: str = LAST_TIME,
) -> StoredPosition:
    """Return the position in an entry, as it is stored: marked if it is not a place.

    :param entry: an entry that was not deleted.
    :param clocks: the rule that its time must meet.
    :param now: the time of this machine, ISO 8601 UTC with milliseconds and Z.
    :raises BadEntry: if it does not contain a valid position.
    """
    fields = mapping(entry.content or ())
    try:
        codec = fields[b"codec"].decode("ascii")
        payload = fields[b"payload"].decode("utf-8")
        extra_text = fields.get(b"extra", b"").decode("utf-8")
    except KeyError as error:
        raise BadEntry(f'field "{error.args[0].decode()}" is missing') from None
    except UnicodeDecodeError as error:
        raise BadEntry(f"invalid text: {error}") from None
    if not (0 < len(codec) <= MAX_CODEC and codec.isprintable()):
        raise BadEntry(f'field "codec" must have 1 to {MAX_CODEC} printable ASCII characters')
    position = Position.from_payload(payload)
    if not isinstance(position.attributes, EncodedAttributes):
        # The size of a batch is limited in bytes of its entries. Decoded objects would take many
        # times as much memory.
        position = evolve(position, attributes=EncodedAttributes(encode_json(position.attributes)))
    extra = read_extra(extra_text) if extra_text else NO_EXTRA
    appended_at = entry.appended_at
    # Whatever an entry says, it did not arrive after it was appended.
    received_at = min(extra.arrived or appended_at, appended_at)
    # Redis never gives an entry an earlier ID than the one before. Once its clock was ahead, all
    # entries seem to arrive then. It is believed only if the device agrees with it, and not with
    # this machine.
    if (
        received_at > now
        and clocks.error(received_at, now) is not None
        and (
            clocks.error(position.timestamp, now) is None
            or clocks.error(position.timestamp, received_at) is not None
        )
    ):
        received_at = now
    extra = judged(extra, position, received_at, clocks)
    return StoredPosition(position, digest(payload), vendor, codec, received_at, extra=extra)
