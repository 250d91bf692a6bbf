"""``twistd tracker ingest``, and the options of all roles that serve devices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs
from OpenSSL import crypto
from prometheus_client import CollectorRegistry
from twisted.application.service import IService
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint

from tracker import config
from tracker.commands.shared import Timing
from tracker.config import ConfigError
from tracker.control.access import Permissions
from tracker.control.addresses import advertised, server_endpoint
from tracker.control.service import ControlPort
from tracker.ingestion.admission import ConnectionLimiter, most_files
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.service import Commands, Devices, Port, ingest_role
from tracker.interfaces import Admission, IVendor
from tracker.limits import Limits
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
    endpoint_of,
    installed_vendors,
    reachable,
    waits,
)

#: Endpoints that can be behind haproxy:. The last is a port that systemd holds.
_PROXIED: Final = ("tcp", "tcp6", "ssl", "systemd")

_INSTANCE_ID = (
    "instance-id",
    None,
    None,
    "This instance's name, one of its own for each ingest process. [INSTANCE_ID, else the "
    "host's name and -1]",
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


class ServingOptions(RoleOptions):
    """Options of roles that devices connect to."""

    default_listen = config.DEFAULT_LISTEN
    optParameters: ClassVar[list[Any]] = [
        _INSTANCE_ID,
        _CONTROL,
        (
            "control-permissions",
            None,
            None,
            "A file with the permissions of clients on --control ssl:, one NAME PERMISSION a line: "
            "the common name of a certificate, and read or operate. [all may read]",
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
        OFFLINE,
        *((name, None, default, text) for name, default, text in options_of(Timing)),
        *((name, None, default, text) for name, default, text in options_of(Limits)),
    ]  # fmt: skip

    def __init__(self) -> None:
        self["listen"] = []
        self["proxy"] = []
        super().__init__()

    def opt_listen(self, value: str) -> None:
        """Serve a vendor's devices on an endpoint, VENDOR=ENDPOINT; may be repeated.
        [teltonika=tcp:5027; with standalone on 127.0.0.1 only]"""
        self["listen"].append(value)

    def opt_proxy(self, value: str) -> None:
        """ADDRESS[/BITS] of proxies that connect to haproxy: endpoints; may be repeated. [none]"""
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
        """The ingest role on a given Redis."""
        vendors = installed_vendors()
        instance_id = config.name_of(
            "--instance-id", self["instance-id"], os.environ, "INSTANCE_ID"
        )
        limits = config.settings(Limits, self)
        given = self["listen"] or [self.default_listen]
        proxies = self.proxies()
        ports = [
            _port(
                reactor,
                listen,
                vendor=vendors[listen.vendor],
                client_ca=self["tls-client-ca"],
                proxies=proxies,
                limits=limits,
                abort=abort,
            )
            for listen in config.listens(given, vendors)
        ]
        endpoints = [text.partition("=")[2] for text in given]
        if proxies and not any(text.startswith("haproxy:") for text in endpoints):
            raise ConfigError("--proxy requires a haproxy: endpoint in --listen.")
        if self["tls-client-ca"] and not any(
            text.removeprefix("haproxy:").startswith("ssl:") for text in endpoints
        ):
            raise ConfigError("--tls-client-ca: no --listen has an ssl: endpoint")
        try:
            limiter = ConnectionLimiter(reactor, limits, most_files() - self.other_files())
        except ValueError as error:
            raise ConfigError(str(error)) from None
        control = self.control_address(instance_id)
        if self["control-permissions"] and control is None:
            raise ConfigError("--control-permissions: goes with --control")
        endpoint, permissions = (None, None) if control is None else self._control(reactor, control)
        role = ingest_role(
            reactor,
            address,
            instance_id,
            ports=ports,
            streams=config.ingest_streams(os.environ, vendors),
            devices=self.devices(),
            commands=Commands(config.settings(Timing, self), waits(self)),
            limiter=limiter,
            health=health,
            abort=abort,
            control=None if control is None else advertised(control),
            metrics_registry=metrics_registry,
        )
        if endpoint is not None and permissions is not None:
            ControlPort(
                reactor,
                name=f"--control {control}",
                endpoint=endpoint,
                address=address,
                instance=role.instance,
                permissions=permissions,
                levels=self.levels,
                health=health,
                abort=abort,
            ).setServiceParent(role)
        return role

    def other_files(self) -> int:
        """Return how many files other roles in the same process need."""
        return 0

    def control_address(self, instance_id: str) -> str | None:
        """Return the address of the control port; None: there is none."""
        return config.control_address(self["control"], os.environ, instance_id)

    def _control(self, reactor: Reactor, address: str) -> tuple[IStreamServerEndpoint, Permissions]:
        """The control port's endpoint, and who may do what there."""
        try:
            endpoint = server_endpoint(reactor, address, may_lack_directory=self["control"] is None)
        except ValueError as error:
            raise ConfigError(f"--control {address}: {error}") from None
        file = self["control-permissions"]
        try:
            return endpoint, Permissions(None if file is None else Path(file))
        except ValueError as error:
            raise ConfigError(f"--control-permissions: {error}") from None

    def proxies(self) -> list[Network]:
        """Return the networks of the proxies that may send PROXY headers."""
        networks = []
        for text in self["proxy"]:
            try:
                networks.append(proxy_network(text))
            except ValueError as error:
                raise ConfigError(f"--proxy {text}: {error}") from None
        return networks

    def devices(self) -> Devices:
        """Return the devices that are served."""
        allow_list = config.choice(self, "device-authority", "all", "redis") == "redis"
        accept = config.choice(self, "unknown-devices", "refuse", "accept") == "accept"
        if accept and not allow_list:
            raise ConfigError("--unknown-devices accept: goes with --device-authority redis")
        return Devices(
            allow_list=allow_list,
            unknown=Admission.SERVED if accept else Admission.REFUSED,
            luhn=config.choice(self, "imei-check", "digits", "luhn") == "luhn",
        )


