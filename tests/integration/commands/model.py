"""A model of two instances, three devices and a janitor, whose clock the test controls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from tests.integration.commands.instances import reader
from tests.servers import RedisServer
from tests.system.commands import FINAL, responses
from tests.waiting import until
from tracker.command import Answer, Command, CommandFrame
from tracker.commands.deadlines import end_expired
from tracker.commands.delivery import CommandDelivery
from tracker.commands.ledger import CommandLedger
from tracker.commands.registration import DeviceRegistration
from tracker.commands.shared import Timing
from tracker.interfaces import ConnectionEnded, ConnectionFigures, IConnection, Observer
from tracker.janitor.orphans import OrphanSweeper, SweepCounts
from tracker.keys import heartbeat, outbound
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection

INSTANCES: Final = ("a", "b")

DEVICES: Final = tuple(f"35630704244{number:04}" for number in range(3))

TIMEOUT: Final = 10.0

LATE: Final = 20.0


class Wire:
    """A connection to Redis that delivers no replies after its process has crashed."""

    def __init__(self, connection: RedisConnection) -> None:
        self.crashed = False
        self.in_flight = 0
        self.dies_after: int | None = None
        """Number of Redis commands until the crash; the reply to the last one is lost."""
        self._connection = connection
        self._clock: Any = None

    @property
    def connected(self) -> bool:
        return not self.crashed and self._connection.connected

    def when_connected(self) -> Deferred[None]:
        return Deferred() if self.crashed else self._connection.when_connected()

    def execute(self, *arguments: Any) -> Deferred[Any]:
        if self.crashed:
            return Deferred()
        if self.dies_after is not None:
            self.dies_after -= 1
            self.crashed = self.dies_after <= 0
        self.in_flight += 1
        reply: Deferred[Any] = Deferred()

        def deliver(result: Any) -> None:
            self.in_flight -= 1
            if not (self.crashed or reply.called):
                reply.callback(result)  # a Failure is passed to the errbacks

        self._connection.execute(*arguments).addBoth(deliver)
        return reply


class Tokens(Enum):
    """Tokens of the commands and answers of a device."""

    NONE = "none"
    REPEATED = "repeated"
    """Commands have tokens, and the device repeats them."""
    IGNORED = "ignored"
    """Commands have tokens, which the device does not repeat."""


@define
class Device:
    """A device, and the commands that it has received."""

    device_id: str
    tokens: Tokens
    executed: list[tuple[str, float]] = field(factory=list)
    """Text (which is the command ID) and time of each command."""
    connection: ModelConnection | None = None
    refused: set[str] = field(factory=set)
    answered: set[str] = field(factory=set)


@implementer(IConnection)
class ModelConnection:
    """A connection of a device to an instance."""

    def __init__(self, instance: Instance, device: Device) -> None:
        self.device_id: str | None = device.device_id
        self.peer = "model"
        self.host = ""
        self.instance = instance
        self.device = device
        self.closed = False
        self.may_stay = False
        self.busy = False
        self.unanswered: list[tuple[str, str, float]] = []
        self.waiting: Deferred[None] | None = None

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.device.connection is self:
            self.device.connection = None
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.errback(ConnectionEnded())
        self.instance.lost(self)

    @property
    def device_ids(self) -> list[str]:
        return [self.device.device_id]

    def is_alive(self) -> bool:
        return not self.closed

    def serve(self, device_id: str) -> None:
        raise AssertionError(f"{device_id} does not wait")

    def withdraw(self, device_id: str) -> bool:
        self.close()
        return False

    def log_out(self, device_id: str) -> None:
        self.close()

    def retire(self) -> None:
        self.close()

    def figures(self) -> ConnectionFigures:
        return ConnectionFigures(0.0, 0.0, "", 0, 0)

    def observe(self, observer: Observer | None) -> None:
        """Do nothing; the test does not observe traffic."""

    def command_frame(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        token = content.decode() if self.device.tokens is not Tokens.NONE else ""
        return CommandFrame(codec or "12", content, token)

    def when_free(self, silence_limit: float = 0) -> Deferred[None]:
        if self.closed:
            return fail(ConnectionEnded())
        if not self.busy:
            return succeed(None)

        def forget(_: object) -> None:
            self.waiting = None

        self.waiting = Deferred(forget)
        return self.waiting

    def write_command(self, data: bytes, shown: bytes | None = None) -> None:
        assert not self.closed
        assert not self.busy
        now = self.instance.world.clock.seconds()
        # A device on a half-open connection never receives it, which the instance cannot notice.
        self.device.executed.append((data.decode(), now))
        self.unanswered.append((data.decode(), "12", now))

    def free(self) -> None:
        self.busy = False
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(None)

    def answer(self, refuse: bool) -> None:
        """Answer the oldest unanswered command."""
        now = self.instance.world.clock.seconds()
        repeats = self.device.tokens is Tokens.REPEATED
        if not repeats:
            # A later answer would count as the answer to the next command, as documented.
            self.unanswered = [one for one in self.unanswered if now < one[2] + TIMEOUT + LATE - 1]
        if not self.unanswered or self.closed:
            return
        text, codec, _ = self.unanswered.pop(0)
        (self.device.refused if refuse else self.device.answered).add(text)
        self.instance.delivery.answered(
            self, Answer(codec, text, refuse, token=text if repeats else "")
        )


class Instance:
    """One process of an instance, from its start to a stop or a crash."""

    def __init__(self, world: World, name: str) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed

        self.world = world
        self.name = name
        self.connections: set[ModelConnection] = set()
        self._redis = [
            RedisConnection(reactor, world.redis.address, Condition(), reply_timeout=10.0)
            for _ in range(2)
        ]
        for redis in self._redis:
            redis.startService()
        self.wire = Wire(self._redis[0])
        wire: Any = self.wire
        self.registration = DeviceRegistration(world.clock, wire, name, self._moved)
        self.delivery = CommandDelivery(
            world.clock,
            reader(self._redis[1], wire, name),
            CommandLedger(world.clock, wire, name),
            name,
            timing=Timing(late_answer=LATE),
            waits=True,
            fetch=self.registration.register_again,
            condition=Condition(),
        )

    async def start(self) -> None:
        await gatherResults([one.when_connected() for one in self._redis])
        self.world.redis.client.set(heartbeat(self.name), "{}")
        self.registration.startService()
        self.delivery.startService()
        self.registration.unregister_leftovers()
        self.delivery.begin()

    def login(self, device: Device) -> None:
        connection = ModelConnection(self, device)
        older = device.connection
        device.connection = connection
        self.connections.add(connection)
        assert connection.device_id is not None
        self.registration.register(connection.device_id)
        self.delivery.connected(connection, connection.device_id)
        if older is not None and older.instance is self:
            older.close()  # as the gateway does; at another instance it stays half-open

    def lost(self, connection: ModelConnection) -> None:
        self.connections.discard(connection)
        assert connection.device_id is not None
        if not any(one.device is connection.device for one in self.connections):
            self.registration.unregister(connection.device_id)
        self.delivery.disconnected(connection, connection.device_id)

    def _moved(self, device_id: str, owner: str) -> None:
        for connection in list(self.connections):
            if connection.device_id == device_id:
                connection.close()

    async def crash(self) -> None:
        self.wire.crashed = True
        for connection in self.connections:
            connection.closed = True
            if connection.device.connection is connection:
                connection.device.connection = None
        for redis in self._redis:
            await redis.stopService()

    async def stop(self) -> None:
        stopped = self.delivery.stopService()
        await self._advance_until(stopped)
        self.world.redis.client.delete(heartbeat(self.name))
        await self._advance_until(self.registration.stopService())
        for connection in list(self.connections):
            connection.close()
        for redis in self._redis:
            await redis.stopService()

    async def _advance_until(self, done: Deferred[None]) -> None:
        def is_done() -> bool:
            if not done.called:
                self.world.clock.advance(0.5)
            return bool(done.called)

        await until(is_done, f"{self.name} has stopped")


class World:
    """The instances, devices, commands and Redis of one run."""

    def __init__(self, redis: RedisServer, connection: RedisConnection) -> None:
        self.redis = redis
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        self.connection = connection
        kinds = zip(DEVICES, Tokens, strict=True)
        self.devices = {name: Device(name, tokens) for name, tokens in kinds}
        self.instances: dict[str, Instance] = {}
        self.commands: dict[str, Command] = {}
        self.ledger = CommandLedger(self.clock, connection, "bridge")

    async def settle(self) -> None:
        """Wait until Redis has replied to all commands and all entries are read."""
        from twisted.internet import reactor as installed

        reactor: Any = installed

        quiet = 0
        while quiet < 2:
            await deferLater(reactor, 0.001)
            self.clock.advance(0)
            living = [one for one in self.instances.values() if not one.wire.crashed]
            busy = any(one.wire.in_flight for one in living) or self._unread(living)
            quiet = 0 if busy else quiet + 1
        for one in list(self.instances.values()):
            if one.wire.crashed:
                del self.instances[one.name]
                await one.crash()

    def _unread(self, instances: Sequence[Instance]) -> bool:
        """Return True if an instance has not read all of its stream."""
        pipeline = self.redis.client.pipeline(transaction=False)
        for one in instances:
            pipeline.xinfo_groups(outbound(one.name))
        found = pipeline.execute(raise_on_error=False)  # a stream may be missing
        groups = [group for one in found if not isinstance(one, Exception) for group in one]
        return any(group["lag"] for group in groups)

    async def do(self, action: tuple[Any, ...]) -> None:
        name, *arguments = action
        await getattr(self, f"do_{name}")(*arguments)

    async def do_start(self, name: str) -> None:
        if name not in self.instances:
            self.instances[name] = Instance(self, name)
            await self.instances[name].start()

    async def do_stop(self, name: str) -> None:
        if name in self.instances:
            await self.instances.pop(name).stop()

    async def do_crash(self, name: str, forgotten: bool) -> None:
        if name in self.instances:
            await self.instances.pop(name).crash()
        if forgotten and name not in self.instances:
            self.redis.client.delete(heartbeat(name))

    async def do_crash_soon(self, name: str, commands: int) -> None:
        if name in self.instances:
            self.instances[name].wire.dies_after = commands

    async def do_look_dead(self, name: str) -> None:
        """Let the heartbeat of a living instance expire, and run a janitor."""
        self.redis.client.delete(heartbeat(name))
        await self.do_janitor()
        if name in self.instances:
            self.redis.client.set(heartbeat(name), "{}")

    async def do_submit(self, device: int, expires_in: float, direct: str | None) -> None:
        number = len(self.commands)
        content = f"c{number}"
        expires_at = self.ledger.now + int(expires_in * 1000)
        command = Command(content, DEVICES[device], content, expires_at, "", TIMEOUT)
        if number % 3 == 0:
            command = evolve(command, text="", raw=content.encode())
        self.commands[command.command_id] = command
        await self._put(command, direct)

    async def do_repeat(self, which: int, direct: str | None) -> None:
        if self.commands:
            await self._put(self.commands[f"c{which % len(self.commands)}"], direct)

    async def _put(self, command: Command, direct: str | None) -> None:
        if direct is None:
            await self.ledger.submit(command)
        else:
            await self.connection.execute("XADD", outbound(direct), "*", *command.to_fields())

    async def do_login(self, device: int, name: str) -> None:
        if name in self.instances:
            self.instances[name].login(self.devices[DEVICES[device]])

    async def do_leave(self, device: int) -> None:
        connection = self.devices[DEVICES[device]].connection
        if connection is not None:
            connection.close()

    async def do_busy(self, device: int, busy: bool) -> None:
        connection = self.devices[DEVICES[device]].connection
        if connection is not None and busy:
            connection.busy = True
        elif connection is not None:
            connection.free()

    async def do_answer(self, device: int, refuse: bool) -> None:
        connection = self.devices[DEVICES[device]].connection
        if connection is not None:
            connection.answer(refuse)

    async def do_advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def do_expiry(self) -> None:
        """Let a janitor look for expired commands between two rounds."""
        await end_expired(self.connection, CommandLedger(self.clock, self.connection, "janitor"))

    async def do_janitor(self) -> None:
        await OrphanSweeper(self.clock, self.connection, True).sweep(SweepCounts(), lambda: True)

    async def do_settle(self) -> None:
        await self.settle()

    async def end(self) -> None:
        """Advance the clock until all commands have ended."""
        for instance in self.instances.values():
            instance.wire.dies_after = None
        for seconds in (*[5] * 10, *[20] * 20):
            await self.settle()
            self._forget_dead()
            for device in self.devices.values():
                if device.connection is not None:
                    device.connection.free()
            await self.do_janitor()
            if not self.unfinished():
                break
            self.clock.advance(seconds)
        await self.settle()
        for name in list(self.instances):
            await self.do_stop(name)
        self._forget_dead()
        self.clock.advance(61)  # expires second entries that still wait
        await self.do_janitor()

    def _forget_dead(self) -> None:
        """Remove the heartbeats of crashed instances."""
        for name in set(INSTANCES) - self.instances.keys():
            self.redis.client.delete(heartbeat(name))

    def unfinished(self) -> set[str]:
        found = responses(self.redis)
        ended = {
            command_id
            for command_id, given in found.items()
            if any(response["status"] in FINAL for response in given)
        }
        return set(self.commands) - ended

    def check(self) -> Counter[str]:
        """Compare the responses with the commands that the devices have received.

        :return: reason, or status without a reason, → number of commands.
        """
        executed: dict[str, list[float]] = defaultdict(list)
        for device in self.devices.values():
            for text, at in device.executed:
                executed[text].append(at)
                assert self.commands[text].device_id == device.device_id
        found = responses(self.redis)
        assert not self.unfinished()
        assert set(found) == set(self.commands)
        for command_id, command in self.commands.items():
            statuses = [f"{one['status']}/{one['reason']}" for one in found[command_id]]
            final = found[command_id][-1]
            device = self.devices[command.device_id]
            times = executed[command_id]
            assert len(times) <= 1, (command_id, statuses)
            assert sum(one["status"] in FINAL for one in found[command_id]) == 1, statuses
            assert statuses[:-1] in ([], ["delivered/"]), statuses
            assert final["status"] in FINAL, statuses
            assert all(int(at * 1000) < command.expires_at for at in times)
            if statuses[:-1]:
                assert times
            if final["status"] in ("responded", "rejected"):
                assert final["response"] == command_id
                assert times
                given = device.refused if final["status"] == "rejected" else device.answered
                assert command_id in given
            elif final["status"] == "expired":
                assert not times, statuses
            else:
                assert final["reason"] in ("timeout", "disconnected", "in_doubt"), statuses
                assert times or final["reason"] == "in_doubt", statuses
        assert self.redis.client.keys("commands:outbound:*") == []
        assert self.redis.client.keys("commands:waiting*") == []
        return Counter(given[-1]["reason"] or given[-1]["status"] for given in found.values())
