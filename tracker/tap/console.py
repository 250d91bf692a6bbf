"""``twistd tracker console``, and the options of each role that serves the console."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint

from tracker import config
from tracker.config import ConfigError
from tracker.console.operators import InvalidOperatorsFile, Operators
from tracker.console.requests import HostNames
from tracker.console.sampler import Thresholds
from tracker.console.service import ConsoleSettings, console_role
from tracker.console.sessions import session_key
from tracker.console.site import Tiles
from tracker.control.addresses import check_client_address, is_loopback
from tracker.control.pool import Credentials
from tracker.interfaces import INaming
from tracker.net.endpoints import listening_endpoint, split, with_default
from tracker.net.ports import tcp_endpoint, tls_endpoint
from tracker.observe.health import Health
from tracker.processing.naming import namings_of
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress, redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.settings import options_of
from tracker.storage.reader import PositionReader
from tracker.storage.sinks import open_reader
from tracker.tap.role import (
    CONTROL_CLIENT,
    DEFAULT_MODEL,
    REDIS,
    RoleOptions,
    checked_address,
    endpoint_of,
)
from tracker.vendors.installed import installed_vendors

#: Kind of endpoint → number of positional arguments up to and including its interface.
_INTERFACE_POSITION: Final = {"tcp": 2, "tcp6": 2, "ssl": 4}


_NOT_ENCRYPTED: Final = "{}: not encrypted, but reachable from other machines. Use ssl:PORT."


class ServingConsoleOptions(RoleOptions):
    """Options of roles that serve the console."""

    optParameters: ClassVar[list[Any]] = [
        ("operators", None, None, "File with the console's operators and password hashes, made by "
         "tracker-admin console-operator. [default: no login]"),
        ("session-key", None, None, "File with the key that signs the console's sessions, created "
         "if missing. With it, sessions survive a restart. [default: a new key at each start]"),
        ("tiles", None, None, "URL of the tiles of the console's map, such as "
         "https://tile.example.org/{z}/{x}/{y}.png. [default: no tiles]"),
        ("tiles-credit", None, None, "Attribution of the tiles, shown on the map. "
         "[default: none]"),
        *((name, None, default, text) for name, default, text in options_of(Thresholds)),
    ]  # fmt: skip
    optFlags: ClassVar[list[Any]] = [
        ("no-commands", None, "Disable commands in the console for all operators."),
    ]

    def __init__(self) -> None:
        self["host-name"] = []
        super().__init__()

    def opt_host_name(self, value: str) -> None:
        """Accept this host name without TLS, besides localhost; may be repeated."""
        self["host-name"].append(value)

    def console(
        self,
        reactor: Reactor,
        option: str,
        description: str,
        address: RedisAddress,
        *,
        positions: PositionReader | None,
        namings: Mapping[str, INaming],
        credentials: Credentials,
        controls: list[str],
        health: Health,
        abort: Abort,
        metrics_registry: CollectorRegistry,
    ) -> Role:
        """Return the console role.

        :param option: name of the option that gives the endpoint.
        :param description: the endpoint.
        :param namings: vendor → the names of its attributes.
        :param controls: addresses of control ports besides those in heartbeats.
        :raises ConfigError: if an option is not valid, or other machines could use the console
            without a login.
        """
        name = f"--{option} {description}"
        endpoint, local_only = console_endpoint(reactor, name, description)
        operators = self._operators()
        if not local_only and operators is None:
            raise ConfigError(f"{name}: reachable from other machines. Add --operators FILE.")
        thresholds = config.settings(Thresholds, self)
        if thresholds.far_behind <= thresholds.behind:
            raise ConfigError("--far-behind must be greater than --behind")
        try:
            file = self["session-key"]
            key = session_key(None if file is None else Path(file))
        except ValueError as error:
            raise ConfigError(f"--session-key: {error}") from None
        may_send = not self["no-commands"]
        names = HostNames.of(self["host-name"])
        return console_role(
            reactor,
            address,
            streams=config.process_streams(os.environ, installed_vendors()),
            settings=ConsoleSettings(name, endpoint, operators, key, names, may_send),
            positions=positions,
            namings=namings,
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
        except InvalidOperatorsFile as error:
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
        return Tiles(url, self["tiles-credit"] or "")


class ConsoleOptions(ServingConsoleOptions):
    """Options of the console."""

    longdesc = (
        "Serves a web page that shows the lag of the processors, the instances, and devices with "
        "their positions and commands. The page can send commands through the control ports."
    )
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        ("listen", None, config.DEFAULT_CONSOLE, "Endpoint for browsers: tcp:PORT (this machine "
         "only), or ssl:PORT:privateKey=FILE:certKey=FILE[:extraCertChain=FILE]"
         "[:interface=ADDRESS] with --operators."),
        ("sink", None, None, "Database to read positions from: postgresql://… or sqlite:PATH. "
         "[default: TRACKER_SINK, or no positions]"),
        DEFAULT_MODEL,
        *CONTROL_CLIENT,
    ]  # fmt: skip

    def __init__(self) -> None:
        self["control"] = []
        super().__init__()

    def opt_control(self, value: str) -> None:
        """Use this control port, besides those in heartbeats; may be repeated."""
        self["control"].append(value)

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        for address in self["control"]:
            try:
                check_client_address(address)
            except ValueError as error:
                raise ConfigError(f"--control {address}: {error}") from None
        sink = config.maybe_sink_url(self["sink"], os.environ)
        files = (self[f"control-{name}"] for name in ("key", "cert", "ca"))
        return self.console(
            reactor,
            "listen",
            self["listen"],
            checked_address(redis_address(self["redis"], os.environ), reactor),
            positions=None if sink is None else open_position_reader(reactor, sink),
            namings=namings_of(None, self["default-model"]),
            credentials=Credentials(*(None if file is None else Path(file) for file in files)),
            controls=self["control"],
            health=health,
            abort=abort,
            metrics_registry=metrics_registry,
        )


def console_endpoint(
    reactor: Reactor, name: str, description: str
) -> tuple[IStreamServerEndpoint, bool]:
    """Return the console's endpoint, and True if only this machine can reach it.

    :param name: the option and its value, for errors.
    :raises ConfigError: if the endpoint is not valid, or other machines could reach it without
        encryption.
    """
    try:
        description = listening_endpoint(description)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    kind = description.partition(":")[0]
    if kind == "systemd":  # the demo passes its socket like this
        return _inherited(reactor, name, description), True
    if kind not in _INTERFACE_POSITION:
        raise ConfigError(f"{name}: must begin with tcp: or ssl:")
    loopback = r"\:\:1" if kind == "tcp6" else "127.0.0.1"
    described = with_default(description, _INTERFACE_POSITION, "interface", loopback)
    _, positional, named = split(described)
    index = _INTERFACE_POSITION[kind] - 1
    interface = named.get("interface") or (positional[index] if len(positional) > index else "")
    local_only = is_loopback(interface)
    try:
        if kind == "ssl":
            return tls_endpoint(reactor, described), local_only
        if not local_only:
            raise ConfigError(_NOT_ENCRYPTED.format(name))
        return tcp_endpoint(reactor, described), local_only
    except OSError as error:
        raise ConfigError(f"{name}: {error.filename}: {error.strerror}") from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _inherited(reactor: Reactor, name: str, description: str) -> IStreamServerEndpoint:
    """Return the endpoint of a loopback socket that systemd or the demo has passed."""
    endpoint = endpoint_of(reactor, name, description)
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        with socket.socket(fileno=os.dup(endpoint.fileno)) as held:
            address = held.getsockname()
        if isinstance(address, tuple) and is_loopback(address[0]):
            return endpoint
    raise ConfigError(_NOT_ENCRYPTED.format(name))


def open_position_reader(reactor: Reactor, url: str) -> PositionReader:
    """Return the reader of a sink.

    :raises ConfigError: if the URL is not valid.
    """
    try:
        return open_reader(reactor, url)
    except ValueError as error:
        raise ConfigError(f"--sink: {error}") from None
