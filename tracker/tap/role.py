"""Options of all roles."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from twisted.internet.endpoints import StandardIOEndpoint, serverFromString
from twisted.internet.interfaces import IReactorTCP, IStreamServerEndpoint
from twisted.python import usage

from tracker import __version__, config
from tracker.config import ConfigError
from tracker.net.endpoints import listening_endpoint, with_default
from tracker.net.ports import BACKLOG, tls_endpoint
from tracker.observe.health import Health
from tracker.observe.levels import DEFAULT, LEVELS, LogLevels
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.endpoint import redis_endpoint
from tracker.runtime.lifecycle import Abort, Role

REDIS = (
    "redis",
    None,
    None,
    "URL of Redis: redis://[user:password@]host[:port][/db], rediss://… (TLS) or unix:///path. "
    f"[default: REDIS_URL, or {config.DEFAULT_REDIS}]",
)


#: For clients of control ports with TLS.
CONTROL_CLIENT: list[tuple[str, None, None, str]] = [
    ("control-key", None, None, "Private key file for control ports with TLS."),
    ("control-cert", None, None, "Certificate file for control ports with TLS."),
    ("control-ca", None, None, "PEM file of the authority that signed the certificates of the "
     "instances."),
]  # fmt: skip


OFFLINE = (
    "offline",
    None,
    "wait",
    "Handling of commands whose device is offline: wait (until it connects or the command "
    "expires), or fail.",
)


DEFAULT_MODEL = (
    "default-model",
    None,
    None,
    "[VENDOR:]MODEL for naming the attributes of devices that are not in devices:models, such as "
    "FMB920. "
    "[default: only names on which all models agree]",
)


_HTTP = (
    "http",
    None,
    None,
    "Endpoint for /healthz, /readyz and /metrics, such as tcp:9127; on loopback unless it names "
    "an interface. [default: none]",
)


_LOG_LEVEL = (
    "log-level",
    None,
    DEFAULT,
    f"Lowest level to log: {', '.join(LEVELS[:-1])} or {LEVELS[-1]}.",
)


class VersionedOptions(usage.Options):
    """Options with ``-h``, and ``--version``, which Twisted answers with its own version."""

    opt_h = usage.Options.opt_help

    def opt_version(self) -> None:
        """Print Tracker's version and exit."""
        print(f"tracker {__version__}")
        raise SystemExit(0)


class RoleOptions(VersionedOptions):
    """Options of every role."""

    optParameters: ClassVar[list[Any]] = [_HTTP, _LOG_LEVEL]
    levels: LogLevels

    def parseArgs(self, *surplus: str) -> None:
        """Refuse arguments that are not options."""
        if surplus:
            raise usage.UsageError(f"unexpected argument {surplus[0]!r}")

    def log_levels(self) -> LogLevels:
        """Return the log levels of the process.

        :raises ConfigError: if the level is unknown.
        """
        try:
            return LogLevels(self["log-level"])
        except ValueError as error:
            raise ConfigError(f"--log-level: {error}") from None

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """Return the role's services.

        :raises ConfigError: if an option or an environment variable is not valid.
        """
        raise NotImplementedError


def commands_wait(options: RoleOptions) -> bool:
    """Return True if commands wait for devices that are offline."""
    return config.choice(options, "offline", "wait", "fail") == "wait"


def endpoint_of(reactor: IReactorTCP, name: str, description: str) -> IStreamServerEndpoint:
    """Return the endpoint that an option describes.

    :param name: the option and its value, for errors.
    :raises ConfigError: if the endpoint is not valid.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (TypeError, LookupError) as error:
        if description.startswith("systemd:") and isinstance(error, LookupError):
            raise ConfigError(f"{name}: systemd has passed no such socket") from None
        raise ConfigError(f"{name}: missing or surplus arguments") from None
    except Exception as error:  # noqa: BLE001 - each endpoint's parser fails in its own way
        # A malformed port ends in int(), whose message is for programmers.
        not_a_number = re.match(r"invalid literal for int\(\) with base 10: (.*)", str(error))
        why = f"{not_a_number[1]} is not a number" if not_a_number else error
        raise ConfigError(f"{name}: not an endpoint: {why}") from None
    if isinstance(endpoint, StandardIOEndpoint):
        raise ConfigError(f"{name}: standard input cannot accept connections")
    return endpoint


def loopback_endpoint(reactor: IReactorTCP, name: str, description: str) -> IStreamServerEndpoint:
    """Return an endpoint that is on loopback unless the description names an interface.

    :param name: the option and its value, for errors.
    :raises ConfigError: if the endpoint is not valid.
    """
    try:
        description = listening_endpoint(description)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    described = with_default(description, {"tcp": 2, "ssl": 4}, "interface", "127.0.0.1")
    if not described.startswith("ssl:"):
        # A flood of connections fills Twisted's backlog of 50; a probe would then wait for seconds.
        described = with_default(described, {"tcp": 3, "tcp6": 3}, "backlog", BACKLOG)
        return endpoint_of(reactor, name, described)
    # Twisted's own ssl: endpoint cannot refuse a connection before its handshake.
    try:
        return tls_endpoint(reactor, described)
    except OSError as error:
        raise ConfigError(f"{name}: {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def checked_address(address: RedisAddress, reactor: Reactor) -> RedisAddress:
    """Return the address if the files of its TLS settings can be read.

    :raises ConfigError: if not.
    """
    try:
        redis_endpoint(reactor, address)
    except OSError as error:
        raise ConfigError(f"Redis URL: {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"Redis URL: {error}") from None
    return address
