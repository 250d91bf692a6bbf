"""Construction of the process role."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.interfaces import INaming, IPositionSink
from tracker.keys import PROCESSOR_GROUP
from tracker.log.redis.checkpointpublisher import CheckpointPublisher
from tracker.log.redis.lagmetrics import LagMetrics
from tracker.log.redis.reader import RedisReader
from tracker.observe.health import Health
from tracker.processing.consumer import WATCHDOG_TIMEOUT, BatchOptions, Consumer
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.naming import Namer
from tracker.processing.reading import READ_WAIT
from tracker.processing.unread import UnreadStreams
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import REPLY_TIMEOUT, RedisConnection
from tracker.redis.metrics import RedisMetrics
from tracker.runtime.lifecycle import Abort, Role


def process_role(
    *,
    reactor: Reactor,
    address: RedisAddress,
    vendors: Mapping[str, str],
    consumer: str,
    sink: IPositionSink,
    health: Health,
    abort: Abort,
    options: BatchOptions,
    clocks: ClockRule = DEFAULT_CLOCKS,
    namings: Mapping[str, INaming] | None = None,
    metrics_registry: CollectorRegistry | None = None,
) -> Role:
    """Build the process role, without opening connections or files.

    :param address: the address of Redis.
    :param vendors: stream → the vendor of its positions.
    :param consumer: the name of the consumer in the group ``processor``.
    :param clocks: the rule that times of records must meet.
    :param namings: vendor → the names of its attributes; None: attributes are not named.
    :param metrics_registry: the registry to which the metrics are added; None: lag and Redis are
        not monitored.
    """
    role = Role()
    role.setName("process")
    commands = RedisConnection(reactor, address, health.condition("redis (process)"))
    reading = RedisConnection(
        reactor,
        address,
        health.condition("redis (process, reading)"),
        reply_timeout=READ_WAIT + REPLY_TIMEOUT,
    )
    reading.setServiceParent(role)
    commands.setServiceParent(role)
    namer: Namer | None = None
    if namings is not None:
        namer = Namer(reactor, commands, namings)
        namer.setServiceParent(role)
    reader = RedisReader(
        reading,
        commands,
        group=PROCESSOR_GROUP,
        name=consumer,
        entries=options.batch_size,
        size=options.batch_bytes,
        # Two batches are in progress, and their entries may have been read one by one.
        publisher=CheckpointPublisher(reactor, commands, max_parts=4 * options.batch_size),
    )
    Consumer(
        clock=reactor,
        reader=reader,
        vendors=vendors,
        sink=sink,
        condition=health.condition("consumer"),
        abort=abort,
        options=options,
        metrics=ProcessMetrics(vendors, metrics_registry),
        clocks=clocks,
        name_attributes=None if namer is None else namer.name,
        watchdog=health.watchdog("consumer", WATCHDOG_TIMEOUT),
    ).setServiceParent(role)
    unread = UnreadStreams(
        reactor, commands, vendors, health.condition("streams"), metrics_registry=metrics_registry
    )
    unread.setServiceParent(role)
    if metrics_registry is not None:
        LagMetrics(
            reactor, commands, vendors, health=health, metrics_registry=metrics_registry
        ).setServiceParent(role)
        RedisMetrics(reactor, commands, metrics_registry).setServiceParent(role)
    return role
