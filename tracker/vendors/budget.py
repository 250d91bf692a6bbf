"""Budgets of work and of messages, so that one peer cannot take the CPU of the others.

A peer may use a small share of a core at any time: its *own share*, which an honest device
never exhausts. What it wants beyond that comes from a *spare share*, which all peers over
their own share have in common. So the work of any number of heavy peers is bounded, while a
single one gets the whole spare share.

Work is measured by a clock around the decoder, not estimated from bytes: a frame of 8 KiB
costs between 3 µs and 2 ms, depending on what is in it, and a clock that is read twice costs
0.2 µs.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Final

from tracker.limits import Limits

#: Seconds of work that a peer may have saved up.
OWN_BURST: Final = 0.02
#: The same of a connection that was just made: what a first packet of records takes.
#: Connections can be made as fast as one likes.
FIRST_CREDIT: Final = 0.0001
#: The same of the spare share: it bounds how long heavy peers hold up the others in a row.
SPARE_BURST: Final = 0.002
#: Sources of datagrams and devices whose own shares are kept apart. Two that fall on the same
#: place, by a hash that a peer cannot know, have one share together.
PLACES: Final = 4096
#: Sources of datagrams that are remembered as known.
KNOWN_SOURCES: Final = 20_000


#: A whole message, but for rounding.
_ONE: Final = 1 - 1e-6

#: Address and port of who has sent a datagram; the address may be forged.
Source = tuple[str, int]


class Bucket:
    """A token bucket that may go into debt: what is taken is known only afterwards.

    :param rate: tokens a second.
    :param burst: the most tokens there can be; also how many there are at first, and the
        largest debt.
    :param now: seconds, of any clock that all calls share.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """Return the tokens there are; negative in debt."""
        elapsed = now - self._at
        self._at = now  # also when the clock was put back
        if elapsed > 0:
            self._level = min(self._burst, self._level + elapsed * self._rate)
        return self._level

    def take(self, tokens: float) -> None:
        """Remove tokens, if necessary into debt."""
        self._level = max(-self._burst, self._level - tokens)

    def wait(self, now: float, least: float = 0.0) -> float:
        """Return the seconds until there is more than ``least``; 0: there is."""
        missing = least - self.level(now)
        return 0.0 if missing < 0 else missing / self._rate + 1e-6

    def is_full(self, now: float) -> bool:
        """Return whether nothing is missing."""
        return self.level(now) >= self._burst

    def is_exhausted(self, now: float) -> bool:
        """Return whether the debt is as large as it can be."""
        return self.level(now) <= -self._burst


class MessageBudget:
    """Number and bytes of the unsolicited messages that one peer may send."""

    __slots__ = ("_bytes", "_number")

    def __init__(self, limits: Limits, now: float) -> None:
        burst = limits.message_burst
        self._number = Bucket(limits.message_rate, max(1.0, limits.message_rate * burst), now)
        self._bytes = Bucket(limits.message_bytes_rate, limits.message_bytes_rate * burst, now)

    def wait(self, now: float) -> float:
        """Return the seconds until the next message may be taken; 0: now."""
        return max(self._number.wait(now, _ONE), self._bytes.wait(now))

    def take(self, size: int) -> None:
        """Take one message of so many bytes."""
        self._number.take(1)
        self._bytes.take(size)

    def is_full(self, now: float) -> bool:
        """Return whether there is nothing to remember of this peer."""
        return self._number.is_full(now) and self._bytes.is_full(now)

    def is_exhausted(self, now: float) -> bool:
        """Return whether there is no credit left, for one message or one byte."""
        return self._number.is_exhausted(now) or self._bytes.is_exhausted(now)


class _Places:
    """The own shares of many peers in a fixed amount of memory."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._levels = array("d", [OWN_BURST]) * PLACES
        self._times = array("d", [0.0]) * PLACES

    def has_credit(self, peer: Hashable, now: float) -> bool:
        """Return whether a peer has some of its own share left."""
        place = hash(peer) % PLACES
        # Refilled only when it has run out: few peers ever get there.
        if (level := self._levels[place]) <= 0:
            elapsed = max(0.0, now - self._times[place])
            level = min(OWN_BURST, level + elapsed * self._rate)
            self._levels[place] = level
            self._times[place] = now  # also when the clock was put back
        return level > 0

    def take(self, peer: Hashable, work: float, now: float) -> None:
        """Charge a peer, if necessary into debt."""
        place = hash(peer) % PLACES
        before = self._levels[place]
        self._levels[place] = after = max(-OWN_BURST, before - work)
        if before > 0 >= after:
            self._times[place] = now


class Verdict(Enum):
    """What happens to a datagram."""

    ADMITTED = "admitted"
    SOURCE = "source"
    """Its source has used up its budget."""
    DEVICE = "device"
    """Its device has used up its budget."""
    STRANGERS = "strangers"
    """All sources that are not known have used up theirs."""


class DatagramBudget:
    """Budgets of work of those who send datagrams.

    Anybody can forge the source of a datagram, so it counts for little: sources that are not
    known share one budget, in which each of them has no more than its own share. A source is
    known once a datagram of it was confirmed; whoever forges addresses would have to guess one
    of these. Known sources have a budget that strangers cannot use up. So does each device.
    Of a device only the last source is known: one that changes its port with each datagram
    makes no others forgotten.

    Memory is bounded, however many sources and devices there are.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._sources = _Places(limits.peer_work)
        self._devices = _Places(limits.peer_work)
        self._strangers = Bucket(limits.spare_work, SPARE_BURST, now)
        self._spare = Bucket(limits.spare_work, SPARE_BURST, now)
        self._known: OrderedDict[Source, str] = OrderedDict()  # → the device
        self._source_of: dict[str, Source] = {}  # and back

    def check_source(self, source: Source, now: float) -> Verdict:
        """Decide before anything of the datagram is read."""
        if source in self._known:
            if self._sources.has_credit(source, now) or self._spare.level(now) > 0:
                return Verdict.ADMITTED
            return Verdict.SOURCE
        if not self._sources.has_credit(source, now):
            return Verdict.SOURCE
        return Verdict.ADMITTED if self._strangers.level(now) > 0 else Verdict.STRANGERS

    def check_device(self, device_id: str, now: float) -> Verdict:
        """Decide once it is known whose records the datagram claims to carry."""
        if self._devices.has_credit(device_id, now) or self._spare.level(now) > 0:
            return Verdict.ADMITTED
        return Verdict.DEVICE

    def worked(self, source: Source, device_id: str | None, work: float, now: float) -> None:
        """Charge for a datagram.

        :param device_id: None where the datagram was not read so far.
        :param work: seconds.
        """
        known = source in self._known
        over = not self._sources.has_credit(source, now)
        self._sources.take(source, work, now)
        if device_id is not None:
            over = over or not self._devices.has_credit(device_id, now)
            self._devices.take(device_id, work, now)
        if not known:
            self._strangers.take(work)
        elif over:
            self._spare.take(work)

    def know(self, source: Source, device_id: str) -> None:
        """Remember a source that has sent what was confirmed, and the device whose it was."""
        before = self._source_of.get(device_id)
        if before == source:
            self._known.move_to_end(source)
            return
        if before is not None:
            self._forget(before)
        if source in self._known:  # as that of another device
            self._forget(source)
        self._known[source] = device_id
        self._source_of[device_id] = source
        if len(self._known) > KNOWN_SOURCES:
            self._forget(next(iter(self._known)))

    def _forget(self, source: Source) -> None:
        del self._source_of[self._known.pop(source)]
