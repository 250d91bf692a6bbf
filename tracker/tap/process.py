"""``twistd tracker process``, and the options of all roles that store positions."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry

from tracker import config
from tracker.config import ConfigError
from tracker.interfaces import INaming
from tracker.observe.health import Health
from tracker.processing.consumer import Pace
from tracker.processing.service import process_role
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.settings import options_of
from tracker.storage.sinks import KINDS, make_sink
from tracker.tap.role import REDIS, RoleOptions, installed_vendors, reachable


class StoringOptions(RoleOptions):
    """Options of roles that store positions."""

    optFlags: ClassVar[list[Any]] = [
        ("names", None, "Store the attributes by name, too, with units and scaled values."),
    ]

    def __init__(self) -> None:
        self["names-map"] = []
        super().__init__()

    def opt_names_map(self, value: str) -> None:
        """With --names, MODEL=FILE: a CSV like avl_ids.csv that holds for devices of this
        model; may be repeated."""
        self["names-map"].append(value)

    def namings(self) -> dict[str, INaming] | None:
        """Vendor → what names its attributes; None where that is not asked for."""
        if not self["names"]:
            if self["names-map"]:
                raise ConfigError("--names-map: goes with --names")
            return None
        files = config.files_by_model(self["names-map"])
        made: dict[str, INaming] = {}
        for name, vendor in installed_vendors().items():
            try:
                naming = vendor.buildNaming(files)
            except (OSError, ValueError) as error:
                raise ConfigError(f"--names-map: {error}") from None
            if naming is not None:
                made[name] = naming
        return made


class ProcessOptions(StoringOptions):
    """Stream entries in, database rows out."""

    longdesc = "Stores positions from the streams, and acknowledges them once they are committed."
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        ("sink", None, None, f"Where positions are stored: {KINDS}. [TRACKER_SINK; required]"),
        (
            "consumer",
            None,
            None,
            "This processor's name in the group, the same after a restart. [CONSUMER_NAME, "
            "else the host's name and -1]",
        ),
        *((name, None, default, text) for name, default, text in options_of(Pace)),
    ]
    optFlags: ClassVar[list[Any]] = [
        ("no-migrate", None, "Never make or upgrade tables: tracker-admin migrate does."),
    ]

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        return process_role(
            reactor=reactor,
            address=reachable(redis_address(self["redis"], os.environ), reactor),
            vendors=config.process_streams(os.environ, installed_vendors()),
            consumer=config.name_of("--consumer", self["consumer"], os.environ, "CONSUMER_NAME"),
            sink=open_sink(
                reactor, config.sink_url(self["sink"], os.environ), not self["no-migrate"]
            ),
            health=health,
            abort=abort,
            pace=config.settings(Pace, self),
            namings=self.namings(),
            metrics_registry=metrics_registry,
        )


def open_sink(reactor: Reactor, url: str, migrate: bool = True) -> Any:
    try:
        return make_sink(reactor, url, migrate)
    except ValueError as error:
        raise ConfigError(f"--sink: {error}") from None
