"""Assemble the bridge role."""

from __future__ import annotations

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint

from tracker.bridge.devices import INTERVAL as DEVICES_INTERVAL
from tracker.bridge.devices import WATCHDOG_TIMEOUT as DEVICES_TIMEOUT
from tracker.bridge.devices import DeviceSync
from tracker.bridge.dispatcher import INTERVAL, MAX_BACKOFF, Dispatcher, SendBackoff
from tracker.bridge.dispatcher import WATCHDOG_TIMEOUT as DISPATCHER_TIMEOUT
from tracker.bridge.instances import Instances
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.overdue import OverdueCommands
from tracker.bridge.pending import PendingRows
from tracker.bridge.responses import BATCH_SIZE, READ_WAIT, ResponseWriter
from tracker.bridge.responses import WATCHDOG_TIMEOUT as RESPONSES_TIMEOUT
from tracker.bridge.rest import DirectusClient
from tracker.bridge.routing import Router
from tracker.bridge.table import CommandTable
from tracker.bridge.webhook import Webhook
from tracker.control.pool import Credentials
from tracker.keys import DIRECTUS_GROUP
from tracker.log.redis.reader import RedisReader
from tracker.net.listener import Listener
from tracker.net.reports import HTTPReports
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import REPLY_TIMEOUT, RedisConnection
from tracker.runtime.backoff import Backoff
from tracker.runtime.lifecycle import Abort, Role
from tracker.settings import duration


@frozen
class Directus:
    """The address of Directus, and the token of the bridge's user."""

    url: str
    token: str


@frozen
class Hook:
    """The webhook to which Directus' Flows post."""

    name: str
    endpoint: IStreamServerEndpoint
    secret: str


@frozen
class BridgePace:
    """Intervals of the polls, which find what the webhook missed. Each is an option."""

    poll_commands: float = duration(
        INTERVAL, 0.1, 3600, "Time between two polls for pending commands."
    )
    poll_devices: float = duration(
        DEVICES_INTERVAL, 1, 86_400, "Time between two reads of all devices."
    )


class _Client(Service):
    """A service that closes the connections to Directus after all others have stopped."""

    def __init__(self, client: DirectusClient) -> None:
        self._client = client

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._client.close())


def bridge_role(
    reactor: Reactor,
    address: RedisAddress,
    directus: Directus,
    *,
    hook: Hook | None,
    name: str,
    credentials: Credentials,
    pace: BridgePace,
    health: Health,
    abort: Abort,
    metrics_registry: CollectorRegistry | None = None,
) -> Role:
    """Build the bridge role; no connection is opened before it starts.

    :param hook: the webhook; None: commands and devices are found by polling only.
    :param name: this bridge's name in the consumer group; it must not change in a restart.
    :param credentials: for control ports with TLS.
    :param health: gets the conditions and watchdogs of the parts.
    :param abort: is called with the reason if the webhook cannot listen.
    :param metrics_registry: registers the metrics; None: they are not exported.
    """
    metrics = BridgeMetrics(metrics_registry)
    role = Role()
    role.setName("bridge")
    redis = RedisConnection(reactor, address, health.condition("redis (bridge)"))
    reading = RedisConnection(
        reactor,
        address,
        health.condition("redis (bridge, reading)"),
        reply_timeout=READ_WAIT + REPLY_TIMEOUT,
    )
    client = DirectusClient(reactor, directus.url, directus.token, called=metrics.called)
    table = CommandTable(client, redis)

    def backoff(part: str, max_delay: float = 60.0) -> Backoff:
        return Backoff(reactor, max_delay=max_delay, on_failure=metrics.retrying(part))

    instances = Instances(reactor, redis, credentials, health.condition("control ports"))
    reader = RedisReader(reading, redis, group=DIRECTUS_GROUP, name=name, entries=BATCH_SIZE)
    writer = ResponseWriter(
        reactor,
        reader,
        table,
        backoff=lambda: backoff("responses"),
        condition=health.condition("responses"),
        watchdog=health.watchdog("responses", RESPONSES_TIMEOUT),
        metrics=metrics,
    )
    dispatcher = Dispatcher(
        reactor,
        pending=PendingRows(client),
        router=Router(reactor, table, instances, metrics),
        send_backoff=SendBackoff(
            backoff("commands", max_delay=MAX_BACKOFF), health.condition("commands")
        ),
        metrics=metrics,
        interval=pace.poll_commands,
        watchdog=health.watchdog("pending commands", pace.poll_commands + DISPATCHER_TIMEOUT),
    )
    devices = DeviceSync(
        reactor,
        client,
        redis,
        condition=health.condition("devices"),
        backoff=backoff("devices"),
        interval=pace.poll_devices,
        watchdog=health.watchdog("devices", DEVICES_TIMEOUT),
        metrics=metrics,
    )
    overdue = OverdueCommands(reactor, client, redis, responses=reader, table=table)
    for service in (
        *(_Client(client), redis, reading, instances),
        *(writer, devices, overdue, dispatcher),
    ):
        service.setServiceParent(role)
    reports = HTTPReports(reactor, "webhook", "bridge_webhook", metrics_registry)
    if hook is not None:
        site = Webhook(hook.secret, dispatcher, devices, metrics).site(reactor, reports)
        Listener(hook.name, hook.endpoint, site, abort).setServiceParent(role)
    return role
