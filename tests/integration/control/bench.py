"""A client of a control port with a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.commands.ledgers import (
    clock_of,
)
from tests.servers import RedisServer
from tests.unit.control.wire import Client, PendingReply, Port
from tests.waiting import until
from tracker.commands.ledger import CommandLedger
from tracker.control.commands import (
    ControlCommand,
)
from tracker.control.operations import POLL_INTERVAL
from tracker.redis.connection import RedisConnection


class ControlBench:
    """A client of the instance ``one``, which has a real Redis and the test's clock."""

    def __init__(self, redis: RedisServer, connection: RedisConnection) -> None:
        self.redis = redis
        self.connection = connection
        self.port = Port(redis=connection, clock=clock_of(redis))
        self.client = Client(self.port)
        self.client.hello()

    @property
    def clock(self) -> Any:
        return self.port.clock

    async def ask(self, command: type[ControlCommand], **arguments: Any) -> dict[str, Any]:
        """Send a command; return the reply, or raise the error."""
        return (await self.settled(self.client.begin(command, **arguments))).result()

    async def refusal(self, command: type[ControlCommand], **arguments: Any) -> BaseException:
        """Send a command; return the error."""
        return (await self.settled(self.client.begin(command, **arguments))).error()

    async def settled(self, asked: PendingReply) -> PendingReply:
        def answered() -> bool:
            self.client.pump()
            return asked.has_reply

        await until(answered, "answered")
        return asked

    async def when(self, condition: Callable[[], object], what: str) -> None:
        """Deliver all bytes, and wait for a condition."""
        self.client.pump()
        await until(condition, what)

    async def poll(self) -> None:
        """Let the instance check several times for a final response."""
        for _ in range(5):
            self.client.pump()
            self.clock.advance(POLL_INTERVAL)
            await self.connection.execute("PING")
        self.client.pump()

    def ledger(self, who: str = "one") -> CommandLedger:
        return CommandLedger(self.clock, self.connection, who)
