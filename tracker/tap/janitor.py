"""``twistd tracker janitor``, and the options of all roles that trim streams."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry

from tracker import config
from tracker.config import ConfigError
from tracker.janitor.retention import Retention
from tracker.janitor.role import INTERVAL, janitor_role
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.tap.role import OFFLINE, REDIS, RoleOptions, installed_vendors, reachable, waits


class TrimmingOptions(RoleOptions):
    """Options of roles that trim streams."""

    optParameters: ClassVar[list[Any]] = [
        ("retain", None, config.DEFAULT_RETAIN, "How long entries that every group has finished "
         "are kept, as 90s, 30m, 24h, 7d or none (no limit)."),
        ("retain-bytes", None, config.DEFAULT_RETAIN_BYTES, "Memory of a stream beyond which the "
         "oldest of them go, as 512M, 2G or none."),
        ("retain-dead", None, "none", "How long dead letters are kept, as 30d."),
    ]  # fmt: skip

    def retention(self) -> Retention:
        """Return the limits of streams."""
        return Retention(
            config.duration("--retain", self["retain"]),
            config.size("--retain-bytes", self["retain-bytes"]),
            config.duration("--retain-dead", self["retain-dead"]),
        )


class JanitorOptions(TrimmingOptions):
    """Streams trimmed, as far as they have been read."""

    longdesc = (
        "Trims streams by age and size, never past what a group has not finished, and removes "
        "consumers that are long gone."
    )
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        OFFLINE,
        ("interval", None, f"{INTERVAL:g}s", "Time between two rounds, as 60s."),
    ]

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        interval = config.duration("--interval", self["interval"])
        if interval is None:
            raise ConfigError("--interval: must be like 60s")
        return janitor_role(
            reactor,
            reachable(redis_address(self["redis"], os.environ), reactor),
            config.process_streams(os.environ, installed_vendors()),
            self.retention(),
            commands_wait=waits(self),
            interval=interval,
            health=health,
            metrics_registry=metrics_registry,
        )
