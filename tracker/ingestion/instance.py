"""An ingest instance, as its control port shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from tracker.command import Command
from tracker.commands.delivery import CommandDelivery
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.draining import Drain
from tracker.ingestion.gateway import Gateway
from tracker.interfaces import (
    ConnectionFacts,
    IInstance,
    IVendor,
    Observer,
    Traffic,
)
from tracker.position import iso_milliseconds


@implementer(IInstance)
class Instance(Service):
    """One ingest process.

    :param gateways: vendor → its gateway.
    :param streams: names of the streams to which the instance appends positions.
    :param ports: the services that listen for connections.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        instance_id: str,
        *,
        gateways: Mapping[IVendor, Gateway],
        connected: ConnectedDevices,
        streams: Sequence[str],
        delivery: CommandDelivery,
        ports: Sequence[IService],
    ) -> None:
        self.instance_id = instance_id
        self.started_at = ""
        self.streams = streams
        self.draining = False
        self._clock = clock
        self._gateways = gateways
        self._connected = connected
        self._vendors = {vendor.name: vendor for vendor in gateways}
        self._delivery = delivery
        self._drain = Drain(
            clock, gateways.values(), connected=connected, delivery=delivery, ports=ports
        )
        self._observers: dict[str, list[Observer]] = {}
        self._last_heard: dict[str, str] = {}
        """Watched device → the vendor of its last event."""
        self._drains: set[Deferred[tuple[int, int]]] = set()

    def startService(self) -> None:
        """Note the time of the start."""
        super().startService()
        self.started_at = iso_milliseconds(int(self._clock.seconds() * 1000))

    def stopService(self) -> Deferred[None]:
        """Stop draining, because all connections are about to be closed."""
        super().stopService()
        drains, self._drains = self._drains, set()
        for drain in drains:
            drain.cancel()
        return succeed(None)

    def counts(self) -> dict[str, int]:
        """See IInstance."""
        gateways = self._gateways.values()
        return {
            "connections": sum(gateway.connections for gateway in gateways),
            "devices": len(self._connected),
            "commands_held": self._delivery.held,
        }

    def devices(self, vendor: str | None) -> Iterable[str]:
        """See IInstance."""
        return self._connected.ids(vendor)

    def connection(self, device_id: str) -> ConnectionFacts | None:
        """See IInstance."""
        found = self._connected.find(device_id)
        if found is None:
            return None
        figures = found.connection.figures()
        return ConnectionFacts(device_id, found.vendor, found.connection.peer, figures)

    def commands(self, device_id: str) -> tuple[int, bool]:
        """See IInstance."""
        return self._delivery.backlog(device_id)

    def held_command(self, command_id: str) -> Command | None:
        """See IInstance."""
        return self._delivery.command(command_id)

    def drop(self, device_id: str) -> str | None:
        """See IInstance."""
        found = self._connected.find(device_id)
        if found is None:
            return None
        found.connection.close()
        return found.connection.peer

    def watch(self, device_id: str, observer: Observer) -> bool:
        """See IInstance."""
        observers = self._observers.setdefault(device_id, [])
        observers.append(observer)
        if len(observers) == 1:

            def notify_all(vendor: str, kind: Traffic, data: bytes) -> None:
                self._last_heard[device_id] = vendor
                for one in list(observers):
                    try:
                        one(kind, data)
                    except Exception:  # noqa: BLE001 - must not end the device's connection
                        self._log.failure("observer of {device} failed", device=device_id)

            self._connected.watch(device_id, notify_all)
        return self._connected.find(device_id) is not None

    def unwatch(self, device_id: str, observer: Observer) -> None:
        """See IInstance."""
        observers = self._observers.get(device_id, [])
        if observer not in observers:
            return
        observers.remove(observer)
        if not observers:
            del self._observers[device_id]
            self._last_heard.pop(device_id, None)
            self._connected.watch(device_id, None)

    def describe(self, device_id: str, data: bytes, kind: Traffic) -> dict[str, Any]:
        """See IInstance."""
        # The connection of an event may have ended, and the device may be another vendor's by now.
        name = self._last_heard.get(device_id)
        if name is None and (found := self._connected.find(device_id)) is not None:
            name = found.vendor
        return {"hex": data.hex()} if name is None else self._vendors[name].describe(data, kind)

    def drain(self, seconds: float) -> Deferred[tuple[int, int]]:
        """See IInstance."""
        self.draining = True
        drained: Deferred[tuple[int, int]] = Deferred(lambda _: None)
        draining = Deferred.fromCoroutine(self._drain.run(seconds))
        self._drains.add(draining)

        # The caller may cancel its Deferred; the drain continues nevertheless.
        def done(result: Any) -> None:
            self._drains.discard(draining)
            if not drained.called:
                drained.callback(result)

        draining.addBoth(done)
        return drained
