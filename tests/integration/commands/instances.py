"""Ingest instances without sockets: real delivery of commands on a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from tests.integration.commands.ledgers import (
    DEVICE,
    clock_of,
    is_empty,
    outbound,
    record_key,
    set_heartbeats,
)
from tests.integration.conftest import Connected
from tests.integration.intercepted import Intercepted
from tests.servers import RedisServer
from tests.system.commands import fields, statuses
from tests.unit.commands.doubles import Device
from tests.waiting import until
from tracker.commands.delivery import BATCH, CommandDelivery
from tracker.commands.ledger import CommandLedger
from tracker.commands.registration import DeviceRegistration
from tracker.commands.shared import Timing
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.authority import EveryDevice
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import Admission
from tracker.kept import KeptMemory
from tracker.keys import INGEST_GROUP
from tracker.limits import Limits
from tracker.log.redis.reader import RedisReader
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script

T = TypeVar("T")


class Interrupted(Intercepted):
    """A connection to Redis that calls a function once before or after a script runs."""

    def __init__(self, connected: Connected) -> None:
        super().__init__(
            connected.connection,
            lambda *arguments: self._reach("before", arguments),
            lambda *arguments: self._reach("after", arguments),
        )
        self._script: Script | None = None
        self._do: dict[str, Callable[[], None]] = {}
        self.happened = False

    def interrupt(self, script: Script, **do: Callable[[], None]) -> None:
        """Call a function at the next run of a script.

        :param do: ``before`` or ``after`` → function.
        """
        self._script, self._do = script, do

    def _reach(self, when: str, arguments: tuple[Any, ...]) -> Deferred[None] | None:
        script = self._script
        if script is None or arguments[1:2] not in ((script.digest,), (script.text,)):
            return None
        from twisted.internet import reactor

        # In the next reactor turn, and not within the call that has led here.
        return deferLater(reactor, 0, self._happen, when)

    def _happen(self, when: str) -> None:
        do = self._do.pop(when, None)
        if do is not None:
            self.happened = True
            do()


def reader(waiting: RedisConnection, redis: RedisConnection, name: str) -> RedisReader:
    return RedisReader(waiting, redis, group=INGEST_GROUP, name=name, entries=BATCH)


class Instance:
    """An ingest instance whose clock the test controls."""

    def __init__(self, redis: RedisServer, name: str, timing: Timing, waits: bool) -> None:
        self.name = name
        self.clock = clock_of(redis)
        self.reports: list[str | None] = []
        self.fetched: list[str] = []
        self._redis = redis
        self._reading = Connected(redis.address)
        self._commands = Connected(redis.address)
        self.redis = Interrupted(self._commands)
        self._crashed = False
        commands: Any = self.redis
        self.registration = DeviceRegistration(self.clock, commands, name, self._moved)
        self.delivery = CommandDelivery(
            self.clock,
            reader(self._reading.connection, commands, name),
            CommandLedger(self.clock, commands, name),
            name,
            timing=timing,
            waits=waits,
            fetch=self._fetch,
            condition=Condition(self.reports.append),
        )
        self.devices = ConnectedDevices(self.registration, self.delivery)
        publisher = StreamPublisher(
            self.clock, RedisWriter(commands, "telemetry:teltonika"), Condition()
        )
        self.gateway = Gateway(
            self.clock,
            "teltonika",
            publisher,
            authority=EveryDevice(),
            limiter=ConnectionLimiter(self.clock, Limits()),
            connected=self.devices,
            kept=KeptMemory(Limits().kept_memory),
        )

    async def ready(self) -> None:
        """Start all services without reading commands."""
        await self.connected()
        set_heartbeats(self._redis, self.name)
        for service in (self.registration, self.gateway, self.delivery):
            service.startService()

    async def connected(self) -> None:
        await self._reading.usable()
        await self._commands.usable()

    def login(self, device_id: str = DEVICE, busy: bool = False) -> Device:
        """Connect a device, or reconnect it."""
        connection = Device(self.gateway, device_id, busy=busy)
        assert self.gateway.admits(IPv4Address("TCP", connection.host, 40000))
        self.gateway.opened(connection)
        assert self.gateway.login(connection, device_id) is Admission.SERVED
        self.clock.advance(0)
        return connection

    def send(self, command_id: str, device_id: str = DEVICE, text: str = "", **options: Any) -> str:
        """Append a command to the stream; its text is its ID unless ``text`` is given."""
        options = {"expires_in": 86_400, **options}
        content = fields(command_id, device_id, text or command_id, **options)
        entry_id: bytes = self._redis.client.xadd(outbound(self.name), content)
        return entry_id.decode()

    async def until(self, condition: Callable[[], T], what: str, step: float = 0.0) -> T:
        """Wait in real time for a condition; advance the clock by ``step`` at each check."""

        def check() -> T:
            self.clock.advance(step)
            return condition()

        return await until(check, f"{self.name}: {what}")

    async def wait_written(self, connection: Device, *texts: str, step: float = 0.0) -> None:
        await self.until(lambda: connection.written == list(texts), f"written {texts}", step)

    async def wait_idle(self) -> None:
        """Wait until the instance holds no command."""
        await self.until(lambda: not self.delivery.held, "nothing is held")

    async def wait_held(self, entries: int) -> None:
        """Wait until the instance holds this number of entries."""
        await self.until(lambda: self.delivery.held == entries, f"{entries} are held")

    async def stop_delivery(self, step: float = 0.0) -> None:
        """Stop the delivery, as the role does before it closes connections."""
        stopped: list[object] = []
        self.delivery.stopService().addBoth(stopped.append)
        await self.until(lambda: stopped, "stopped", step)
        assert stopped == [None]

    async def crash(self) -> None:
        """Cut the connections to Redis, as the end of the process does."""
        self._crashed = True
        await self._reading.connection.stopService()
        await self._commands.connection.stopService()

    async def end(self) -> None:
        if self._crashed:
            return
        stopped: list[object] = []
        self.delivery.stopService().addBoth(stopped.append)
        await self.until(lambda: stopped, "stopped", 1.0)
        await self.crash()

    def _moved(self, device_id: str, owner: str) -> None:
        self.devices.moved(device_id, owner)

    def _fetch(self, device_id: str) -> None:
        self.fetched.append(device_id)
        self.registration.register_again(device_id)


class Instances:
    """Starts instances, and stops all of them at the end of a test."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self._started: list[Instance] = []
        self.failures: list[str] = []
        add: Any = globalLogPublisher.addObserver
        add(self._observe)

    def prepare(
        self,
        name: str = "one",
        timing: Timing = Timing(),  # noqa: B008 - it is frozen
        waits: bool = True,
    ) -> Instance:
        """Return an instance that is not started."""
        self._started.append(Instance(self._redis, name, timing, waits))
        return self._started[-1]

    async def start(self, name: str = "one", **options: Any) -> Instance:
        """Return an instance that reads its commands."""
        instance = self.prepare(name, **options)
        await instance.ready()
        instance.delivery.begin()
        return instance

    async def end(self) -> None:
        """Stop all instances; fail if an unexpected error was logged."""
        for instance in self._started:
            await instance.end()
        remove: Any = globalLogPublisher.removeObserver
        remove(self._observe)
        assert self.failures == []

    def _observe(self, event: Any) -> None:
        if "log_failure" in event:
            self.failures.append(event["log_failure"].getTraceback())


