"""The service tree of an instance's control port."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from tracker.control.access import Permissions
from tracker.control.listening import ControlListener, Place
from tracker.control.operations import Operations
from tracker.control.server import ControlFactory
from tracker.interfaces import IInstance
from tracker.observe.health import Health
from tracker.observe.levels import LogLevels
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.runtime.lifecycle import Abort, Role


class ControlPort(Role):
    """The listener of the control port, its clients, and its own connection to Redis.

    :param find: see :class:`ControlListener`.
    :param abort: see :class:`ControlListener`.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        find: Callable[[], Place],
        address: RedisAddress,
        instance: IInstance,
        permissions: Permissions,
        levels: LogLevels,
        health: Health,
        abort: Abort | None,
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
        self._listener = ControlListener(reactor, factory, find, abort)
        self._listener.setServiceParent(self)

    @property
    def address(self) -> str | None:
        """The address for clients; None without a control port."""
        return self._listener.address


class _Clients(Service):
    """The connected clients."""

    def __init__(self, factory: ControlFactory) -> None:
        self._factory = factory

    def stopService(self) -> Deferred[None]:
        """Close the connections of all clients."""
        super().stopService()
        return self._factory.close_all()
