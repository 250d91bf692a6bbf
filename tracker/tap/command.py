"""The command ``twistd tracker``: its roles, and the process that runs one of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, cast

from twisted.application.service import IService
from twisted.python import usage
from twisted.python.reflect import namedAny

from tracker.config import ConfigError
from tracker.net.listener import Listener
from tracker.net.metricspage import MetricsPage
from tracker.net.probes import health_site
from tracker.net.reports import HTTPReports
from tracker.observe.health import Health
from tracker.observe.loopdelay import LoopDelay
from tracker.observe.metrics import HealthMetrics, make_metrics_registry
from tracker.reactor import Reactor
from tracker.runtime.lifecycle import Process
from tracker.runtime.notify import Notifier
from tracker.runtime.supervision import Supervision
from tracker.tap.role import RoleOptions, VersionedOptions, loopback_endpoint


def _options(role: str) -> Callable[[], RoleOptions]:
    """Return a function that imports the module of one role and returns the role's options."""

    def make() -> RoleOptions:
        options: RoleOptions = namedAny(f"tracker.tap.{role}.{role.title()}Options")()
        return options

    return make


class Options(VersionedOptions):
    """The options of ``twistd tracker``."""

    longdesc = "The telemetry plane of a GPS tracking platform."
    subCommands: ClassVar[list[Any]] = [
        (role, None, _options(role), summary)
        for role, summary in (
            ("ingest", "Serves devices, and appends their records to Redis streams."),
            ("process", "Stores positions from the streams in the database."),
            ("janitor", "Trims streams, and cleans up after instances that are gone."),
            ("bridge", "Sends commands written in Directus and reports their results."),
            ("console", "Serves a web page that shows lag, instances and devices."),
            ("standalone", "Runs all roles but the bridge, with its own Redis and SQLite."),
        )
    ]

    def parseOptions(self, options: Any = None) -> None:
        """Parse the command line; on an error, exit with one line instead of the whole help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            unknown = str(error).removeprefix("Unknown command: ")
            if unknown != str(error):
                error = usage.UsageError(f"unknown role {unknown!r}. Use {_roles()}.")
            raise SystemExit(f"twistd tracker: {error}") from None

    def postOptions(self) -> None:
        """Require a role."""
        if self.subCommand is None:
            raise usage.UsageError(f"no role given. Use {_roles()}.")


def makeService(options: Options) -> IService:
    """Return the process that the options describe. It opens nothing before it starts."""
    from twisted.internet import reactor as installed

    reactor = cast(Reactor, installed)
    process = Process(reactor)
    health = Health()
    metrics_registry = make_metrics_registry()
    HealthMetrics(health, metrics_registry)
    role_options: RoleOptions = options.subOptions
    try:
        role_options.levels = role_options.log_levels()
        role_options.levels.setServiceParent(process)  # first: it applies to all other services
        LoopDelay(reactor, metrics_registry).setServiceParent(process)
        role = role_options.build(reactor, health, metrics_registry, process.abort)
        if role_options["http"]:
            name = f"--http {role_options['http']}"
            endpoint = loopback_endpoint(reactor, name, role_options["http"])
            page = MetricsPage(reactor, metrics_registry)
            page.setServiceParent(process)
            reports = HTTPReports(reactor, "health port", "health_port", metrics_registry)
            site = health_site(reactor, health, page.resource, reports)
            Listener(name, endpoint, site, process.abort).setServiceParent(process)
    except ConfigError as error:
        raise SystemExit(f"twistd tracker {options.subCommand}: {error}") from None
    role.setServiceParent(process)
    notifier = Notifier.from_environment(os.environ)
    Supervision(reactor, notifier, health).setServiceParent(process)  # last: all have started
    return process


def _roles() -> str:
    *others, last = (name for name, *_ in Options.subCommands)
    return f"{', '.join(others)} or {last}"
