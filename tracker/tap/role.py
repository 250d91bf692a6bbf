"""The options of all roles."""

from __future__ import annotations

from typing import Any, ClassVar

from prometheus_client import CollectorRegistry
from twisted.internet.endpoints import StandardIOEndpoint, serverFromString
from twisted.internet.interfaces import IReactorTCP, IStreamServerEndpoint
from twisted.plugin import getPlugins
from twisted.python import usage

from tracker import config
from tracker.config import ConfigError
from tracker.interfaces import IVendor
from tracker.net.endpoints import with_default
from tracker.net.ports import BACKLOG, tls_endpoint
from tracker.observe.health import Health
from tracker.observe.levels import DEFAULT, LEVELS, LogLevels
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.runtime.lifecycle import Abort, Role

REDIS = (
    "redis",
    None,
    None,
    "Redis: redis://[user:password@]host[:port][/db], rediss://… (TLS) or unix:///path. "
    f"[REDIS_URL, else {config.DEFAULT_REDIS}]",
)


OFFLINE = (
    "offline",
    None,
    "wait",
    "What becomes of a command for a device that is connected to no instance: wait (until it "
    "is, or the command expires), or fail.",
)


_HTTP = (
    "http",
    None,
    None,
    "Serve /healthz, /readyz and /metrics on this endpoint, as tcp:9127 (loopback unless it "
    "names an interface). [not served]",
)


_LOG_LEVEL = (
    "log-level",
    None,
    DEFAULT,
    f"Log what is of this level or above: {', '.join(LEVELS)}.",
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
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """The role's services.

        :raises ConfigError: when an option or a variable makes no sense.
        """
        raise NotImplementedError


def installed_vendors() -> dict[str, IVendor]:
    """The vendors whose plugins are installed, by name."""
    return {vendor.name: vendor for vendor in getPlugins(IVendor)}


def waits(options: RoleOptions) -> bool:
    """Whether commands wait for devices that are nowhere."""
    return config.choice(options, "offline", "wait", "fail") == "wait"


def endpoint_of(reactor: IReactorTCP, name: str, description: str) -> IStreamServerEndpoint:
    """The endpoint that an option describes.

    :param name: the option, for what is said of it.
    :raises ConfigError: when it makes no sense.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (TypeError, LookupError) as error:
        if description.startswith("systemd:") and isinstance(error, LookupError):
            raise ConfigError(f"{name}: systemd has passed no such socket") from None
        raise ConfigError(f"{name}: arguments are missing, or too many") from None
    except Exception as error:  # noqa: BLE001 - each endpoint's parser fails in its own way
        raise ConfigError(f"{name}: not an endpoint: {error}") from None
    if isinstance(endpoint, StandardIOEndpoint):
        raise ConfigError(f"{name}: nobody can connect to that")
    return endpoint


def loopback_endpoint(reactor: IReactorTCP, name: str, description: str) -> IStreamServerEndpoint:
    """An endpoint that is on loopback unless it names an interface.

    :raises ConfigError: when it makes no sense.
    """
    described = with_default(description, {"tcp": 2, "ssl": 4}, "interface", "127.0.0.1")
    if not described.startswith("ssl:"):
        # A flood of connections fills Twisted's backlog of 50, and then a probe is not answered
        # for seconds.
        described = with_default(described, {"tcp": 3, "tcp6": 3}, "backlog", BACKLOG)
        return endpoint_of(reactor, name, described)
    # Twisted's own ssl: endpoint cannot refuse a connection before its handshake.
    try:
        return tls_endpoint(reactor, described)
    except OSError as error:
        raise ConfigError(f"{name}: {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def reachable(address: RedisAddress, reactor: Reactor) -> RedisAddress:
    """The address, once it is sure that its TLS settings can be read."""
    try:
        address.endpoint(reactor)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Redis URL: {error}") from None
    return address
