"""The ingest role: ports, gateways, publishers and the heartbeat, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.application.service import IService

from tracker.commands.delivery import BATCH, READ_WAIT, CommandDelivery
from tracker.commands.delivery import PULSE_TIMEOUT as DELIVERY_TIMEOUT
from tracker.commands.ledger import CommandLedger
from tracker.commands.registration import Registry
from tracker.commands.shared import Timing
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.authority import AllowList, CheckedImei, EveryDevice
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.heartbeat import STUCK as HEARTBEAT_STUCK
from tracker.ingestion.heartbeat import Heartbeat
from tracker.ingestion.instance import Instance
from tracker.ingestion.metrics import IngestMetrics
from tracker.ingestion.publisher import STUCK as PUBLISHER_STUCK
from tracker.ingestion.publisher import StreamPublisher
from tracker.ingestion.slots import SlotWatch
from tracker.interfaces import Admission, IDeviceAuthority, IVendor
from tracker.keys import INGEST_GROUP
from tracker.log.redis.reader import RedisReader
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Health
from tracker.redis.address import RedisAddress
from tracker.redis.connection import REPLY_TIMEOUT, RedisConnection
from tracker.runtime.lifecycle import Abort, Role


@frozen
class Port:
    """One port for one vendor's devices."""

    vendor: IVendor
    listener: Callable[[Gateway], IService]
    """Makes the service that listens, and serves the vendor's devices by the gateway."""


@frozen
class Devices:
    """Which devices are served."""

    allow_list: bool = False
    """Only those in ``devices:allowed``."""
    unknown: Admission = Admission.REFUSED
    """What becomes of the others."""
    luhn: bool = False
    """Only those whose IMEI has a valid check digit."""


@frozen
class Commands:
    """How commands are carried to devices."""

    timing: Timing
    wait: bool = True
    """Whether a command waits for a device that is connected nowhere; else it fails."""


class IngestRole(Role):
    """The ingest role, and what there is to be seen and operated in it."""

    instance: Instance


def ingest_role(
    reactor: Any,
    address: RedisAddress,
    ports: Sequence[Port],
    streams: Mapping[str, str],
    instance_id: str,
    devices: Devices,
    commands: Commands,
    limiter: ConnectionLimiter,
    health: Health,
    abort: Abort,
    control: str | None = None,
    registry: CollectorRegistry | None = None,
) -> IngestRole:
    """Build the ingest role; nothing is opened before it starts.

    :param streams: vendor's name → the stream of its positions.
    :param control: where clients will find the control port, if there is to be one.
    :param registry: gets the metrics; None: there are none.
    """
    role = IngestRole()
    role.setName("ingest")
    redis = RedisConnection(reactor, address, health.condition("redis (ingest)"))
    redis.setServiceParent(role)
    reading = RedisConnection(
        reactor,
        address,
        health.condition("redis (ingest, commands)"),
        reply_timeout=READ_WAIT + REPLY_TIMEOUT,
    )
    reading.setServiceParent(role)
    gateways: dict[str, Gateway] = {}

    def review() -> None:
        for gateway in gateways.values():
            gateway.review()

    def moved(device_id: str, owner: str) -> None:
        for gateway in gateways.values():
            gateway.moved(device_id, owner)

    connections = Registry(reactor, redis, instance_id, moved)
    delivery = CommandDelivery(
        reactor,
        RedisReader(reading, redis, group=INGEST_GROUP, name=instance_id, entries=BATCH),
        CommandLedger(reactor, redis, instance_id),
        instance_id,
        timing=commands.timing,
        waits=commands.wait,
        fetch=connections.repeat,
        condition=health.condition("commands"),
        pulse=health.pulse("commands' loop", DELIVERY_TIMEOUT),
    )

    def begun() -> None:
        connections.disown()
        delivery.begin()

    authority: IDeviceAuthority = EveryDevice()
    if devices.allow_list:
        condition = health.condition("allow-list")
        authority = AllowList(reactor, redis, devices.unknown, condition, review)
        authority.setServiceParent(role)
    if devices.luhn:
        authority = CheckedImei(authority)
    for vendor in {port.vendor.name: port.vendor for port in ports}:
        publisher = StreamPublisher(
            reactor,
            RedisWriter(redis, streams[vendor]),
            health.condition(streams[vendor]),
            health.pulse(f"appends to {streams[vendor]}", PUBLISHER_STUCK),
        )
        gateways[vendor] = Gateway(
            reactor,
            vendor,
            publisher,
            authority=authority,
            limiter=limiter,
            registry=connections,
            delivery=delivery,
        )
        gateways[vendor].setServiceParent(role)
        publisher.setServiceParent(role)
    by_stream = {streams[vendor]: gateway for vendor, gateway in gateways.items()}
    connections.setServiceParent(role)
    heartbeat = Heartbeat(
        *(reactor, redis, instance_id, by_stream, begun, abort, control),
        pulse=health.pulse("heartbeat", HEARTBEAT_STUCK),
    )
    heartbeat.setServiceParent(role)
    delivery.setServiceParent(role)
    slots = SlotWatch(reactor, limiter, health.condition("connections"))
    slots.setServiceParent(role)
    health.detail("connections", slots.facts)
    # Last in, first out: when the role stops, no device is accepted any more, then commands
    # are brought to an end or passed on, then the heartbeat and the entries in the registry
    # are withdrawn, then records are confirmed or given up, then sockets close.
    listeners = [port.listener(gateways[port.vendor.name]) for port in ports]
    vendors = {port.vendor: gateways[port.vendor.name] for port in ports}
    if registry is not None:
        IngestMetrics(gateways, limiter, delivery, heartbeat, registry)
    role.instance = Instance(reactor, instance_id, vendors, sorted(by_stream), delivery, listeners)
    role.instance.setServiceParent(role)
    for listener in listeners:
        listener.setServiceParent(role)
    return role
