"""Decide, before a byte is read, whether a new connection is admitted.

A process has a number of connection slots. One address may hold a share of them, so that no
peer can take all. A connection that has not logged in loses its slot when others need it; see
:class:`ConnectionLimiter`.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from tracker.durations import format_duration
from tracker.interfaces import IConnection, Rejection
from tracker.limits import Limits
from tracker.net.shares import AddressShares, address_group
from tracker.wording import counted

#: Open files that are reserved for other purposes than connections of devices: 64 connections to
#: the health port (HEALTH_LIMITS in tracker/net/probes.py), 64 to the control port
#: (MAX_CONNECTIONS in tracker/control/server.py), and 64 for Redis, listening sockets and so on.
RESERVED_FILES: Final = 192
#: Minimum share of one address, if that leaves slots for others. The NAT of a carrier may hide
#: that many devices behind one address.
MIN_SHARE: Final = 1000
#: Seconds to log in while slots are short. A device logs in as soon as it is connected.
SHORT_LOGIN_TIMEOUT: Final = 5.0


def max_open_files() -> int:
    """Return the number of files that this process can open with its soft limit raised fully."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def default_share(slots: int) -> int:
    """Return the number of a process's connection slots that one address may hold.

    That is half of the slots, but at least :data:`MIN_SHARE`, and at most nine tenths of the slots,
    so that others find at least one. If the process has only one slot, any address may hold it.
    """
    return max(1, min(max(slots // 2, MIN_SHARE), slots - max(1, slots // 10)))


@frozen
class BrokenLimit:
    """The limit that a new connection would exceed."""

    kind: Rejection
    reason: str
    """The limit in one line, for people to read."""


class _Silent(NamedTuple):
    """A connection that has not logged in."""

    since: float
    group: str
    give_up: Callable[[str], None]


class ConnectionLimiter:
    """Counts the open connections of a process by address, and new ones by second and address.

    If no slot is free, or an address holds all of its share, a new connection is refused. The
    oldest connection (of that address) that has not logged in within :data:`SHORT_LOGIN_TIMEOUT`
    seconds is closed, so that the next connection finds a slot. Therefore peers that do not log
    in cannot keep devices out for the whole login timeout.

    :param file_limit: maximum number of open files of the process.
    :raises ValueError: if that leaves no slot for devices.
    """

    def __init__(self, clock: IReactorTime, limits: Limits, file_limit: int = sys.maxsize) -> None:
        if file_limit <= RESERVED_FILES:
            raise ValueError(
                f"the open-file limit of {file_limit} leaves no connections for devices: "
                f"{RESERVED_FILES} are reserved; raise it (ulimit -n, LimitNOFILE)"
            )
        self.slots = min(limits.connections, file_limit - RESERVED_FILES)
        self.used = 0
        self.shares = AddressShares(limits.connections_per_address or default_share(self.slots))
        # Devices besides the first one of each connection. A peer that sends the IDs of many
        # devices on each of its connections must not use up the memory of the process.
        self._devices = 0
        self._device_shares = AddressShares(self.shares.limit)
        self.ran_out = False
        """Set when the last slot is taken; reset by :class:`~tracker.ingestion.slots.SlotWatch`."""
        self._clock = clock
        self._rates = _Rates(limits)
        # In order of age: of all addresses, and of each address with such connections.
        self._silent: dict[IConnection, _Silent] = {}
        self._silent_by_group: dict[str, dict[IConnection, None]] = {}

    def admit(self, host: str) -> BrokenLimit | None:
        """Count a new connection, or return the limit that it would exceed."""
        group = address_group(host)
        rates = self._rates
        refusal = rates.check(int(self._clock.seconds()), group)
        if refusal is not None:
            return refusal
        if self.used < self.slots and not self.shares.take(group):
            self._hurry(self._silent_by_group.get(group))
            return BrokenLimit(
                Rejection.ADDRESS_SHARE,
                f"the address has reached its maximum number of connections ({self.shares.limit})",
            )
        refusal = self.reserve()
        if refusal is None:
            rates.count(group)
        return refusal

    def reserve(self) -> BrokenLimit | None:
        """Take a slot for a connection whose address is not known yet.

        :return: the limit that the connection would exceed; None if it has a slot.
        """
        if self.used >= self.slots:
            self._hurry(self._silent)
            return BrokenLimit(
                Rejection.CONNECTION_LIMIT,
                f"the process has reached its maximum number of connections ({self.slots})",
            )
        self.used += 1
        if self.used == self.slots:
            self.ran_out = True
        return None

    def release(self) -> None:
        """Free a slot that :meth:`reserve` has taken."""
        self.used -= 1

    def opened(self, connection: IConnection, give_up: Callable[[str], None]) -> None:
        """Note that an admitted connection has no served device, and may lose its slot.

        :param give_up: closes the connection; called with the reason in one line.
        """
        group = address_group(connection.host)
        self._silent[connection] = _Silent(self._clock.seconds(), group, give_up)
        self._silent_by_group.setdefault(group, {})[connection] = None

    def logged_in(self, connection: IConnection) -> None:
        """Note that a connection has logged in, so that it keeps its slot."""
        silent = self._silent.pop(connection, None)
        if silent is not None:
            of_group = self._silent_by_group[silent.group]
            del of_group[connection]
            if not of_group:
                del self._silent_by_group[silent.group]

    def closed(self, connection: IConnection) -> None:
        """Free the slot of a connection that was admitted."""
        self.logged_in(connection)
        for _ in range(len(connection.device_ids) - 1):
            self.remove_device(connection)
        self.shares.release(connection.host)
        self.release()

    def add_device(self, connection: IConnection) -> BrokenLimit | None:
        """Count a device that is already in ``device_ids``, unless it is the only one there.

        :return: the limit that it would exceed; it is not counted then.
        """
        if len(connection.device_ids) <= 1:
            return None
        if self._devices >= self.slots:
            reason = f"connections are shared by the maximum number of devices ({self.slots})"
            return BrokenLimit(Rejection.CONNECTION_LIMIT, reason)
        if not self._device_shares.take(connection.host):
            limit = self._device_shares.limit
            reason = f"the address has reached its maximum number of further devices ({limit})"
            return BrokenLimit(Rejection.ADDRESS_SHARE, reason)
        self._devices += 1
        return None

    def remove_device(self, connection: IConnection) -> None:
        """Uncount one of several devices of a connection."""
        self._devices -= 1
        self._device_shares.release(connection.host)

    def _hurry(
        self, connections: dict[IConnection, _Silent] | dict[IConnection, None] | None
    ) -> None:
        """Close the first of these connections if its :data:`SHORT_LOGIN_TIMEOUT` is over."""
        connection = next(iter(connections or ()), None)
        if connection is None:
            return
        silent = self._silent[connection]
        if self._clock.seconds() - silent.since >= SHORT_LOGIN_TIMEOUT:
            self.logged_in(connection)  # so that it is not closed twice
            silent.give_up(
                f"no login within {format_duration(SHORT_LOGIN_TIMEOUT)}, "
                "and other connections need its slot"
            )


class _Rates:
    """Counts the new connections of the current second, in total and by address."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.connection_rate
        self._limit_by_group = limits.connection_rate_per_address
        self._second = 0
        self._new = 0
        # Emptied every second; its size is limited by the number of connections admitted in one.
        self._new_by_group: dict[str, int] = {}

    def check(self, second: int, group: str) -> BrokenLimit | None:
        """Return the limit that another connection would exceed, if any."""
        if second != self._second:
            self._second = second
            self._new = 0
            self._new_by_group.clear()
        if self._new >= self._limit:
            reason = f"more than {counted(self._limit, 'new connection')} per second"
        elif self._new_by_group.get(group, 0) >= self._limit_by_group:
            limit = counted(self._limit_by_group, "new connection")
            reason = f"more than {limit} per second from one address"
        else:
            return None
        return BrokenLimit(Rejection.CONNECTION_RATE, reason)

    def count(self, group: str) -> None:
        """Count a connection that was admitted, after :meth:`check`."""
        self._new += 1
        self._new_by_group[group] = self._new_by_group.get(group, 0) + 1
