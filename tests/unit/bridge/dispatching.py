"""A dispatcher between the double of Directus and fake instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from twisted.internet.defer import Deferred

from tests.unit.bridge.conftest import Doubled
from tests.unit.fakes import FakeRedis
from tracker.bridge.dispatcher import Dispatcher, SendBackoff
from tracker.bridge.instances import Instances
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.pending import PendingRows
from tracker.bridge.routing import Router
from tracker.bridge.table import CommandTable
from tracker.keys import command_record
from tracker.observe.health import Condition
from tracker.position import iso_milliseconds
from tracker.runtime.backoff import Backoff

DEVICE: Final = "356307042441013"
#: Present time of the tests and of the double, in seconds since 1970.
NOW: Final = 1_795_000_000
#: The present time as a timestamp in a row.
STAMP: Final = "2026-11-18T11:06:40.000Z"


def device(number: int) -> str:
    """Return the id of a device."""
    return f"{356307042000000 + number}"


def stamp(seconds: int) -> str:
    """Return a timestamp some seconds after the time 1,000 seconds ago."""
    return iso_milliseconds((NOW - 1000 + seconds) * 1000)


class FakeInstances(Instances):
    """Instances with replies set by the test, which record the commands that they receive."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.answer: Callable[[Any], Any] = lambda command: {"status": "queued"}

    async def send_command(
        self, device_id: str, content: str | bytes, **options: Any
    ) -> dict[str, Any]:
        command = {"device_id": device_id, "content": content} | options
        self.sent.append(command)
        answer = self.answer(command)
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        defaults = {"instance_id": "one", "reason": None, "response": None}
        return {**defaults, **answer}

    @property
    def texts(self) -> list[str | bytes]:
        """The texts or bytes of the commands, in their order."""
        return [command["content"] for command in self.sent]


class FakeRecords(FakeRedis):
    """Redis with the records of commands."""

    def __init__(self) -> None:
        super().__init__(replies={"GET": self._get, "XRANGE": []})
        self.records: dict[str, str] = {}
        """Command id → the value of its record."""

    def _get(self, key: str) -> bytes | None:
        values = {
            command_record(command_id): value.encode() for command_id, value in self.records.items()
        }
        return values.get(key)


class Bench:
    """A dispatcher with its Directus, its instances and its Redis."""

    def __init__(self, subject: Doubled, interval: float = 10) -> None:
        self.double = subject.double
        self.clock = subject.clock
        self.clock.rightNow = float(NOW)
        self.instances = FakeInstances()
        self.reports: list[str | None] = []
        self.redis = FakeRecords()
        redis: Any = self.redis
        client = subject.bridge
        metrics = BridgeMetrics()
        self.dispatcher = Dispatcher(
            self.clock,
            pending=PendingRows(client),
            router=Router(self.clock, CommandTable(client, redis), self.instances, metrics),
            send_backoff=SendBackoff(
                Backoff(self.clock, max_delay=15, random=lambda: 1.0),
                Condition(self.reports.append),
            ),
            metrics=metrics,
            interval=interval,
        )
        self._agent = subject.agent

    def row(self, **fields: Any) -> str:
        """Add a row without any checks, and return its id."""
        table = self.double.tables["commands"]
        key = str(uuid4())
        table.rows[key] = dict.fromkeys(table.columns) | {
            "id": key,
            "imei": DEVICE,
            "text": "getinfo",
            "status": "pending",
            "date_created": STAMP,
            **fields,
        }
        return key

    def start(self) -> Bench:
        self.dispatcher.startService()
        self.flush()
        return self

    def pass_(self, seconds: float = 0) -> None:
        """Advance the clock in small steps."""
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)
            self._agent.flush()
        self.clock.advance(0)
        self.flush()

    def flush(self) -> None:
        for _ in range(5):
            self._agent.flush()

    def stop(self) -> list[Any]:
        """Stop the dispatcher; the returned list gets an element when it has stopped."""
        stopped: list[Any] = []
        self.dispatcher.stopService().addBoth(stopped.append)
        self.flush()
        return stopped

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self.double.rows("commands")[key]

    @property
    def pending(self) -> int:
        """Number of pending rows."""
        rows = self.double.rows("commands").values()
        return sum(row["status"] == "pending" for row in rows)

    @property
    def requests(self) -> int:
        """Number of requests to Directus."""
        return len(self.double.requests)