def record_of(redis: RedisServer, command_id: str = "c1") -> str:
    return (redis.client.get(record_key(command_id)) or b"").decode()


def is_claimed(redis: RedisServer, command_id: str = "c1") -> Callable[[], bool]:
    return lambda: record_of(redis, command_id).startswith("sent ")


def ended_count_is(redis: RedisServer, number: int) -> Callable[[], bool]:
    return lambda: len(statuses(redis)) == number


async def wait_ended(
    one: Instance, redis: RedisServer, expected: dict[str, str], step: float = 0.0
) -> None:
    """Wait until these commands have these final statuses, and no entry is left."""
    await one.until(lambda: expected.items() <= statuses(redis).items(), f"ended: {expected}", step)
    await one.until(lambda: is_empty(redis, outbound(one.name)), "the stream is empty", step)
    await one.wait_idle()
    for command_id, how in expected.items():
        assert record_of(redis, command_id).startswith(f"done {how.partition('/')[0]} ")


async def device_with_claim(one: Instance, redis: RedisServer, **options: Any) -> Device:
    """Return a device that is busy again after a command for it was claimed."""
    device = one.login()
    device.busy_next = [False, True]
    one.send("c1", **options)
    await one.until(is_claimed(redis), "claimed")
    await one.until(lambda: device.waiting, "waits until the connection is free")
    return device
