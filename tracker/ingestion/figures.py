"""What ingestion counts on the way of a packet: plain numbers, since it is done so often."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from attrs import Factory, define, field

from tracker.interfaces import Admission, Rejection, Tally
from tracker.observe.figures import DURATION_BOUNDS, Distribution
from tracker.position import Entry

#: Records of one call to Redis that are told apart: there are hardly more in one packet, and
#: one packet is not divided.
MAX_COUNTED_RECORDS: Final = 256


@define(eq=False)
class CodecFigures:
    """Frames (or datagrams) in one codec, and the records in them."""

    frames: int = 0
    """Confirmed by Redis, and so acknowledged."""
    records: int = 0
    frames_given_up: int = 0
    """Given up before that: as a rule, since the connection has ended."""
    records_given_up: int = 0


@define(eq=False)
class AppendFigures:
    """What one publisher does."""

    codecs: defaultdict[str, CodecFigures] = Factory(lambda: defaultdict(CodecFigures))
    waits: Distribution = Factory(lambda: Distribution(DURATION_BOUNDS))
    """Seconds from a whole packet to Redis' confirmation."""
    calls: Distribution = Factory(lambda: Distribution(DURATION_BOUNDS))
    """Seconds from a call to its answer."""
    batches: list[int] = Factory(lambda: [0] * (MAX_COUNTED_RECORDS + 1))
    """Records in a call that was confirmed → such calls; the last: so many or more."""
    refused: int = 0
    """Calls that Redis refused."""
    unanswered: int = 0
    """Calls whose answer never came."""

    def given_up(self, entries: Sequence[Entry]) -> None:
        """A packet is not, and nobody waits for it any more."""
        figures = self.codecs[entries[0].codec]
        figures.frames_given_up += 1
        figures.records_given_up += len(entries)


@define(eq=False)
class GatewayFigures:
    """What the gateway of one vendor sees."""

    tally: Tally = field(factory=Tally)
    """What the protocols count themselves."""
    opened: int = 0
    """Connections that were let in."""
    health_checks: int = 0
    """Connections of proxies that named no client and sent nothing."""
    replaced: int = 0
    """Connections that were closed since their device had come again."""
    logins: Counter[Admission] = field(factory=Counter)
    rejections: Counter[Rejection] = field(factory=Counter)
    empty: int = 0
    """Frames without a record, which are acknowledged and not published."""
    lost: int = 0
    """Messages that could be neither published nor kept, or were given up."""
