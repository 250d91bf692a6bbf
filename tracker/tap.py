"""``twistd tracker ROLE``: options, and the service that they describe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from OpenSSL import crypto
from prometheus_client import CollectorRegistry
from twisted.application.service import IService
from twisted.internet.endpoints import StandardIOEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.plugin import getPlugins
from twisted.python import usage

from tracker import __version__, config
from tracker.bridge.instances import Credentials
from tracker.bridge.rest import checked_token, checked_url
from tracker.bridge.service import BridgePace, Directus, Hook, bridge_role
from tracker.config import ConfigError
from tracker.control.access import Roles
from tracker.control.addresses import advertised, server_endpoint
from tracker.control.service import ControlPort
from tracker.endpoints import with_default
from tracker.ingestion.admission import ConnectionLimiter, most_files
from tracker.ingestion.courier import Timing
from tracker.ingestion.ports import tcp_endpoint, tls_endpoint, udp_endpoint
from tracker.ingestion.service import Commands, Devices, Port, ingest_role
from tracker.interfaces import Admission, IGateway, INaming, IVendor
from tracker.janitor.retention import Retention
from tracker.janitor.role import INTERVAL, janitor_role
from tracker.lifecycle import Abort, Listener, Process, Role
from tracker.limits import Limits
from tracker.observe.health import Health
from tracker.observe.http import health_site
from tracker.observe.levels import DEFAULT, LEVELS, LogLevels
from tracker.observe.metrics import make_registry
from tracker.processing.consumer import Pace
from tracker.processing.service import process_role
from tracker.processing.sinks import KINDS, make_sink
from tracker.settings import options_of
from tracker.streams.address import RedisAddress
from tracker.streams.embedded import EmbeddedRedis, find_server, socket_address

_REDIS = (
    "redis",
    None,
    None,
    "Redis: redis://[user:password@]host[:port][/db], rediss://… (TLS) or unix:///path. "
    f"[REDIS_URL, else {config.DEFAULT_REDIS}]",
)
_HTTP = (
    "http",
    None,
    None,
    "Serve /healthz, /readyz and /metrics on this endpoint, as tcp:9127 (loopback unless it "
    "names an interface). [not served]",
)
_INSTANCE_ID = (
    "instance-id",
    None,
    None,
    "This instance's name, one of its own for each ingest process. [INSTANCE_ID, else the "
    "host's name and -1]",
)


_LOG_LEVEL = (
    "log-level",
    None,
    DEFAULT,
    f"Log what is of this level or above: {', '.join(LEVELS)}.",
)
_CONTROL = (
    "control",
    None,
    None,
    "Where tracker-admin and programs look inside and operate this instance: "
    "unix:PATH[:mode=0660], ssl:PORT:privateKey=FILE:certKey=FILE:clientCA=FILE"
    "[:interface=ADDRESS] or tcp:PORT:plaintext=1 (this machine only); or none. "
    "[unix:/run/tracker/control-ID.sock, where that folder is there; with standalone "
    "unix:DATA/control.sock]",
)
_OFFLINE = (
    "offline",
    None,
    "wait",
    "What becomes of a command for a device that is connected to no instance: wait (until it "
    "is, or the command expires), or fail.",
)


class RoleOptions(usage.Options):
    """Options of every role."""

    optParameters: ClassVar[list[Any]] = [_HTTP, _LOG_LEVEL]
    levels: LogLevels

    def log_levels(self) -> LogLevels:
        """What is logged."""
        try:
            return LogLevels(self["log-level"])
        except ValueError as error:
            raise ConfigError(f"--log-level: {error}") from None

    def build(
        self, reactor: Any, health: Health, registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """The role's services.

        :raises ConfigError: when an option or a variable makes no sense.
        """
        raise NotImplementedError


class ServingOptions(RoleOptions):
    """Options of roles that devices connect to."""

    default_listen = config.DEFAULT_LISTEN
    optParameters: ClassVar[list[Any]] = [
        _INSTANCE_ID,
        _CONTROL,
        (
            "control-roles",
            None,
            None,
            "A file of NAME ROLE a line: which certificates may read or operate by --control ssl:. "
            "[whoever has one may read]",
        ),
        (
            "tls-client-ca",
            None,
            None,
            "On ssl: endpoints, serve only clients with a certificate of the authorities in "
            "this PEM file. [no certificate asked for]",
        ),
        ("device-authority", None, "all", "Which devices are served: all, or redis (those in "
         "the set devices:allowed)."),
        ("unknown-devices", None, "refuse", "With --device-authority redis, what becomes of "
         "the others: refuse, or accept (and count them)."),
        ("imei-check", None, "digits", "Which IMEIs are valid: digits (15 of them), or luhn "
         "(with a right check digit)."),
        _OFFLINE,
        *((name, None, default, text) for name, default, text in options_of(Timing)),
        *((name, None, default, text) for name, default, text in options_of(Limits)),
    ]  # fmt: skip

    def __init__(self) -> None:
        self["listen"] = []
        super().__init__()

    def opt_listen(self, value: str) -> None:
        """Serve a vendor's devices on an endpoint, VENDOR=ENDPOINT; may be repeated.
        [teltonika=tcp:5027; with standalone on 127.0.0.1 only]"""
        self["listen"].append(value)

    def ingest(self, reactor: Any, address: RedisAddress, health: Health, abort: Abort) -> Role:
        """The ingest role on a given Redis."""
        vendors = installed_vendors()
        instance_id = config.name_of(
            "--instance-id", self["instance-id"], os.environ, "INSTANCE_ID"
        )
        limits = config.settings(Limits, self)
        given = self["listen"] or [self.default_listen]
        ports = [
            _port(reactor, listen, vendors[listen.vendor], self["tls-client-ca"], limits, abort)
            for listen in config.listens(given, vendors)
        ]
        if self["tls-client-ca"] and not any(
            text.partition("=")[2].startswith("ssl:") for text in given
        ):
            raise ConfigError("--tls-client-ca: no --listen has an ssl: endpoint")
        try:
            limiter = ConnectionLimiter(reactor, limits, most_files())
        except ValueError as error:
            raise ConfigError(str(error)) from None
        control = self.control_address(instance_id)
        if self["control-roles"] and control is None:
            raise ConfigError("--control-roles: goes with --control")
        endpoint, roles = (None, None) if control is None else self._control(reactor, control)
        role = ingest_role(
            reactor,
            address,
            ports,
            config.ingest_streams(os.environ, vendors),
            instance_id,
            self.devices(),
            Commands(config.settings(Timing, self), _waits(self)),
            limiter,
            health,
            abort,
            None if control is None else advertised(control),
        )
        if endpoint is not None and roles is not None:
            ControlPort(
                *(reactor, f"--control {control}", endpoint, address, role.instance),
                *(roles, self.levels, health, abort),
            ).setServiceParent(role)
        return role

    def control_address(self, instance_id: str) -> str | None:
        """Where the control port listens; None: nowhere."""
        return config.control_address(self["control"], os.environ, instance_id)

    def _control(self, reactor: Any, address: str) -> tuple[IStreamServerEndpoint, Roles]:
        """The control port's endpoint, and who may do what there."""
        try:
            endpoint = server_endpoint(reactor, address, made_later=self["control"] is None)
        except ValueError as error:
            raise ConfigError(f"--control {address}: {error}") from None
        file = self["control-roles"]
        try:
            return endpoint, Roles(None if file is None else Path(file))
        except ValueError as error:
            raise ConfigError(f"--control-roles: {error}") from None

    def devices(self) -> Devices:
        """Which devices are served."""
        allow_list = config.choice(self, "device-authority", "all", "redis") == "redis"
        accept = config.choice(self, "unknown-devices", "refuse", "accept") == "accept"
        if accept and not allow_list:
            raise ConfigError("--unknown-devices accept: goes with --device-authority redis")
        return Devices(
            allow_list=allow_list,
            unknown=Admission.SERVED if accept else Admission.REFUSED,
            luhn=config.choice(self, "imei-check", "digits", "luhn") == "luhn",
        )


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
        """What is kept."""
        return Retention(
            config.duration("--retain", self["retain"]),
            config.size("--retain-bytes", self["retain-bytes"]),
            config.duration("--retain-dead", self["retain-dead"]),
        )


