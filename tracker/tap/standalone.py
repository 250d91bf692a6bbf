"""``twistd tracker standalone``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from twisted.logger import Logger

from tracker import config
from tracker.clock import ClockRule
from tracker.config import ConfigError
from tracker.console.requests import CONSOLE_LIMITS
from tracker.control.pool import Credentials
from tracker.control.sockets import STANDALONE_SOCKET
from tracker.interfaces import INaming
from tracker.janitor.role import DEFAULT_INTERVAL, janitor_role
from tracker.observe.health import Health
from tracker.processing.consumer import BatchOptions
from tracker.processing.naming import namings_of
from tracker.processing.service import process_role
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.embedded import EmbeddedRedis, find_server, socket_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.tap.console import ServingConsoleOptions, open_position_reader
from tracker.tap.ingest import ServingOptions
from tracker.tap.janitor import TrimmingOptions
from tracker.tap.process import StoringOptions, open_sink
from tracker.tap.role import commands_wait
from tracker.vendors.installed import installed_vendors


class StandaloneOptions(ServingOptions, StoringOptions, TrimmingOptions, ServingConsoleOptions):
    """Options of all roles in one process, with its own Redis and SQLite."""

    longdesc = (
        "Runs all roles but the bridge in one process. It starts its own Redis or Valkey server, "
        "and stores positions in SQLite. All its data is in one folder. By default, it serves "
        "devices on 127.0.0.1 only."
    )
    default_listen = config.DEFAULT_STANDALONE_LISTEN
    _log = Logger()
    optParameters: ClassVar[list[Any]] = [
        ("data", None, None, "Folder for all data. [default: TRACKER_DATA, or ./tracker-data]"),
        ("console", None, None, "Endpoint of the console: tcp:PORT (this machine only), or "
         "ssl:PORT:privateKey=FILE:certKey=FILE[:interface=ADDRESS] with --operators; or none. "
         f"[default: {config.DEFAULT_CONSOLE} if that port is free]"),
    ]  # fmt: skip

    def other_files(self) -> int:
        """See ServingOptions; counts the console's connections, SQLite and Redis."""
        return 0 if self["console"] == "none" else CONSOLE_LIMITS.connections + 64

    def control_socket(self, instance_id: str) -> Path:
        """See ServingOptions."""
        return config.data_folder(self["data"], os.environ) / STANDALONE_SOCKET

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        vendors = installed_vendors()
        folder = config.data_folder(self["data"], os.environ)
        name = config.stable_name("--instance-id", self["instance-id"], os.environ, "INSTANCE_ID")
        try:
            program = find_server()
            address = socket_address(folder)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        clocks = config.settings(ClockRule, self)
        namings = self.namings()
        role = Role()
        EmbeddedRedis(reactor, program, folder, abort).setServiceParent(role)
        process_role(
            reactor=reactor,
            address=address,
            vendors=config.process_streams(os.environ, vendors),
            consumer=name,
            sink=open_sink(reactor, f"sqlite:{folder / 'positions.sqlite'}", clocks),
            health=health,
            abort=abort,
            options=BatchOptions(),
            clocks=clocks,
            namings=namings,
            metrics_registry=metrics_registry,
        ).setServiceParent(role)
        janitor_role(
            reactor,
            address,
            config.process_streams(os.environ, vendors),
            self.retention(),
            commands_wait=commands_wait(self),
            interval=DEFAULT_INTERVAL,
            health=health,
            metrics_registry=metrics_registry,
            monitor_lag=False,
        ).setServiceParent(role)
        self.ingest(reactor, address, health, metrics_registry, abort=abort).setServiceParent(role)
        if self["console"] != "none":
            console = self._console(
                reactor,
                address,
                folder,
                namings=namings_of(None, None) if namings is None else namings,
                health=health,
                abort=abort,
                metrics_registry=metrics_registry,
            )
            console.setServiceParent(role)
        return role

    def _console(
        self,
        reactor: Reactor,
        address: RedisAddress,
        folder: Path,
        *,
        namings: Mapping[str, INaming],
        health: Health,
        abort: Abort,
        metrics_registry: CollectorRegistry,
    ) -> Role:
        def start_without(reason: str) -> None:
            # The console was not requested, so devices are served without it.
            self._log.warn("console not started: {reason}", reason=reason)

        return self.console(
            reactor,
            "console",
            self["console"] or config.DEFAULT_CONSOLE,
            address,
            positions=open_position_reader(reactor, f"sqlite:{folder / 'positions.sqlite'}"),
            namings=namings,
            credentials=Credentials(),
            controls=[],
            health=health,
            abort=abort if self["console"] else start_without,
            metrics_registry=metrics_registry,
        )
