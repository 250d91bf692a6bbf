"""Assemble the console role."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence

import attrs
from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import Logger

from tracker.console.access import Access
from tracker.console.commands import CommandLog
from tracker.console.devices import Devices
from tracker.console.events import Broadcast
from tracker.console.files import static_files
from tracker.console.frames import Frames
from tracker.console.operators import Operators
from tracker.console.ports import ControlPorts
from tracker.console.requests import HostNames
from tracker.console.sampler import WATCHDOG_TIMEOUT, Sampler, Thresholds
from tracker.console.sessions import Sessions
from tracker.console.site import ConsoleParts, ConsoleSite, Tiles
from tracker.console.snapshot import take_snapshot
from tracker.control.pool import Credentials
from tracker.interfaces import INaming
from tracker.log.redis.stranded import StrandedStreams
from tracker.net.endpoints import readable
from tracker.net.listener import Listener
from tracker.net.reports import HTTPReports
from tracker.net.tls import TLSEndpoint
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.runtime.lifecycle import Abort, Role
from tracker.storage.reader import PositionReader


@frozen
class ConsoleSettings:
    """Settings of the console's web server."""

    description: str
    """Description of the endpoint, for messages."""
    endpoint: IStreamServerEndpoint
    operators: Operators | None
    session_key: bytes
    """Key that signs the sessions' cookies."""
    host_names: HostNames
    may_send: bool = True


class _Invitation(Service):
    """Logs the URL of the console, once the process is ready."""

    _log = Logger()

    def __init__(self, listener: Listener, secure: bool, health: Health) -> None:
        self._listener = listener
        self._scheme = "https" if secure else "http"
        self._health = health

    def startService(self) -> None:
        """Wait until the process is ready."""
        super().startService()
        self._health.when_ready().addCallback(lambda _: self._invite())

    def _invite(self) -> None:
        address = self._listener.address
        if not isinstance(address, IPv4Address | IPv6Address):
            return
        if address.host in ("0.0.0.0", "::"):  # noqa: S104 - any interface
            address = attrs.evolve(address, host=socket.gethostname())
        self._log.info(
            "console: {scheme}://{address}/", scheme=self._scheme, address=readable(address)
        )


def console_role(
    reactor: Reactor,
    address: RedisAddress,
    *,
    streams: Iterable[str],
    settings: ConsoleSettings,
    positions: PositionReader | None,
    namings: Mapping[str, INaming],
    credentials: Credentials,
    controls: Sequence[str],
    thresholds: Thresholds,
    tiles: Tiles | None,
    health: Health,
    abort: Abort,
    metrics_registry: CollectorRegistry | None = None,
) -> Role:
    """Build the console role; nothing is opened before it starts.

    :param streams: streams of positions, in addition to those that instances advertise.
    :param positions: reads the sink; None if no sink is given.
    :param controls: addresses of control ports, in addition to those that instances advertise.
    :param abort: called if the endpoint cannot listen.
    :param metrics_registry: registers the metrics; None for no metrics.
    """
    role = Role()
    role.setName("console")
    streams = list(streams)
    usable = health.condition("redis (console)")
    redis = RedisConnection(reactor, address, usable)
    ports = ControlPorts(reactor, credentials, controls)
    commands = CommandLog(reactor, redis)
    broadcast = Broadcast(reactor)
    stranded = StrandedStreams(reactor, redis, streams)
    sampler = Sampler(
        reactor,
        take_snapshot=lambda: take_snapshot(redis, streams, stranded.streams),
        commands=commands,
        ports=ports,
        thresholds=thresholds,
        publish=broadcast.publish,
        watchdog=health.watchdog("samples", WATCHDOG_TIMEOUT),
    )
    usable.listen(sampler.redis_is)
    devices = Devices(reactor, redis, positions=positions, ports=ports, namings=namings)
    frames = Frames(reactor, devices.owner, ports, broadcast)
    access = Access(reactor, Sessions(reactor, settings.session_key), settings.operators)
    parts = ConsoleParts(
        access=access,
        sampler=sampler,
        broadcast=broadcast,
        frames=frames,
        devices=devices,
        commands=commands,
        ports=ports,
        thresholds=thresholds,
        tiles=tiles,
        may_send=settings.may_send,
    )
    if positions is not None:
        positions.setServiceParent(role)
    for service in (redis, ports, stranded, sampler, frames, broadcast):
        service.setServiceParent(role)
    reports = HTTPReports(reactor, "console", "console", metrics_registry)
    site = ConsoleSite(parts, static_files(), reports).site(reactor, settings.host_names)
    listener = Listener(settings.description, settings.endpoint, site, abort)
    secure = isinstance(settings.endpoint, TLSEndpoint)
    listener.setServiceParent(role)
    _Invitation(listener, secure, health).setServiceParent(role)
    return role
