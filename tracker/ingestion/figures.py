"""Figures of ingestion. They are plain numbers, because the hot path updates them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from attrs import Factory, define, field

from tracker.interfaces import Admission, Rejection, Tally
from tracker.observe.figures import DURATION_BOUNDS, Distribution
from tracker.position import Entry

#: Number of records up to which appends are counted exactly. One frame is never split, and hardly
#: holds more records.
MAX_COUNTED_RECORDS: Final = 256


@define(eq=False)
class CodecFigures:
    """Frames (or datagrams) in one codec, and the records in them."""

    frames: int = 0
    """Frames whose records are appended, and therefore acknowledged."""
    records: int = 0
    frames_given_up: int = 0
    """Frames that were given up before that, usually because the connection has ended."""
    records_given_up: int = 0


@define(eq=False)
class AppendFigures:
    """Figures of one publisher."""

    codecs: defaultdict[str, CodecFigures] = Factory(lambda: defaultdict(CodecFigures))
    waits: Distribution = Factory(lambda: Distribution(DURATION_BOUNDS))
    """Seconds from a complete frame to the confirmation of Redis."""
    calls: Distribution = Factory(lambda: Distribution(DURATION_BOUNDS))
    """Seconds from a call to its reply."""
    batches: list[int] = Factory(lambda: [0] * (MAX_COUNTED_RECORDS + 1))
    """Number of successful calls by their number of records; the last item counts all calls with
    :data:`MAX_COUNTED_RECORDS` or more."""
    refused: int = 0
    """Calls that Redis refused."""
    unanswered: int = 0
    """Calls without a reply."""

    def given_up(self, entries: Sequence[Entry]) -> None:
        """Count a frame that was given up before its records were appended."""
        figures = self.codecs[entries[0].codec]
        figures.frames_given_up += 1
        figures.records_given_up += len(entries)


@define(eq=False)
class GatewayFigures:
    """Figures of the gateway of one vendor."""

    tally: Tally = field(factory=Tally)
    """Counts that the protocols keep themselves."""
    opened: int = 0
    """Connections that were admitted."""
    health_checks: int = 0
    """Connections of proxies that named no client and sent nothing."""
    replaced: int = 0
    """Connections that were closed because their device had connected again."""
    logins: Counter[Admission] = field(factory=Counter)
    rejections: Counter[Rejection] = field(factory=Counter)
    empty: int = 0
    """Frames without a record, which are acknowledged and not published."""
    lost: int = 0
    """Messages that were not appended, and that their device never sends again."""
