"""The ingest role: listeners, gateways, publishers and the heartbeat, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IStreamServerEndpoint

from tracker.ingestion.gateway import Gateway
from tracker.ingestion.heartbeat import Heartbeat
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import IVendor
from tracker.lifecycle import Abort, Listener, Role
from tracker.observe.health import Health
from tracker.streams.address import RedisAddress
from tracker.streams.connection import RedisConnection


@frozen
class Port:
    """One endpoint for one vendor's devices."""

    name: str
    """As it was given: ``teltonika=tcp:5027``."""
    vendor: IVendor
    endpoint: IStreamServerEndpoint


def ingest_role(
    reactor: Any,
    address: RedisAddress,
    ports: Sequence[Port],
    streams: Mapping[str, str],
    instance_id: str,
    health: Health,
    abort: Abort,
) -> Role:
    """Build the ingest role; nothing is opened before it starts.

    :param streams: vendor's name → the stream of its positions.
    """
    role = Role()
    role.setName("ingest")
    redis = RedisConnection(reactor, address, health.condition("redis (ingest)"))
    redis.setServiceParent(role)
    gateways: dict[str, Gateway] = {}
    listeners: list[Listener] = []
    for port in ports:
        vendor = port.vendor.name
        gateway = gateways.get(vendor)
        if gateway is None:
            stream = streams[vendor]
            publisher = StreamPublisher(reactor, redis, stream, health.condition(stream))
            gateway = gateways[vendor] = Gateway(reactor, vendor, publisher)
            gateway.setServiceParent(role)
            publisher.setServiceParent(role)
        factory = port.vendor.buildFactory(gateway)
        listeners.append(Listener(port.name, port.endpoint, factory, abort))
    by_stream = {streams[vendor]: gateway for vendor, gateway in gateways.items()}
    Heartbeat(reactor, redis, instance_id, by_stream).setServiceParent(role)
    # Last in, first out: when the role stops, no device is accepted any more, then the
    # heartbeat is withdrawn, then records are confirmed or given up, then sockets close.
    for listener in listeners:
        listener.setServiceParent(role)
    return role
