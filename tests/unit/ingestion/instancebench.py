"""An ingest instance with fakes around it, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.unit.fakes import FakeConnection, FakeRedis
from tests.unit.ingestion.test_gateway import Changing, connected_devices, log_in
from tracker.command import Command
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.instance import Instance
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import (
    Admission,
    IGateway,
    IVendor,
    Traffic,
)
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition

DEVICE, OTHER, THIRD = "356307042441013", "356307042441021", "352093081452251"
Events = list[tuple[Traffic, bytes]]


@implementer(IVendor)
@define(eq=False)
class Vendor:
    """A vendor that describes traffic by its name and the bytes."""

    name: str
    settings = None
    codecs = frozenset({"8"})
    command_codecs = ("12",)
    transports = frozenset({"tcp"})
    device_id_pattern = "[0-9]{15}"
    device_id_form = "a device ID"

    def device_id(self, text: str) -> str:
        return text

    def buildFactory(self, gateway: IGateway, limits: Limits, clock: Any, settings: Any) -> Any:
        raise NotImplementedError

    def buildDatagramProtocol(
        self, gateway: IGateway, limits: Limits, clock: Any, settings: Any
    ) -> Any:
        raise NotImplementedError

    def describe(self, data: bytes, kind: Traffic) -> dict[str, Any]:
        return {self.name: data.hex(), "kind": kind.value}

    def buildNaming(self, models: Mapping[str, Path], default_model: str | None = None) -> None:
        return None


@define(eq=False)
class Connection(FakeConnection):
    """A connection on which a frame may be under way, or that does not close."""

    under_way: bool = False
    """True while a frame waits for its ACK, so that the connection does not retire."""
    lingers: bool = False
    """True to stay open after it is closed, like a connection whose peer does not read."""
    asked: list[str] = field(factory=list)

    def close(self) -> None:
        self.asked.append("close")
        if not (self.closed or self.lingers):
            super().close()

    def retire(self) -> None:
        self.asked.append("retire")
        if not self.under_way:
            self.close()

    def settle(self) -> None:
        """End the frame that is under way."""
        self.under_way = False
        if "retire" in self.asked:
            self.close()


@define(eq=False)
class Delivery:
    """A double of CommandDelivery."""

    loads: dict[str, tuple[int, bool]] = field(factory=dict)
    commands: dict[str, Command] = field(factory=dict)

    def backlog(self, device_id: str) -> tuple[int, bool]:
        return self.loads.get(device_id, (0, False))

    @property
    def held(self) -> int:
        return len(self.commands)

    def command(self, command_id: str) -> Command | None:
        return self.commands.get(command_id)


class Port(Service):
    """A listening service whose stop ends when the test says so."""

    def __init__(self) -> None:
        self.stopped: Deferred[None] = Deferred()
        self.stops = 0

    def stopService(self) -> Deferred[None]:
        self.stops += 1
        return self.stopped


class Bench:
    """An instance with two vendors' gateways."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        redis: Any = FakeRedis()
        self.authority = Changing()
        self.limiter = ConnectionLimiter(self.clock, Limits())
        self.connected = connected_devices(self.clock, redis)
        self.gateways = {
            Vendor(name): Gateway(
                self.clock,
                name,
                StreamPublisher(self.clock, RedisWriter(redis, f"telemetry:{name}"), Condition()),
                authority=self.authority,
                limiter=self.limiter,
                connected=self.connected,
                kept=KeptMemory(Limits().kept_memory),
            )
            for name in ("teltonika", "other")
        }
        for gateway in self.gateways.values():
            gateway.startService()
        self.delivery = Delivery()
        self.ports = [Port(), Port()]
        double: Any = self.delivery
        gateways: Any = self.gateways
        self.instance = Instance(
            self.clock,
            "one",
            gateways=gateways,
            connected=self.connected,
            streams=["telemetry:teltonika"],
            delivery=double,
            ports=self.ports,
        )
        self.instance.startService()

    def gateway(self, vendor: str = "teltonika") -> Gateway:
        return next(one for key, one in self.gateways.items() if key.name == vendor)

    def login(self, device_id: str, vendor: str = "teltonika", **how: Any) -> Connection:
        connection = Connection(self.gateway(vendor), **how)
        assert log_in(self.gateway(vendor), connection, device_id) is Admission.SERVED
        return connection

    def drain(self, seconds: float = 0.0) -> list[Any]:
        """Start a drain; return a list that receives its result."""
        results: list[Any] = []
        self.instance.drain(seconds).addBoth(results.append)
        return results

    def stop_listening(self) -> None:
        for port in self.ports:
            port.stopped.callback(None)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    @property
    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())
