"""``twistd tracker console``, and the options of all roles that serve the console."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint

from tracker import config
from tracker.config import ConfigError
from tracker.console.operators import BadOperators, Operators
from tracker.console.requests import Names
from tracker.console.sampler import Thresholds
from tracker.console.service import Door, console_role
from tracker.console.sessions import session_key
from tracker.console.site import Tiles
from tracker.control.addresses import is_loopback
from tracker.control.pool import Credentials
from tracker.interfaces import INaming
from tracker.net.endpoints import split, with_default
from tracker.net.ports import tcp_endpoint, tls_endpoint
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress, redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.settings import options_of
from tracker.storage.reader import PositionReader
from tracker.storage.sinks import open_reader
from tracker.tap.role import REDIS, RoleOptions, endpoint_of, installed_vendors, reachable

#: Positional arguments of an endpoint if its interface is among them.
_INTERFACE_AT: Final = {"tcp": 2, "tcp6": 2, "ssl": 4}


class ConsoleDoorOptions(RoleOptions):
    """Options of roles that serve the console."""

    optParameters: ClassVar[list[Any]] = [
        ("operators", None, None, "A file of those who may log in to the console, as "
         "tracker-admin console-operator makes it. [nobody has to log in]"),
        ("session-key", None, None, "A file for the key of the console's sessions, made if it is "
         "missing, so that they outlive a restart. [a new key at each start]"),
        ("tiles", None, None, "Where the console's map has tiles from, as "
         "https://tile.example.org/{z}/{x}/{y}.png. [no tiles; nothing is asked of anybody]"),
        ("tiles-credit", None, "", "What the map says of who has made the tiles."),
        *((name, None, default, text) for name, default, text in options_of(Thresholds)),
    ]  # fmt: skip
    optFlags: ClassVar[list[Any]] = [
        ("no-commands", None, "The console sends no commands, whoever is there."),
    ]

    def __init__(self) -> None:
        self["host-name"] = []
        super().__init__()

    def opt_host_name(self, value: str) -> None:
        """A name by which browsers may call the console without TLS, besides localhost, as
        that of a proxy before it; may be repeated."""
        self["host-name"].append(value)

    def console(
        self,
        reactor: Reactor,
        option: str,
        description: str,
        address: RedisAddress,
        *,
        positions: PositionReader | None,
        credentials: Credentials,
        controls: list[str],
        health: Health,
        abort: Abort,
        metrics_registry: CollectorRegistry,
    ) -> Role:
        """The console role.

        :param option: the one that has the endpoint.
        :raises ConfigError: when an option makes no sense, or others could come in.
        """
        name = f"--{option} {description}"
        endpoint, alone = console_endpoint(reactor, name, description)
        operators = self._operators()
        if not alone and operators is None:
            raise ConfigError(
                f"{name}: others can reach that: say who may log in (--operators FILE)"
            )
        thresholds = config.settings(Thresholds, self)
        if thresholds.far_behind <= thresholds.behind:
            raise ConfigError("--far-behind: must be more than --behind")
        try:
            file = self["session-key"]
            key = session_key(None if file is None else Path(file))
        except ValueError as error:
            raise ConfigError(f"--session-key: {error}") from None
        may_send = not self["no-commands"]
        names = Names.of(self["host-name"])
        return console_role(
            reactor,
            address,
            streams=config.process_streams(os.environ, installed_vendors()),
            door=Door(name, endpoint, operators, key, names, may_send),
            positions=positions,
            namings=_namings(),
            credentials=credentials,
            controls=controls,
            thresholds=thresholds,
            tiles=self._tiles(),
            health=health,
            abort=abort,
            metrics_registry=metrics_registry,
        )

    def _operators(self) -> Operators | None:
        if self["operators"] is None:
            return None
        try:
            return Operators(Path(self["operators"]))
        except BadOperators as error:
            raise ConfigError(f"--operators {error}") from None

    def _tiles(self) -> Tiles | None:
        url = self["tiles"]
        if url is None:
            return None
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or any(part not in parts.path for part in ("{z}", "{x}", "{y}"))
            or any(character in url for character in " ;,'\"")
        ):
            raise ConfigError("--tiles: must be like https://tile.example.org/{z}/{x}/{y}.png")
        return Tiles(url, self["tiles-credit"])


class ConsoleOptions(ConsoleDoorOptions):
    """A page that shows what happens, and sends commands."""

    longdesc = (
        "Serves one page that shows how far behind the processors are, instances, commands and "
        "devices, and that sends commands by the control ports."
    )
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        ("listen", None, config.DEFAULT_CONSOLE, "Where browsers find it: tcp:PORT (this machine "
         "only), or ssl:PORT:privateKey=FILE:certKey=FILE[:extraCertChain=FILE]"
         "[:interface=ADDRESS] with --operators."),
        ("sink", None, None, "Where positions are stored, to be read: postgresql://… or "
         "sqlite:PATH. [TRACKER_SINK; devices without places]"),
        ("control-key", None, None, "The console's private key for control ports with TLS."),
        ("control-cert", None, None, "Its certificate."),
        ("control-ca", None, None, "The authority of the instances' certificates."),
    ]  # fmt: skip

    def __init__(self) -> None:
        self["control"] = []
        super().__init__()

    def opt_control(self, value: str) -> None:
        """A control port besides those that instances tell of in their heartbeats; may be
        repeated."""
        self["control"].append(value)

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        sink = config.maybe_sink_url(self["sink"], os.environ)
        files = (self[f"control-{name}"] for name in ("key", "cert", "ca"))
        return self.console(
            reactor,
            "listen",
            self["listen"],
            reachable(redis_address(self["redis"], os.environ), reactor),
            positions=None if sink is None else open_reading(reactor, sink),
            credentials=Credentials(*(None if file is None else Path(file) for file in files)),
            controls=self["control"],
            health=health,
            abort=abort,
            metrics_registry=metrics_registry,
        )


def console_endpoint(
    reactor: Reactor, name: str, description: str
) -> tuple[IStreamServerEndpoint, bool]:
    """Return the console's endpoint, and whether only this machine can reach it.

    :param name: the option, for what is said of it.
    :raises ConfigError: when it makes no sense, or others could read along.
    """
    kind = description.partition(":")[0]
    if kind == "systemd":  # as the demo hands on its socket
        return _inherited(reactor, name, description), True
    if kind not in _INTERFACE_AT:
        raise ConfigError(f"{name}: must begin with tcp: or ssl:")
    loopback = r"\:\:1" if kind == "tcp6" else "127.0.0.1"
    described = with_default(description, _INTERFACE_AT, "interface", loopback)
    _, positional, named = split(described)
    at = _INTERFACE_AT[kind] - 1
    interface = named.get("interface") or (positional[at] if len(positional) > at else "")
    alone = is_loopback(interface)
    try:
        if kind == "ssl":
            return tls_endpoint(reactor, described), alone
        if not alone:
            raise ConfigError(f"{name}: not encrypted, and others can reach that: use ssl:")
        return tcp_endpoint(reactor, described), alone
    except OSError as error:
        raise ConfigError(f"{name}: {error.filename}: {error.strerror}") from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _inherited(reactor: Reactor, name: str, description: str) -> IStreamServerEndpoint:
    """Return the endpoint of a socket that systemd, or the demo, holds on loopback."""
    endpoint = endpoint_of(reactor, name, description)
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        with socket.socket(fileno=os.dup(endpoint.fileno)) as held:
            address = held.getsockname()
        if isinstance(address, tuple) and is_loopback(address[0]):
            return endpoint
    raise ConfigError(f"{name}: not encrypted, and others can reach that: use ssl:")


def open_reading(reactor: Reactor, url: str) -> PositionReader:
    """Return the reader of a sink."""
    try:
        return open_reader(reactor, url)
    except ValueError as error:
        raise ConfigError(f"--sink: {error}") from None


def _namings() -> dict[str, INaming]:
    made = {}
    for name, vendor in installed_vendors().items():
        if (naming := vendor.buildNaming({})) is not None:
            made[name] = naming
    return made
