"""Assemble the console role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IStreamServerEndpoint

from tracker.console.access import Access
from tracker.console.commands import CommandLog
from tracker.console.devices import Devices
from tracker.console.events import Broadcast
from tracker.console.files import static_files
from tracker.console.frames import Frames
from tracker.console.look import look
from tracker.console.operators import Operators
from tracker.console.ports import ControlPorts
from tracker.console.requests import Names
from tracker.console.sampler import WATCHDOG_TIMEOUT, Sampler, Thresholds
from tracker.console.sessions import Sessions
from tracker.console.site import Console, Parts, Tiles
from tracker.control.pool import Credentials
from tracker.interfaces import INaming
from tracker.net.listener import Listener
from tracker.net.reports import HTTPReports
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.runtime.lifecycle import Abort, Role
from tracker.storage.reader import PositionReader


@frozen
class Door:
    """The console's endpoint, and its users."""

    name: str
    """The endpoint's name for people."""
    endpoint: IStreamServerEndpoint
    operators: Operators | None
    key: bytes
    """Of the sessions."""
    names: Names
    may_send: bool = True


def console_role(
    reactor: Reactor,
    address: RedisAddress,
    *,
    streams: Iterable[str],
    door: Door,
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

    :param streams: streams of positions, besides those that instances advertise.
    :param positions: reads the sink, if it is known.
    :param controls: addresses of control ports, besides those that instances advertise.
    :param abort: called if the endpoint cannot be had.
    :param metrics_registry: registers the metrics; None: there are none.
    """
    role = Role()
    role.setName("console")
    streams = list(streams)
    usable = health.condition("redis (console)")
    redis = RedisConnection(reactor, address, usable)
    ports = ControlPorts(reactor, credentials, controls)
    commands = CommandLog(reactor, redis)
    broadcast = Broadcast(reactor)
    sampler = Sampler(
        reactor,
        see=lambda: look(redis, streams),
        commands=commands,
        ports=ports,
        thresholds=thresholds,
        publish=broadcast.publish,
        watchdog=health.watchdog("console's samples", WATCHDOG_TIMEOUT),
    )
    usable.listen(sampler.redis_is)
    devices = Devices(reactor, redis, positions=positions, ports=ports, namings=namings)
    frames = Frames(reactor, devices.owner, ports, broadcast)
    access = Access(reactor, Sessions(reactor, door.key), door.operators)
    parts = Parts(
        access=access,
        sampler=sampler,
        broadcast=broadcast,
        frames=frames,
        devices=devices,
        commands=commands,
        ports=ports,
        thresholds=thresholds,
        tiles=tiles,
        may_send=door.may_send,
    )
    if positions is not None:
        positions.setServiceParent(role)
    for service in (redis, ports, sampler, frames, broadcast):
        service.setServiceParent(role)
    reports = HTTPReports(reactor, "console", "console", metrics_registry)
    site = Console(parts, static_files(), reports).site(reactor, door.names)
    Listener(door.name, door.endpoint, site, abort).setServiceParent(role)
    return role
