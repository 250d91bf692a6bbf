"""The service tree of an instance's control port."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint

from tracker.control.access import Permissions
from tracker.control.operations import Operations
from tracker.control.server import ControlFactory
from tracker.interfaces import IInstance
from tracker.net.listener import Listener
from tracker.observe.health import Health
from tracker.observe.levels import LogLevels
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.runtime.lifecycle import Abort, Role


class ControlPort(Role):
    """The listener of the control port, its clients, and its own connection to Redis.

    :param name: the endpoint's name in messages.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        name: str,
        endpoint: IStreamServerEndpoint,
        address: RedisAddress,
        instance: IInstance,
        permissions: Permissions,
        levels: LogLevels,
        health: Health,
        abort: Abort,
    ) -> None:
        super().__init__()
        self.setName("control")
        redis = RedisConnection(reactor, address, health.condition("redis (control)"))
        redis.setServiceParent(self)
        operations = Operations(reactor, instance, redis, levels)
        factory = ControlFactory(reactor, instance, operations, permissions)
        operations.watchers = lambda: factory.watchers
        # Stopped in reverse order: the listener, then the connections, then the one to Redis.
        _Clients(factory).setServiceParent(self)
        # Listen after privileges are dropped; otherwise root would own the Unix socket.
        Listener(name, endpoint, factory, abort, early=False).setServiceParent(self)


class _Clients(Service):
    """The connected clients."""

    def __init__(self, factory: ControlFactory) -> None:
        self._factory = factory

    def stopService(self) -> Deferred[None]:
        """Close the connections of all clients."""
        super().stopService()
        return self._factory.close_all()
