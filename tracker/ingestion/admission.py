"""Decide, before a byte is read, whether a new connection is served.

A process has so many connection slots. One address may hold a share of them, so that no peer
can take them all. A connection that has not logged in keeps its slot only while others do not
need it: see :class:`ConnectionLimiter`.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from tracker.interfaces import ISession, Rejection
from tracker.limits import Limits
from tracker.net.shares import AddressShares, address_group

#: Files that the process needs for other things than connections of devices: 64 connections to
#: the health port (HEALTH_LIMITS in tracker/observe/http.py), 64 to the control port
#: (MOST_CONNECTIONS in tracker/control/server.py), and 64 for Redis, listening sockets and so on.
RESERVED_FILES: Final = 192
#: Connections of one address that are always allowed, where that leaves slots to others: as
#: many devices may be behind the NAT of one carrier.
MIN_SHARE: Final = 1000
#: Seconds to log in while slots run out. A device logs in as soon as it is connected.
HURRIED_LOGIN: Final = 5.0


def most_files() -> int:
    """Files that this process may have open once it has raised its limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def default_share(slots: int) -> int:
    """Return how many of a process's connection slots one address may hold.

    That is half of them, but not less than :data:`MIN_SHARE`; and never so many that less than a
    tenth (and less than one) is left to others. Of a single slot that is all of it.
    """
    return max(1, min(max(slots // 2, MIN_SHARE), slots - max(1, slots // 10)))


@frozen
class Refusal:
    """The limit that a new connection breaks."""

    kind: Rejection
    reason: str
    """The same in one line, for people."""


class _Silent(NamedTuple):
    """A connection that has not logged in."""

    since: float
    group: str
    give_up: Callable[[str], None]


class ConnectionLimiter:
    """Count the connections of a process, by address; and new ones by second and address.

    When no slot is free, or an address has all of its share, the next connection is refused; and
    the oldest one (of that address) that has not logged in within :data:`HURRIED_LOGIN` seconds
    is closed, so that the one after that finds a slot. So peers that connect and say nothing
    cannot keep devices out for as long as the login timeout allows.

    :param file_limit: files that the process may have open.
    :raises ValueError: when that leaves none for devices.
    """

    def __init__(self, clock: IReactorTime, limits: Limits, file_limit: int = sys.maxsize) -> None:
        if file_limit <= RESERVED_FILES:
            raise ValueError(
                f"a limit of {file_limit} open files leaves none for devices: {RESERVED_FILES} are "
                "needed for other things (ulimit -n, LimitNOFILE)"
            )
        self.slots = min(limits.connections, file_limit - RESERVED_FILES)
        self.used = 0
        self.shares = AddressShares(limits.connections_per_address or default_share(self.slots))
        self.ran_out = False
        """Set when the last slot is taken, for whoever resets it."""
        self._clock = clock
        self._rates = _Rates(limits)
        # The oldest first: of all addresses, and of each that has any.
        self._silent: dict[ISession, _Silent] = {}
        self._silent_by_group: dict[str, dict[ISession, None]] = {}

    def admit(self, host: str) -> Refusal | None:
        """Count a new connection; or return which limit it breaks, and count nothing."""
        group = address_group(host)
        rates = self._rates
        refusal = rates.check(int(self._clock.seconds()), group)
        if refusal is not None:
            return refusal
        if self.used < self.slots and not self.shares.take(group):
            self._hurry(self._silent_by_group.get(group))
            return Refusal(
                Rejection.ADDRESS_SHARE,
                f"there are {self.shares.limit} connections from this address already",
            )
        refusal = self.reserve()
        if refusal is None:
            rates.count(group)
        return refusal

    def reserve(self) -> Refusal | None:
        """Take a slot for a connection whose address is not known yet, or return why not."""
        if self.used >= self.slots:
            self._hurry(self._silent)
            return Refusal(
                Rejection.CONNECTION_LIMIT, f"there are {self.slots} connections already"
            )
        self.used += 1
        if self.used == self.slots:
            self.ran_out = True
        return None

    def release(self) -> None:
        """Free a slot that :meth:`reserve` has taken."""
        self.used -= 1

    def opened(self, session: ISession, give_up: Callable[[str], None]) -> None:
        """Note that a connection which was admitted has yet to log in.

        :param give_up: closes it, and says why in one line.
        """
        group = address_group(session.host)
        self._silent[session] = _Silent(self._clock.seconds(), group, give_up)
        self._silent_by_group.setdefault(group, {})[session] = None

    def logged_in(self, session: ISession) -> None:
        """Note that a connection has logged in: it keeps its slot."""
        silent = self._silent.pop(session, None)
        if silent is not None:
            of_group = self._silent_by_group[silent.group]
            del of_group[session]
            if not of_group:
                del self._silent_by_group[silent.group]

    def closed(self, session: ISession) -> None:
        """Free the slot of a connection that was admitted."""
        self.logged_in(session)
        self.shares.release(session.host)
        self.release()

    def _hurry(self, sessions: dict[ISession, _Silent] | dict[ISession, None] | None) -> None:
        """Close the first of these, if it has had time enough to log in."""
        session = next(iter(sessions or ()), None)
        if session is None:
            return
        silent = self._silent[session]
        if self._clock.seconds() - silent.since >= HURRIED_LOGIN:
            self.logged_in(session)  # it is closed once
            silent.give_up(f"no login within {HURRIED_LOGIN:g} s, and others wait for its slot")


class _Rates:
    """Counts new connections of the current second, in all and by address."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.connection_rate
        self._limit_by_group = limits.connection_rate_per_address
        self._second = 0
        self._new = 0
        # Emptied every second, and no larger than what one second lets in.
        self._new_by_group: dict[str, int] = {}

    def check(self, second: int, group: str) -> Refusal | None:
        """Return which limit one more connection would break."""
        if second != self._second:
            self._second = second
            self._new = 0
            self._new_by_group.clear()
        if self._new >= self._limit:
            reason = f"more than {self._limit} new connections a second"
        elif self._new_by_group.get(group, 0) >= self._limit_by_group:
            reason = f"more than {self._limit_by_group} a second from one address"
        else:
            return None
        return Refusal(Rejection.CONNECTION_RATE, reason)

    def count(self, group: str) -> None:
        """Count one that was admitted, after :meth:`check`."""
        self._new += 1
        self._new_by_group[group] = self._new_by_group.get(group, 0) + 1
