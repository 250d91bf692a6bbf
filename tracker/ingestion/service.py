"""The ingest role: its ports, gateways, publishers, commands and heartbeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.application.service import IService

from tracker.commands.delivery import BATCH, READ_WAIT, CommandDelivery
from tracker.commands.delivery import WATCHDOG_TIMEOUT as DELIVERY_TIMEOUT
from tracker.commands.ledger import CommandLedger
from tracker.commands.registration import DeviceRegistration
from tracker.commands.shared import Timing
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.authority import AllowList, CheckedImei, EveryDevice
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.heartbeat import WATCHDOG_TIMEOUT as HEARTBEAT_TIMEOUT
from tracker.ingestion.heartbeat import Heartbeat
from tracker.ingestion.instance import Instance
from tracker.ingestion.metrics import IngestMetrics
from tracker.ingestion.publisher import WATCHDOG_TIMEOUT as PUBLISHER_TIMEOUT
from tracker.ingestion.publisher import StreamPublisher
from tracker.ingestion.slots import SlotWatch
from tracker.interfaces import Admission, IDeviceAuthority, IVendor
from tracker.kept import KeptMemory
from tracker.keys import INGEST_GROUP
from tracker.log.redis.reader import RedisReader
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import REPLY_TIMEOUT, RedisConnection
from tracker.redis.durability import DurabilityCheck
from tracker.runtime.lifecycle import Abort, Role
from tracker.vendors.installed import installed_vendors


@frozen
class Port:
    """One port for one vendor's devices."""

    vendor: IVendor
    listener: Callable[[Gateway], IService]
    """Returns the service that listens for the vendor's devices, for a gateway."""


@frozen
class Devices:
    """Options for the admission of devices."""

    allow_list: bool = False
    """True: serve only devices in ``devices:allowed``."""
    unknown: Admission = Admission.REFUSED
    """Decision on devices that are not in the allow-list."""
    luhn: bool = False
    """True: refuse each IMEI with an invalid check digit."""


@frozen
class Commands:
    """Options for the delivery of commands."""

    timing: Timing
    wait: bool = True
    """True: a command to an offline device waits; False: it fails."""


class IngestRole(Role):
    """The ingest role, with the instance that its control port shows."""

    instance: Instance


def ingest_role(
    reactor: Reactor,
    address: RedisAddress,
    instance_id: str,
    *,
    ports: Sequence[Port],
    streams: Mapping[str, str],
    devices: Devices,
    commands: Commands,
    limiter: ConnectionLimiter,
    kept: KeptMemory,
    health: Health,
    abort: Abort,
    control: Callable[[], str | None] = lambda: None,
    metrics_registry: CollectorRegistry | None = None,
) -> IngestRole:
    """Build the ingest role; nothing is opened before it starts.

    :param streams: name of a vendor → the stream of its positions.
    :param kept: the memory of the instance for what outlives its connection.
    :param abort: ends the process, with a reason.
    :param control: returns the address of the control port for its clients; None if it has none.
    :param metrics_registry: registry for the role's metrics; None to register none.
    """
    role = IngestRole()
    role.setName("ingest")
    redis = RedisConnection(reactor, address, health.condition("redis (ingest)"))
    reading = RedisConnection(
        reactor,
        address,
        health.condition("redis (ingest, commands)"),
        reply_timeout=READ_WAIT + REPLY_TIMEOUT,
    )
    gateways: dict[str, Gateway] = {}

    def review() -> None:
        for gateway in gateways.values():
            gateway.logins.review()
        connected.admit_waiting()

    def on_owned() -> None:
        registration.unregister_leftovers()
        delivery.begin()

    registration = DeviceRegistration(
        reactor,
        redis,
        instance_id,
        lambda device_id, owner: connected.moved(device_id, owner),
    )
    delivery = CommandDelivery(
        reactor,
        RedisReader(reading, redis, group=INGEST_GROUP, name=instance_id, entries=BATCH),
        CommandLedger(reactor, redis, instance_id),
        instance_id,
        timing=commands.timing,
        waits=commands.wait,
        fetch=registration.register_again,
        condition=health.condition("commands"),
        watchdog=health.watchdog("commands", DELIVERY_TIMEOUT),
    )
    connected = ConnectedDevices(registration, delivery)
    authority: IDeviceAuthority = EveryDevice()
    services: list[IService] = [redis, reading, DurabilityCheck(redis)]
    if devices.allow_list:
        condition = health.condition("allow-list")
        authority = AllowList(
            reactor,
            redis,
            devices.unknown,
            condition,
            vendors=installed_vendors(),
            changed=review,
        )
        services.append(authority)
    if devices.luhn:
        authority = CheckedImei(authority)
    for vendor in {port.vendor.name: port.vendor for port in ports}:
        stream = streams[vendor]
        publisher = StreamPublisher(
            reactor,
            RedisWriter(redis, stream),
            health.condition(stream),
            health.watchdog(f"appends to {stream}", PUBLISHER_TIMEOUT),
        )
        gateways[vendor] = Gateway(
            reactor,
            vendor,
            publisher,
            authority=authority,
            limiter=limiter,
            connected=connected,
            kept=kept,
        )
        services += [gateways[vendor], publisher]
    by_stream = {streams[vendor]: gateway for vendor, gateway in gateways.items()}
    heartbeat = Heartbeat(
        reactor,
        redis,
        instance_id,
        by_stream,
        on_owned=on_owned,
        abort=abort,
        control=control,
        watchdog=health.watchdog("heartbeat", HEARTBEAT_TIMEOUT),
    )
    slots = SlotWatch(reactor, limiter, health.condition("connections"))
    health.detail("connections", slots.figures)
    listeners = [port.listener(gateways[port.vendor.name]) for port in ports]
    role.instance = Instance(
        reactor,
        instance_id,
        gateways={port.vendor: gateways[port.vendor.name] for port in ports},
        connected=connected,
        streams=sorted(by_stream),
        delivery=delivery,
        ports=listeners,
    )
    if metrics_registry is not None:
        IngestMetrics(
            gateways,
            limiter=limiter,
            kept=kept,
            delivery=delivery,
            heartbeat=heartbeat,
            metrics_registry=metrics_registry,
        )
    # Services stop in the reverse order: first new connections are refused; then commands end or
    # are passed on; then the heartbeat and the entries in the device registry are removed; then
    # records are appended or given up; then sockets are closed.
    services += [registration, heartbeat, delivery, slots, role.instance, *listeners]
    for service in services:
        service.setServiceParent(role)
    return role