class IngestOptions(ServingOptions):
    """Devices in, stream entries out."""

    longdesc = "Serves devices, and acknowledges their records once Redis has confirmed them."
    optParameters: ClassVar[list[Any]] = [REDIS]

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        address = reachable(redis_address(self["redis"], os.environ), reactor)
        return self.ingest(reactor, address, health, metrics_registry, abort=abort)


def _port(
    reactor: Reactor,
    listen: config.Listen,
    *,
    vendor: IVendor,
    client_ca: str | None,
    proxies: Sequence[Network],
    limits: Limits,
    abort: Abort,
) -> Port:
    """Return the port that ``--listen`` describes."""
    name = f"--listen {listen.given}"
    kind, _, rest = listen.endpoint.partition(":")
    proxied = kind == "haproxy"
    description = rest if proxied else listen.endpoint
    kind = description.partition(":")[0]
    if proxied and kind not in _PROXIED:
        raise ConfigError(f"{name}: haproxy: goes before {', '.join(_PROXIED)}, not {kind!r}")
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
        raise ConfigError(f"{name}: {error or 'no key or certificate in its files'}") from None
    build = vendor.buildDatagramProtocol if kind == "udp" else vendor.buildFactory

    def listener(gateway: Gateway) -> IService:
        reached = endpoint
        if proxied:
            timeout = min(HEADER_TIMEOUT, limits.login_timeout)
            reached = _behind(endpoint, proxies, gateway, clock=reactor, timeout=timeout)
        return Listener(listen.given, reached, build(gateway, limits, reactor), abort)

    return Port(vendor, listener)


def _behind(
    endpoint: Any,
    proxies: Sequence[Network],
    gateway: Gateway,
    *,
    clock: IReactorTime,
    timeout: float,
) -> Any:
    """Return an endpoint that expects a PROXY header before the client's bytes, before TLS."""
    if isinstance(endpoint, TLSEndpoint):
        below = _behind(endpoint.below, proxies, gateway, clock=clock, timeout=timeout)
        return attrs.evolve(endpoint, below=below)
    return ProxiedEndpoint(endpoint, proxies, gateway, clock, timeout)
