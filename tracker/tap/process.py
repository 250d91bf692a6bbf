"""``twistd tracker process``, and the options of each role that stores positions."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry

from tracker import config
from tracker.clock import ClockRule
from tracker.config import ConfigError
from tracker.interfaces import INaming
from tracker.observe.health import Health
from tracker.processing.consumer import BatchOptions
from tracker.processing.naming import namings_of
from tracker.processing.service import process_role
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.settings import options_of
from tracker.storage.sinks import KINDS, make_sink
from tracker.tap.role import (
    DEFAULT_MODEL,
    REDIS,
    RoleOptions,
    checked_address,
)
from tracker.vendors.installed import installed_vendors


class StoringOptions(RoleOptions):
    """Options of roles that store positions."""

    optParameters: ClassVar[list[Any]] = [
        DEFAULT_MODEL,
        *((name, None, default, text) for name, default, text in options_of(ClockRule)),
    ]
    optFlags: ClassVar[list[Any]] = [
        ("names", None, "Also store attributes by name, with units and scaled values."),
    ]

    def __init__(self) -> None:
        self["names-map"] = []
        super().__init__()

    def opt_names_map(self, value: str) -> None:
        """Names of a model from a CSV file: [VENDOR:]MODEL=FILE; needs --names; may be repeated."""
        self["names-map"].append(value)

    def namings(self) -> dict[str, INaming] | None:
        """Return vendor → naming of its attributes, or None without ``--names``.

        :raises ConfigError: if an option or a file is not valid.
        """
        if not self["names"]:
            if self["names-map"]:
                raise ConfigError("--names-map requires --names")
            if self["default-model"] is not None:
                raise ConfigError("--default-model requires --names")
            return None
        return namings_of(self["names-map"], self["default-model"])


class ProcessOptions(StoringOptions):
    """Options of a processor."""

    longdesc = (
        "Stores positions from the streams in the database, and acknowledges entries to Redis "
        "once the database has committed them."
    )
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        (
            "sink",
            None,
            None,
            f"Destination of positions: {KINDS}. [default: TRACKER_SINK; required]",
        ),
        (
            "consumer",
            None,
            None,
            "Name of this processor in the consumer group; it must be the same after a restart. "
            "[default: CONSUMER_NAME, or the host name and -1]",
        ),
        *((name, None, default, text) for name, default, text in options_of(BatchOptions)),
    ]
    optFlags: ClassVar[list[Any]] = [
        ("no-migrate", None, "Do not create or upgrade tables; use tracker-admin migrate."),
    ]

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        clocks = config.settings(ClockRule, self)
        return process_role(
            reactor=reactor,
            address=checked_address(redis_address(self["redis"], os.environ), reactor),
            vendors=config.process_streams(os.environ, installed_vendors()),
            consumer=config.stable_name(
                "--consumer", self["consumer"], os.environ, "CONSUMER_NAME"
            ),
            sink=open_sink(
                reactor,
                config.sink_url(self["sink"], os.environ),
                clocks,
                migrate=not self["no-migrate"],
            ),
            health=health,
            abort=abort,
            options=config.settings(BatchOptions, self),
            clocks=clocks,
            namings=self.namings(),
            metrics_registry=metrics_registry,
        )


def open_sink(reactor: Reactor, url: str, clocks: ClockRule, *, migrate: bool = True) -> Any:
    """Return the sink of a URL.

    :param clocks: the rule that times of records must meet.
    :param migrate: True to create or upgrade its tables.
    :raises ConfigError: if the URL is not valid.
    """
    try:
        return make_sink(reactor, url, clocks=clocks, migrate=migrate)
    except ValueError as error:
        raise ConfigError(f"--sink: {error}") from None
