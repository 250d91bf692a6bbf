"""Budgets of work and of messages, so that one peer cannot use up the CPU.

A peer may use a small share of a core at any time: its *own share*, which a well-behaved device
never uses up. All peers over their own share have a *spare share* in common. Therefore the work
of any number of heavy peers is bounded, while a single one gets the whole spare share.

Work is measured by a clock around the decoder, not estimated from bytes: a frame of 8 KiB
takes between 3 µs and 2 ms, depending on its content, and reading the clock twice takes
0.2 µs.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Final

from tracker.limits import Limits

#: Maximum seconds of work that a peer can save up.
OWN_BURST: Final = 0.02
#: Seconds of work of a new connection: enough for its first frame of records. The number is small
#: because a peer can open any number of connections.
FIRST_CREDIT: Final = 0.0001
#: Saved-up seconds of the spare share. They bound the time for which heavy peers delay the
#: others without a pause.
SPARE_BURST: Final = 0.002
#: Own shares that are kept for sources of datagrams, and as many for devices. Two with the same
#: hash, which a peer cannot predict, have one in common.
BUDGET_SLOTS: Final = 4096
#: Maximum number of sources of datagrams that are remembered as known.
MAX_KNOWN_SOURCES: Final = 20_000

#: One message, minus a tolerance for rounding.
_ONE: Final = 1 - 1e-6

#: Address and port of the sender of a datagram. Both may be forged.
Source = tuple[str, int]


class Bucket:
    """A token bucket that may go into debt, because the cost of work is known only afterwards.

    :param rate: tokens per second.
    :param burst: the maximum number of tokens, the initial number, and the largest debt.
    :param now: seconds, of any clock that all calls share.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """Return the number of tokens; negative in debt."""
        elapsed = now - self._at
        self._at = now  # also after the clock was set back
        if elapsed > 0:
            self._level = min(self._burst, self._level + elapsed * self._rate)
        return self._level

    def take(self, tokens: float) -> None:
        """Remove tokens, if necessary into debt."""
        self._level = max(-self._burst, self._level - tokens)

    def wait(self, now: float, least: float = 0.0) -> float:
        """Return the seconds until the bucket holds more than ``least`` tokens."""
        missing = least - self.level(now)
        return 0.0 if missing < 0 else missing / self._rate + 1e-6

    def is_full(self, now: float) -> bool:
        """Return True if the bucket has its maximum number of tokens."""
        return self.level(now) >= self._burst

    def is_exhausted(self, now: float) -> bool:
        """Return True if the debt has its maximum size."""
        return self.level(now) <= -self._burst


class MessageBudget:
    """Budget of unsolicited messages of one peer, in number and in bytes."""

    __slots__ = ("_bytes", "_number")

    def __init__(self, limits: Limits, now: float) -> None:
        burst = limits.message_burst
        self._number = Bucket(limits.message_rate, max(1.0, limits.message_rate * burst), now)
        self._bytes = Bucket(limits.message_bytes_rate, limits.message_bytes_rate * burst, now)

    def wait(self, now: float) -> float:
        """Return the seconds until the next frame with messages is within the budget."""
        return max(self._number.wait(now, _ONE), self._bytes.wait(now))

    def take(self, count: int, size: int) -> None:
        """Charge for a frame of ``size`` bytes with this number of messages.

        A frame with more than one may bring the budget into debt.
        """
        self._number.take(count)
        self._bytes.take(size)

    def is_full(self, now: float) -> bool:
        """Return True if the budget is unused, so that it need not be remembered."""
        return self._number.is_full(now) and self._bytes.is_full(now)

    def is_exhausted(self, now: float) -> bool:
        """Return True if the credit is used up, in messages or in bytes."""
        return self._number.is_exhausted(now) or self._bytes.is_exhausted(now)


class _OwnShares:
    """Own shares of many peers, in a fixed amount of memory."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._levels = array("d", [OWN_BURST]) * BUDGET_SLOTS
        self._times = array("d", [0.0]) * BUDGET_SLOTS

    def has_credit(self, peer: Hashable, now: float) -> bool:
        """Return True if a peer has any of its own share left."""
        slot = hash(peer) % BUDGET_SLOTS
        # Refilled only after it has run out, which is rare.
        if (level := self._levels[slot]) <= 0:
            elapsed = max(0.0, now - self._times[slot])
            level = min(OWN_BURST, level + elapsed * self._rate)
            self._levels[slot] = level
            self._times[slot] = now  # also after the clock was set back
        return level > 0

    def take(self, peer: Hashable, work: float, now: float) -> None:
        """Charge a peer, if necessary into debt."""
        slot = hash(peer) % BUDGET_SLOTS
        before = self._levels[slot]
        self._levels[slot] = after = max(-OWN_BURST, before - work)
        if before > 0 >= after:
            self._times[slot] = now


class Verdict(Enum):
    """Decision on a datagram: admitted, or the budget that it exceeds."""

    ADMITTED = "admitted"
    SOURCE = "source"
    """Its source has used up its budget."""
    DEVICE = "device"
    """Its device has used up its budget."""
    UNKNOWN_SOURCES = "unknown_sources"
    """All unknown sources together have used up their budget."""


class DatagramBudget:
    """Budgets of work of the sources and devices of datagrams.

    The source of a datagram can be forged. Therefore all unknown sources share one budget, of
    which each gets at most its own share. A source becomes known when records of one of its
    datagrams are appended; a forger would have to guess such an address and port. Known sources
    and devices have budgets that unknown sources cannot use up. Only the last source of a device
    is known; a device that keeps changing its port does not displace the sources of others.

    Memory is bounded, whatever the number of sources and devices.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._sources = _OwnShares(limits.peer_work)
        self._devices = _OwnShares(limits.peer_work)
        self._unknown = Bucket(limits.spare_work, SPARE_BURST, now)
        self._spare = Bucket(limits.spare_work, SPARE_BURST, now)
        self._known: OrderedDict[Source, str] = OrderedDict()  # → the device
        self._source_of: dict[str, Source] = {}  # the inverse

    def check_source(self, source: Source, now: float) -> Verdict:
        """Decide before the datagram is read."""
        if source in self._known:
            if self._sources.has_credit(source, now) or self._spare.level(now) > 0:
                return Verdict.ADMITTED
            return Verdict.SOURCE
        if not self._sources.has_credit(source, now):
            return Verdict.SOURCE
        return Verdict.ADMITTED if self._unknown.level(now) > 0 else Verdict.UNKNOWN_SOURCES

    def check_device(self, device_id: str, now: float) -> Verdict:
        """Decide once the device that the datagram names is known."""
        if self._devices.has_credit(device_id, now) or self._spare.level(now) > 0:
            return Verdict.ADMITTED
        return Verdict.DEVICE

    def worked(self, source: Source, device_id: str | None, work: float, now: float) -> None:
        """Charge for a datagram.

        :param device_id: None if the datagram was rejected before its device was known.
        :param work: seconds.
        """
        known = source in self._known
        over = not self._sources.has_credit(source, now)
        self._sources.take(source, work, now)
        if device_id is not None:
            over = over or not self._devices.has_credit(device_id, now)
            self._devices.take(device_id, work, now)
        if not known:
            self._unknown.take(work)
        elif over:
            self._spare.take(work)

    def remember_source(self, source: Source, device_id: str) -> None:
        """Remember a source of appended records as known, and its device."""
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
        if len(self._known) > MAX_KNOWN_SOURCES:
            self._forget(next(iter(self._known)))

    def _forget(self, source: Source) -> None:
        del self._source_of[self._known.pop(source)]
