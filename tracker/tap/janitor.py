"""``twistd tracker janitor``, and the options of each role that trims streams."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry

from tracker import config
from tracker.config import ConfigError
from tracker.durations import EXAMPLES, format_duration
from tracker.janitor.retention import Retention
from tracker.janitor.role import DEFAULT_INTERVAL, janitor_role
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.tap.role import (
    OFFLINE,
    REDIS,
    RoleOptions,
    checked_address,
    commands_wait,
)
from tracker.vendors.installed import installed_vendors


class TrimmingOptions(RoleOptions):
    """Options of roles that trim streams."""

    optParameters: ClassVar[list[Any]] = [
        ("retain", None, config.DEFAULT_RETAIN, "Time to keep entries that all groups have "
         "acknowledged, such as 90s, 30m, 24h, 7d or none (no limit)."),
        ("retain-bytes", None, config.DEFAULT_RETAIN_BYTES, "Memory of a stream above which its "
         "oldest acknowledged entries are trimmed, such as 512M, 2G or none (no limit)."),
        ("retain-dead", None, "none", "Time to keep dead letters, such as 30d or none (no "
         "limit)."),
    ]  # fmt: skip

    def retention(self) -> Retention:
        """Return the limits of streams."""
        return Retention(
            config.duration("--retain", self["retain"]),
            config.size("--retain-bytes", self["retain-bytes"]),
            config.duration("--retain-dead", self["retain-dead"]),
        )


class JanitorOptions(TrimmingOptions):
    """Options of the janitor."""

    longdesc = (
        "Trims streams by age and size, but never entries that a group has not acknowledged. "
        "Removes consumers that are gone, and the device-registry entries and command streams of "
        "instances that are gone. Expires waiting commands."
    )
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        OFFLINE,
        (
            "interval",
            None,
            format_duration(DEFAULT_INTERVAL),
            "Time between two cleanups, such as 30s.",
        ),
    ]

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        interval = config.duration("--interval", self["interval"])
        if interval is None:
            raise ConfigError(f"--interval: must be like {EXAMPLES}, not 'none'")
        return janitor_role(
            reactor,
            checked_address(redis_address(self["redis"], os.environ), reactor),
            config.process_streams(os.environ, installed_vendors()),
            self.retention(),
            commands_wait=commands_wait(self),
            interval=interval,
            health=health,
            metrics_registry=metrics_registry,
        )
