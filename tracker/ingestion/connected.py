"""The devices of an ingest instance, each connected once, whichever vendors the instance serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from tracker.command import Answer
from tracker.commands.delivery import CommandDelivery
from tracker.commands.registration import DeviceRegistration
from tracker.interfaces import IConnection, Observer, Traffic


class Owner(Protocol):
    """The part of a gateway that serves the devices of its vendor."""

    vendor: str

    def log_out(self, connection: IConnection, device_id: str) -> None:
        """Remove a device from its connection, which closes if it has no other device."""

    def moved(self, connection: IConnection, device_id: str, owner: str) -> None:
        """Log out a device that is connected to another instance."""


#: Called with the vendor, the kind of each event on a device's connection, and its bytes.
Watcher = Callable[[str, Traffic, bytes], None]


class Connected(NamedTuple):
    """The connection of a served device."""

    owner: Owner
    connection: IConnection

    @property
    def vendor(self) -> str:
        """The vendor under which the device is served."""
        return self.owner.vendor


class _Waiting(NamedTuple):
    """A connection on which a device waits."""

    vendor: str
    admit: Callable[[], None]
    """Serves the device if it may be served now."""


class ConnectedDevices:
    """The devices that an instance serves, and those that wait on a connection until it does.

    All gateways of an instance share it. A device that several vendors' protocols name is served
    under one of them at a time, so that its registration and its commands have one owner.

    :param registration: the entries of the instance in the device registry.
    :param delivery: delivers commands to the served devices.
    """

    def __init__(self, registration: DeviceRegistration, delivery: CommandDelivery) -> None:
        self.serving: Counter[str] = Counter()
        """Vendor → number of connections with at least one served device."""
        self._registration = registration
        self._delivery = delivery
        self._served: dict[str, Connected] = {}  # by device
        self._numbers: dict[IConnection, int] = {}  # of served devices
        self._waiting: dict[str, dict[IConnection, _Waiting]] = {}  # by device
        self._watchers: dict[str, Watcher] = {}  # by device

    def __len__(self) -> int:
        """Return the number of served devices."""
        return len(self._served)

    def find(self, device_id: str) -> Connected | None:
        """Return the connection of a device; None if it is not served here."""
        return self._served.get(device_id)

    def ids(self, vendor: str | None = None) -> list[str]:
        """Return the IDs of the served devices, of one vendor or of all."""
        if vendor is None:
            return list(self._served)
        return [device_id for device_id, one in self._served.items() if one.vendor == vendor]

    @property
    def connections(self) -> Collection[IConnection]:
        """The connections with at least one served device."""
        return self._numbers.keys()

    def serve(self, device_id: str, owner: Owner, connection: IConnection) -> Connected | None:
        """Serve a device on a connection from now on.

        :return: its older connection, if any, which the caller has to end.
        """
        self._stop_waiting(device_id, connection)
        older = self._served.get(device_id)
        if older is not None:
            self._uncount(older)
        self._served[device_id] = Connected(owner, connection)
        number = self._numbers.get(connection, 0)
        self._numbers[connection] = number + 1
        self.serving[owner.vendor] += number == 0
        self._registration.register(device_id, owner.vendor)
        self._delivery.connected(connection, device_id)
        self.notify(device_id, owner.vendor, Traffic.CONNECTED, connection.peer.encode())
        self._observe(device_id, owner.vendor, connection)
        return older

    def wait(
        self, device_id: str, owner: Owner, connection: IConnection, *, admit: Callable[[], None]
    ) -> None:
        """Note that a device is not served, or no longer, but stays connected.

        :param admit: called when the device may have to be served; it decides.
        """
        self._stop_serving(device_id, connection)
        self._waiting.setdefault(device_id, {})[connection] = _Waiting(owner.vendor, admit)
        self._observe(device_id, owner.vendor, connection)

    def leave(self, device_id: str, owner: Owner, connection: IConnection) -> None:
        """Note that a device has left a connection, which may continue for other devices."""
        self._stop_waiting(device_id, connection)
        if self._stop_serving(device_id, connection):
            self.notify(device_id, owner.vendor, Traffic.DISCONNECTED, connection.peer.encode())
            for one in list(self._waiting.get(device_id, {}).values()):
                one.admit()
        self._observe(device_id, owner.vendor, connection)

    def moved(self, device_id: str, instance_id: str) -> None:
        """Log out a device that is connected to another instance."""
        found = self._served.get(device_id)
        if found is not None:
            found.owner.moved(found.connection, device_id, instance_id)

    def admit_waiting(self) -> None:
        """Admit the devices that may be served now; of several connections the newest wins."""
        for waiting in list(self._waiting.values()):
            for one in list(waiting.values()):
                one.admit()

    @property
    def waiting(self) -> set[IConnection]:
        """The connections without a served device, on which a device waits."""
        return {
            connection
            for connections in self._waiting.values()
            for connection in connections
            if connection not in self._numbers
        }

    def is_serving(self, connection: IConnection) -> bool:
        """Return True if a device is served on a connection."""
        return connection in self._numbers

    def answered(self, connection: IConnection, answer: Answer) -> None:
        """Pass on a text of a device that may be the answer to a command."""
        self._delivery.answered(connection, answer)

    # Observers.

    def watch(self, device_id: str, watcher: Watcher | None) -> None:
        """Notify a watcher of the traffic on all connections of a device; None removes it.

        It is notified of all traffic on a connection that devices share.
        """
        if watcher is not None:
            self._watchers[device_id] = watcher
        elif self._watchers.pop(device_id, None) is None:
            return
        for connection, waiting in self._waiting.get(device_id, {}).items():
            connection.observe(self._observer(waiting.vendor, connection))
        if (found := self._served.get(device_id)) is not None:
            found.connection.observe(self._observer(found.vendor, found.connection))

    def notify(self, device_id: str | None, vendor: str, kind: Traffic, data: bytes) -> None:
        """Notify the watcher of a device, if any."""
        if device_id in self._watchers:
            self._watchers[device_id](vendor, kind, data)

    def _observe(self, device_id: str, vendor: str, connection: IConnection) -> None:
        """Set the observer of a connection that a watched device has joined or left."""
        if device_id in self._watchers:
            connection.observe(self._observer(vendor, connection))

    def _observer(self, vendor: str, connection: IConnection) -> Observer | None:
        """Return an observer that notifies the watchers of all devices of a connection."""
        watched = [one for one in connection.device_ids if one in self._watchers]
        watchers = [self._watchers[one] for one in watched]
        if not watchers:
            return None

        def notify(kind: Traffic, data: bytes) -> None:
            for one in watchers:
                one(vendor, kind, data)

        return notify

    def _stop_serving(self, device_id: str, connection: IConnection) -> bool:
        """Return False if the device is not served on this connection."""
        found = self._served.get(device_id)
        if found is None or found.connection is not connection:
            return False
        del self._served[device_id]
        self._uncount(found)
        self._registration.unregister(device_id)
        self._delivery.disconnected(connection, device_id)
        return True

    def _uncount(self, one: Connected) -> None:
        number = self._numbers[one.connection] - 1
        if number:
            self._numbers[one.connection] = number
        else:
            del self._numbers[one.connection]
            self.serving[one.vendor] -= 1

    def _stop_waiting(self, device_id: str, connection: IConnection) -> None:
        waiting = self._waiting.get(device_id)
        if waiting is not None and waiting.pop(connection, None) is not None and not waiting:
            del self._waiting[device_id]
