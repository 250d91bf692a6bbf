"""``twistd tracker ingest``, and the options of each role that serves devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs
from OpenSSL import crypto
from prometheus_client import CollectorRegistry
from twisted.application.service import IService
from twisted.internet.interfaces import IReactorTime

from tracker import config
from tracker.commands.shared import Timing
from tracker.config import ConfigError
from tracker.control.access import Permissions
from tracker.control.addresses import advertised, server_endpoint, unix_address
from tracker.control.listening import NoPlace, Place, WithoutControlPort
from tracker.control.service import ControlPort
from tracker.control.sockets import NoFolder, SocketFolders
from tracker.ingestion.admission import ConnectionLimiter, max_open_files
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.service import Commands, Devices, Port, ingest_role
from tracker.interfaces import Admission, IVendor
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.net.endpoints import listening_endpoint
from tracker.net.listener import Listener
from tracker.net.ports import tcp_endpoint, tls_endpoint, udp_endpoint
from tracker.net.proxied import HEADER_TIMEOUT, Network, ProxiedEndpoint, proxy_network
from tracker.net.tls import TLSEndpoint
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress, redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.settings import options_of
from tracker.tap.role import (
    OFFLINE,
    REDIS,
    RoleOptions,
    checked_address,
    commands_wait,
    endpoint_of,
)
from tracker.vendors.installed import installed_vendors

#: Endpoints that may follow haproxy:. The last is a port that systemd has opened.
_PROXIED: Final = ("tcp", "tcp6", "ssl", "systemd")

_INSTANCE_ID = (
    "instance-id",
    None,
    None,
    "Name of this instance, unique among all ingest processes. [default: INSTANCE_ID, or the host "
    "name and -1]",
)


_CONTROL = (
    "control",
    None,
    None,
    "Endpoint of the control port, for tracker-admin and other clients: unix:PATH[:mode=0660], "
    "ssl:PORT:privateKey=FILE:certKey=FILE:clientCA=FILE[:interface=ADDRESS] or "
    "tcp:PORT:plaintext=1 (this machine only); or none. [default: control-ID.sock in "
    "RUNTIME_DIRECTORY, /run/tracker, XDG_RUNTIME_DIR/tracker or /tmp/tracker-UID; for standalone "
    "DATA/control.sock]",
)


class _VendorOptions:
    """The options of the installed vendors, which are looked up when the options are read."""

    def __iter__(self) -> Iterator[tuple[str, None, Any, str]]:
        for vendor in installed_vendors().values():
            if vendor.settings is not None:
                for name, default, text in options_of(vendor.settings, f"{vendor.name}-"):
                    yield name, None, default, text


class _VendorRole(RoleOptions):
    """Options of the vendors whose devices are served."""

    optParameters: ClassVar[Any] = _VendorOptions()

    def settings_of(self, vendor: IVendor, served: bool) -> Any:
        """Return the settings of a vendor; None if it has none.

        :param served: True if ``--listen`` names the vendor.
        :raises ConfigError: if a value is not valid, or is given for a vendor without a port.
        """
        if vendor.settings is None:
            return None
        prefix = f"{vendor.name}-"
        for name, default, _ in options_of(vendor.settings, prefix):
            if not served and self[name] != default:
                raise ConfigError(f"--{name} requires --listen {vendor.name}=ENDPOINT")
        return config.settings(vendor.settings, self, prefix)


class ServingOptions(_VendorRole):
    """Options of roles that serve devices."""

    default_listen = config.DEFAULT_LISTEN
    optParameters: ClassVar[list[Any]] = [
        _INSTANCE_ID,
        _CONTROL,
        (
            "control-permissions",
            None,
            None,
            "File with the permissions of clients of --control ssl:. Each line is NAME PERMISSION: "
            "the common name of a certificate, and read or operate. [default: all may read]",
        ),
        (
            "tls-client-ca",
            None,
            None,
            "On ssl: endpoints, require a client certificate signed by an authority in this PEM "
            "file. [default: no client certificate required]",
        ),
        ("device-authority", None, "all", "Devices that are served: all, or redis (only those in "
         "the set devices:allowed)."),
        ("unknown-devices", None, "refuse", "Devices that are not in devices:allowed: refuse, or "
         "accept and count them. Requires --device-authority redis"),
        ("imei-check", None, "digits", "Check of an IMEI: digits (15 digits), or luhn (15 digits "
         "with a valid check digit). Device IDs of another form are not checked."),
        OFFLINE,
        *((name, None, default, text) for name, default, text in options_of(Timing)),
        *((name, None, default, text) for name, default, text in options_of(Limits)),
    ]  # fmt: skip

    def __init__(self) -> None:
        self["listen"] = []
        self["proxy"] = []
        super().__init__()

    def opt_listen(self, value: str) -> None:
        """Serve devices on VENDOR=ENDPOINT [default: teltonika=tcp:5027]; may be repeated."""
        self["listen"].append(value)

    def opt_proxy(self, value: str) -> None:
        """Accept proxies from ADDRESS[/BITS] on haproxy: endpoints; may be repeated."""
        self["proxy"].append(value)

    def ingest(
        self,
        reactor: Reactor,
        address: RedisAddress,
        health: Health,
        metrics_registry: CollectorRegistry,
        *,
        abort: Abort,
    ) -> Role:
        """Return the ingest role.

        :param address: Redis.
        :raises ConfigError: if an option is not valid.
        """
        vendors = installed_vendors()
        instance_id = config.stable_name(
            "--instance-id", self["instance-id"], os.environ, "INSTANCE_ID"
        )
        limits = config.settings(Limits, self)
        given = self["listen"] or [self.default_listen]
        proxies = self.proxies()
        listens = config.parse_listen(given, vendors)
        served = {listen.vendor for listen in listens}
        settings = {name: self.settings_of(one, name in served) for name, one in vendors.items()}
        ports = [
            _port(
                reactor,
                listen,
                vendor=vendors[listen.vendor],
                settings=settings[listen.vendor],
                client_ca=self["tls-client-ca"],
                proxies=proxies,
                limits=limits,
                abort=abort,
            )
            for listen in listens
        ]
        endpoints = [text.partition("=")[2] for text in given]
        if proxies and not any(text.startswith("haproxy:") for text in endpoints):
            raise ConfigError("--proxy requires a haproxy: endpoint in --listen")
        if self["tls-client-ca"] and not any(
            text.removeprefix("haproxy:").startswith("ssl:") for text in endpoints
        ):
            raise ConfigError("--tls-client-ca requires an ssl: endpoint in --listen")
        try:
            limiter = ConnectionLimiter(reactor, limits, max_open_files() - self.other_files())
        except ValueError as error:
            raise ConfigError(str(error)) from None
        find = self._control(reactor, instance_id)
        permissions = self._control_permissions()
        role = ingest_role(
            reactor,
            address,
            instance_id,
            ports=ports,
            streams=config.ingest_streams(os.environ, vendors),
            devices=self.devices(),
            commands=Commands(config.settings(Timing, self), commands_wait(self)),
            limiter=limiter,
            kept=KeptMemory(limits.kept_memory),
            health=health,
            abort=abort,
            control=lambda: control.address,
            metrics_registry=metrics_registry,
        )
        control: WithoutControlPort | ControlPort = WithoutControlPort()
        if find is not None:
            control = ControlPort(
                reactor,
                find=find,
                address=address,
                instance=role.instance,
                permissions=permissions,
                levels=self.levels,
                health=health,
                abort=None if self["control"] is None else abort,
            )
        control.setServiceParent(role)
        return role

    def other_files(self) -> int:
        """Return the number of open files that other roles in the same process need."""
        return 0

    def control_socket(self, instance_id: str) -> Path:
        """Return the path of the control socket if ``--control`` is not given.

        :raises NoFolder: if no folder can hold it.
        """
        return SocketFolders().prepare(f"control-{instance_id}.sock")

    def _control(self, reactor: Reactor, instance_id: str) -> Callable[[], Place] | None:
        """Return a function that returns the place of the control port; None for no control port.

        :raises ConfigError: if ``--control`` is not valid.
        """
        given = self["control"]
        if given == "none":
            return None
        if given is None:
            return lambda: self._default_place(reactor, instance_id)
        name = f"--control {given}"
        try:
            endpoint = server_endpoint(reactor, given)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
        place = Place(name, advertised(given), endpoint)
        return lambda: place

    def _default_place(self, reactor: Reactor, instance_id: str) -> Place:
        try:
            address = unix_address(self.control_socket(instance_id))
            return Place("control port", address, server_endpoint(reactor, address))
        except (NoFolder, ValueError) as error:
            raise NoPlace(
                f"{error}. Give --control unix:PATH in a folder that this user may write to."
            ) from None

    def _control_permissions(self) -> Permissions:
        file = self["control-permissions"]
        if file is not None and self["control"] in (None, "none"):
            raise ConfigError("--control-permissions requires --control")
        try:
            return Permissions(None if file is None else Path(file))
        except ValueError as error:
            raise ConfigError(f"--control-permissions: {error}") from None

    def proxies(self) -> list[Network]:
        """Return the networks of the proxies that may send PROXY headers.

        :raises ConfigError: if a value of ``--proxy`` is not valid.
        """
        networks = []
        for text in self["proxy"]:
            try:
                networks.append(proxy_network(text))
            except ValueError as error:
                raise ConfigError(f"--proxy {text}: {error}") from None
        return networks

    def devices(self) -> Devices:
        """Return the rules by which devices are served or refused.

        :raises ConfigError: if an option is not valid.
        """
        allow_list = config.choice(self, "device-authority", "all", "redis") == "redis"
        accept = config.choice(self, "unknown-devices", "refuse", "accept") == "accept"
        if accept and not allow_list:
            raise ConfigError("--unknown-devices accept requires --device-authority redis")
        return Devices(
            allow_list=allow_list,
            unknown=Admission.SERVED if accept else Admission.REFUSED,
            luhn=config.choice(self, "imei-check", "digits", "luhn") == "luhn",
        )


class IngestOptions(ServingOptions):
    """Options of an ingest instance."""

    longdesc = (
        "Serves devices, appends their records to Redis streams, and acknowledges records to a "
        "device once Redis has confirmed them."
    )
    optParameters: ClassVar[list[Any]] = [REDIS]

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        address = checked_address(redis_address(self["redis"], os.environ), reactor)
        return self.ingest(reactor, address, health, metrics_registry, abort=abort)


def _port(
    reactor: Reactor,
    listen: config.Listen,
    *,
    vendor: IVendor,
    settings: Any,
    client_ca: str | None,
    proxies: Sequence[Network],
    limits: Limits,
    abort: Abort,
) -> Port:
    """Return the port that ``--listen`` describes."""
    name = f"--listen {listen.given}"
    try:
        description = listening_endpoint(listen.endpoint)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    proxied = description.startswith("haproxy:")
    description = description.removeprefix("haproxy:")
    kind = description.partition(":")[0]
    if proxied and kind not in _PROXIED:
        *others, last = _PROXIED
        raise ConfigError(
            f"{name}: haproxy: must be followed by {', '.join(others)} or {last}, not {kind!r}"
        )
    transport = "udp" if kind == "udp" else "tcp"
    if transport not in vendor.transports:
        used = " and ".join(sorted(vendor.transports))
        raise ConfigError(f"{name}: devices of {vendor.name} use {used}, not {transport}")
    if proxied and not proxies:
        raise ConfigError(f"{name}: no proxy is named. Add --proxy ADDRESS for each one.")
    endpoint: Any
    try:
        if kind == "udp":
            endpoint = udp_endpoint(reactor, description)
        elif kind in ("tcp", "tcp6"):
            endpoint = tcp_endpoint(reactor, description)
        elif kind == "ssl":
            authorities = None if client_ca is None else Path(client_ca)
            endpoint = tls_endpoint(reactor, description, authorities)
        else:
            endpoint = endpoint_of(reactor, name, description)
    except ConfigError:
        raise
    except (OSError, ValueError, crypto.Error) as error:
        raise ConfigError(f"{name}: {error or 'its files hold no key or certificate'}") from None
    build = vendor.buildDatagramProtocol if kind == "udp" else vendor.buildFactory

    def listener(gateway: Gateway) -> IService:
        listened = endpoint
        if proxied:
            timeout = min(HEADER_TIMEOUT, limits.login_timeout)
            listened = _proxied(endpoint, proxies, gateway, clock=reactor, timeout=timeout)
        return Listener(name, listened, build(gateway, limits, reactor, settings), abort)

    return Port(vendor, listener)


def _proxied(
    endpoint: Any,
    proxies: Sequence[Network],
    gateway: Gateway,
    *,
    clock: IReactorTime,
    timeout: float,
) -> Any:
    """Return an endpoint that expects a PROXY header before TLS and the client's bytes."""
    if isinstance(endpoint, TLSEndpoint):
        below = _proxied(endpoint.below, proxies, gateway, clock=clock, timeout=timeout)
        return attrs.evolve(endpoint, below=below)
    return ProxiedEndpoint(endpoint, proxies, gateway, clock, timeout)