class IngestOptions(ServingOptions):
    """Devices in, stream entries out."""

    longdesc = "Serves devices, and acknowledges their records once Redis has confirmed them."
    optParameters: ClassVar[list[Any]] = [_REDIS]

    def build(
        self, reactor: Any, health: Health, registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        address = _reachable(config.redis_address(self["redis"], os.environ), reactor)
        return self.ingest(reactor, address, health, abort)


class ProcessOptions(StoringOptions):
    """Stream entries in, database rows out."""

    longdesc = "Stores positions from the streams, and acknowledges them once they are committed."
    optParameters: ClassVar[list[Any]] = [
        _REDIS,
        ("sink", None, None, f"Where positions are stored: {KINDS}. [required]"),
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
        self, reactor: Any, health: Health, registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        if not self["sink"]:
            raise ConfigError("--sink is required, as --sink sqlite:/var/lib/tracker/positions.db")
        return process_role(
            reactor,
            _reachable(config.redis_address(self["redis"], os.environ), reactor),
            config.process_streams(os.environ, installed_vendors()),
            config.name_of("--consumer", self["consumer"], os.environ, "CONSUMER_NAME"),
            _sink(reactor, self["sink"], not self["no-migrate"]),
            health,
            abort,
            config.settings(Pace, self),
            self.namings(),
            registry,
        )


class JanitorOptions(TrimmingOptions):
    """Streams trimmed, as far as they have been read."""

    longdesc = (
        "Trims streams by age and size, never past what a group has not finished, and removes "
        "consumers that are long gone."
    )
    optParameters: ClassVar[list[Any]] = [
        _REDIS,
        _OFFLINE,
        ("interval", None, f"{INTERVAL:g}s", "Time between two rounds, as 60s."),
    ]

    def build(
        self, reactor: Any, health: Health, registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        interval = config.duration("--interval", self["interval"])
        if interval is None:
            raise ConfigError("--interval: must be like 60s")
        return janitor_role(
            reactor,
            _reachable(config.redis_address(self["redis"], os.environ), reactor),
            config.process_streams(os.environ, installed_vendors()),
            self.retention(),
            _waits(self),
            interval,
            health,
            registry,
        )


class BridgeOptions(RoleOptions):
    """Commands from Directus, and what becomes of them back to it."""

    longdesc = (
        "Sends the commands of a Directus to devices, tells it what becomes of them, and keeps "
        "the list of its devices up to date in Redis."
    )
    optParameters: ClassVar[list[Any]] = [
        _REDIS,
        ("directus", None, None, "Where Directus is, as http://127.0.0.1:8055. [DIRECTUS_URL]"),
        ("token-file", None, None, "A file with the static token of the bridge's user there. "
         "[DIRECTUS_TOKEN_FILE, or the token itself in DIRECTUS_TOKEN]"),
        ("webhook", None, config.DEFAULT_WEBHOOK, "Where Directus' Flows post to (loopback unless "
         "it names an interface); or none."),
        ("secret-file", None, None, "A file with the secret that they send along. "
         "[TRACKER_WEBHOOK_SECRET_FILE, or the secret itself in TRACKER_WEBHOOK_SECRET]"),
        ("consumer", None, None, "This bridge's name in the group directus, the same after a "
         "restart. [CONSUMER_NAME, else the host's name and -1]"),
        ("control-key", None, None, "The bridge's private key for control ports with TLS."),
        ("control-cert", None, None, "Its certificate."),
        ("control-ca", None, None, "The authority of the instances' certificates."),
        *((name, None, default, text) for name, default, text in options_of(BridgePace)),
    ]  # fmt: skip

    def build(
        self, reactor: Any, health: Health, registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        url = self["directus"] or os.environ.get("DIRECTUS_URL")
        if not url:
            raise ConfigError("--directus is required, as --directus http://127.0.0.1:8055")
        token = config.secret("--token-file", self["token-file"], os.environ, "DIRECTUS_TOKEN")
        try:
            directus = Directus(checked_url(url), checked_token(token))
        except ValueError as error:
            raise ConfigError(f"--directus: {error}") from None
        return bridge_role(
            reactor,
            _reachable(config.redis_address(self["redis"], os.environ), reactor),
            directus,
            self._hook(reactor),
            config.name_of("--consumer", self["consumer"], os.environ, "CONSUMER_NAME"),
            Credentials(
                *(
                    None if (file := self[f"control-{name}"]) is None else Path(file)
                    for name in ("key", "cert", "ca")
                )
            ),
            config.settings(BridgePace, self),
            health,
            abort,
        )

    def _hook(self, reactor: Any) -> Hook | None:
        if self["webhook"] == "none":
            return None
        name = f"--webhook {self['webhook']}"
        description = with_default(self["webhook"], {"tcp": 2, "ssl": 9}, "interface", "127.0.0.1")
        secret = config.secret(
            "--secret-file", self["secret-file"], os.environ, "TRACKER_WEBHOOK_SECRET"
        )
        return Hook(name, _endpoint(reactor, name, description), secret)


class StandaloneOptions(ServingOptions, StoringOptions, TrimmingOptions):
    """Everything in one process, with a Redis of its own and SQLite."""

    longdesc = (
        "Runs all roles in one process, with a Redis or Valkey server that it starts itself, "
        "into SQLite. All its data is in one folder."
    )
    default_listen = config.DEFAULT_STANDALONE_LISTEN
    optParameters: ClassVar[list[Any]] = [
        ("data", None, None, "Folder for all data. [TRACKER_DATA, else ./tracker-data]"),
    ]

    def control_address(self, instance_id: str) -> str | None:
        """See ServingOptions."""
        if self["control"] is None:
            return f"unix:{config.data_folder(self['data'], os.environ) / 'control.sock'}"
        return super().control_address(instance_id)

    def build(
        self, reactor: Any, health: Health, registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        vendors = installed_vendors()
        folder = config.data_folder(self["data"], os.environ)
        name = config.name_of("--instance-id", self["instance-id"], os.environ, "INSTANCE_ID")
        try:
            program = find_server()
            address = socket_address(folder)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        role = Role()
        EmbeddedRedis(reactor, program, folder, abort).setServiceParent(role)
        process_role(
            reactor,
            address,
            config.process_streams(os.environ, vendors),
            name,
            _sink(reactor, f"sqlite:{folder / 'positions.sqlite'}"),
            health,
            abort,
            Pace(),
            self.namings(),
            registry,
        ).setServiceParent(role)
        janitor_role(
            reactor,
            address,
            config.process_streams(os.environ, vendors),
            self.retention(),
            _waits(self),
            INTERVAL,
            health,
            registry,
            watch_lag=False,
        ).setServiceParent(role)
        self.ingest(reactor, address, health, abort).setServiceParent(role)
        return role


class Options(usage.Options):
    """The options of ``twistd tracker``."""

    longdesc = "The telemetry plane of a GPS tracking platform."
    subCommands: ClassVar[list[Any]] = [
        ("ingest", None, IngestOptions, "Serve devices; records go to Redis streams."),
        ("process", None, ProcessOptions, "Move positions from the streams into the database."),
        ("janitor", None, JanitorOptions, "Trim streams, never past what is not read."),
        ("bridge", None, BridgeOptions, "Commands from Directus, and their fate back to it."),
        ("standalone", None, StandaloneOptions, "All in one, with its own Redis and SQLite."),
    ]

    def opt_version(self) -> None:
        """Print Tracker's version and exit."""
        print(f"tracker {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse; a mistake ends the process with one line instead of all the help there is."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            unknown = str(error).removeprefix("Unknown command: ")
            if unknown != str(error):
                error = usage.UsageError(f"unknown role {unknown!r}: use {_roles()}")
            raise SystemExit(f"twistd tracker: {error}") from None

    def postOptions(self) -> None:
        """Insist on a role."""
        if self.subCommand is None:
            raise usage.UsageError(f"say which role to run: {_roles()}")


def makeService(options: Options) -> IService:
    """Build the process that the options describe; nothing is opened before it starts."""
    from twisted.internet import reactor

    process = Process(reactor)
    health = Health()
    registry = make_registry()
    role_options: RoleOptions = options.subOptions
    try:
        role_options.levels = role_options.log_levels()
        role_options.levels.setServiceParent(process)  # first, so that it holds for all others
        role = role_options.build(reactor, health, registry, process.abort)
        if role_options["http"]:
            description = with_default(
                role_options["http"], {"tcp": 2, "ssl": 9}, "interface", "127.0.0.1"
            )
            name = f"--http {role_options['http']}"
            endpoint = _endpoint(reactor, name, description)
            site = health_site(health, registry)
            Listener(name, endpoint, site, process.abort).setServiceParent(process)
    except ConfigError as error:
        raise SystemExit(f"twistd tracker {options.subCommand}: {error}") from None
    role.setServiceParent(process)
    return process


def installed_vendors() -> dict[str, IVendor]:
    """The vendors whose plugins are installed, by name."""
    return {vendor.name: vendor for vendor in getPlugins(IVendor)}


def _waits(options: RoleOptions) -> bool:
    """Whether commands wait for devices that are nowhere."""
    return config.choice(options, "offline", "wait", "fail") == "wait"


def _roles() -> str:
    return ", ".join(name for name, *_ in Options.subCommands)


def _port(
    reactor: Any,
    listen: config.Listen,
    vendor: IVendor,
    client_ca: str | None,
    limits: Limits,
    abort: Abort,
) -> Port:
    """What ``--listen`` describes."""
    name = f"--listen {listen.given}"
    kind = listen.endpoint.partition(":")[0]
    if kind == "haproxy":
        raise ConfigError(f"{name}: haproxy: would hide the devices' addresses from the limits")
    endpoint: Any
    try:
        if kind == "udp":
            endpoint = udp_endpoint(reactor, listen.endpoint)
        elif kind in ("tcp", "tcp6"):
            endpoint = tcp_endpoint(reactor, listen.endpoint)
        elif kind == "ssl":
            authorities = None if client_ca is None else Path(client_ca)
            endpoint = tls_endpoint(reactor, listen.endpoint, authorities)
        else:
            endpoint = _endpoint(reactor, name, listen.endpoint)
    except ConfigError:
        raise
    except (OSError, ValueError, crypto.Error) as error:
        raise ConfigError(f"{name}: {error or 'no key or certificate in its files'}") from None
    build = vendor.buildDatagramProtocol if kind == "udp" else vendor.buildFactory

    def listener(gateway: IGateway) -> IService:
        return Listener(listen.given, endpoint, build(gateway, limits, reactor), abort)

    return Port(vendor, listener)


def _endpoint(reactor: Any, name: str, description: str) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (TypeError, LookupError):
        raise ConfigError(f"{name}: arguments are missing, or too many") from None
    except Exception as error:  # noqa: BLE001 - each endpoint's parser fails in its own way
        raise ConfigError(f"{name}: not an endpoint: {error}") from None
    if isinstance(endpoint, StandardIOEndpoint):
        raise ConfigError(f"{name}: nobody can connect to that")
    return endpoint


def _reachable(address: RedisAddress, reactor: Any) -> RedisAddress:
    """The address, once it is sure that its TLS settings can be read."""
    try:
        address.endpoint(reactor)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Redis URL: {error}") from None
    return address


def _sink(reactor: Any, url: str, migrate: bool = True) -> Any:
    try:
        return make_sink(reactor, url, migrate)
    except ValueError as error:
        raise ConfigError(f"--sink: {error}") from None
