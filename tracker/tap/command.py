"""The command ``twistd tracker``: its roles, and the process that runs one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

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
from tracker.runtime.daemon import StartReport
from tracker.runtime.lifecycle import Process
from tracker.runtime.notify import INotifier, Notifier
from tracker.runtime.supervision import Supervision
from tracker.tap.role import RoleOptions, VersionedOptions, loopback_endpoint

#: Exit code if the reader closes the output, as a shell reports SIGPIPE.
_OUTPUT_CLOSED: Final = 141


def _options(role: str) -> Callable[[], RoleOptions]:
    """Return a function that imports the module of one role and returns the role's options."""

    def make() -> RoleOptions:
        options: RoleOptions = namedAny(f"tracker.tap.{role}.{role.title()}Options")()
        return options

    return make


class Options(VersionedOptions):
    """The options of ``twistd tracker``."""

    #: Name of the command, for errors.
    program = "twistd tracker"
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
            self._parse(options)
        except usage.UsageError as error:
            raise SystemExit(f"{self.called}: {self._explained(str(error))}") from None
        except BrokenPipeError:
            # Python writes the rest at exit, and would report the error again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(_OUTPUT_CLOSED) from None

    def _parse(self, options: Any) -> None:
        try:
            super().parseOptions(options)
        finally:
            sys.stdout.flush()  # the help or the version

    def _explained(self, error: str) -> str:
        unknown = error.removeprefix("Unknown command: ")
        if unknown != error:
            return f"unknown role {unknown!r}. Use {_roles()}."
        if error.startswith("option "):
            return f"{error}. See {self.called} --help."
        return error

    @property
    def called(self) -> str:
        """The command as the user called it, with its role if there is one."""
        return self.program if self.subCommand is None else f"{self.program} {self.subCommand}"

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
        if role_options["http"] not in (None, "", "none"):
            name = f"--http {role_options['http']}"
            endpoint = loopback_endpoint(reactor, name, role_options["http"])
            page = MetricsPage(reactor, metrics_registry)
            page.setServiceParent(process)
            reports = HTTPReports(reactor, "health port", "health_port", metrics_registry)
            site = health_site(reactor, health, page.resource, reports)
            Listener(name, endpoint, site, process.abort).setServiceParent(process)
    except ConfigError as error:
        raise SystemExit(f"{options.called}: {error}") from None
    role.setServiceParent(process)
    notifier = _notifier(options, process)
    Supervision(reactor, notifier, health).setServiceParent(process)  # last: all have started
    return process


def _notifier(options: Options, process: Process) -> INotifier | None:
    """Return the recipient of notifications: the first process of a daemon, or systemd."""
    twistd = options.parent
    if twistd is not None and not twistd["nodaemon"]:
        report = StartReport(twistd, lambda: process.gave_up)
        report.setServiceParent(process)
        return report
    return Notifier.from_environment(os.environ)


def _roles() -> str:
    *others, last = (name for name, *_ in Options.subCommands)
    return f"{', '.join(others)} or {last}"
