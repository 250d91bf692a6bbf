"""The control ports of the running instances: their state, and commands through them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tracker.control.client import ControlClient
from tracker.control.commands import ControlError, RedisUnavailable
from tracker.control.connection import NotConnected, with_remedy
from tracker.control.pool import (
    NO_CONTROL_PORT,
    NO_INSTANCE,
    BadAddress,
    ControlPool,
    Credentials,
)
from tracker.log.redis.heartbeats import InstanceHeartbeat

#: Seconds between two Info requests to an instance.
INTERVAL: Final = 5.0
#: The console's name in the instances' logs.
NAME: Final = "console"


_WITHOUT: Final = (
    "the instance has no control port; start it without --control none (its log gives the reason)"
)
_NO_REPLY: Final = "no reply; see the console's log"


class NoInstance(Exception):
    """Lack of an available control port. The message gives the reason.

    :param public: the reason without addresses, for browsers.
    """

    def __init__(self, reason: str, public: str = _NO_REPLY) -> None:
        super().__init__(reason)
        self.public = public


@define(eq=False)
class _Port:
    address: str
    client: ControlClient
    instance_id: str = ""
    info: dict[str, Any] | None = None
    reason: str = ""
    """Reason why ``info`` is None, as in the log."""
    asking: bool = False

    @property
    def public_reason(self) -> str:
        """Reason why the port cannot be used, without an address."""
        reason = with_remedy(self.address, self.reason)
        return _NO_REPLY if reason == self.reason else reason

    @property
    def permission(self) -> str:
        """The console's permission at this port; empty if the port does not reply."""
        return str(self.client.greeting.get("permission", "")) if self.info is not None else ""


class ControlPorts(Service):
    """Clients of all control ports, which request the state of the instances at an interval.

    :param given: addresses that are used even if no instance advertises them.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, credentials: Credentials, given: Sequence[str] = ()
    ) -> None:
        self._pool = ControlPool(reactor, NAME, credentials, given=given)
        self._ports: dict[str, _Port] = {}
        self._has_instances = False
        self._asking = LoopingCall(self._ask_all)
        self._asking.clock = reactor

    def startService(self) -> None:
        """Connect to the given ports."""
        super().startService()
        self._pool.startService()
        self.keep([])
        self._asking.start(INTERVAL)

    def stopService(self) -> Deferred[None]:
        """Disconnect from all ports."""
        super().stopService()
        self._asking.stop()
        self._ports.clear()
        return self._pool.stopService()

    def keep(self, heartbeats: Sequence[InstanceHeartbeat]) -> None:
        """Connect to the instances of these heartbeats, and disconnect from others."""
        if not self.running:
            return
        self._has_instances = bool(heartbeats)
        advertised = {one.control: one.instance_id for one in heartbeats if one.control is not None}
        self._pool.update(advertised.keys())
        instances = {self._pool.key(address): name for address, name in advertised.items()}
        for address in self._ports.keys() - self._pool.clients.keys():
            del self._ports[address]
        for address, client in self._pool.clients.items():
            port = self._ports.get(address)
            if port is None:
                port = self._ports[address] = _Port(address, client)
                Deferred.fromCoroutine(self._ask(port))
            port.instance_id = instances.get(address, port.instance_id)

    @property
    def permission(self) -> str:
        """The highest permission that any instance gives the console; empty if none replies."""
        permissions = {port.permission for port in self._ports.values()}
        return next(
            (permission for permission in ("operate", "read") if permission in permissions), ""
        )

    def describe(self, instance_id: str) -> dict[str, Any]:
        """Return the console's permission at an instance, and the last reply to Info.

        :return: ``permission``, ``connections`` and ``draining``. If the instance does not reply,
            ``permission`` is empty, and ``reason`` gives the reason without an address.
        """
        port = self._port_of(instance_id)
        if port is None:
            return {"permission": "", "reason": _WITHOUT}
        if isinstance(port.client.connection_error, BadAddress):
            return {"permission": "", "reason": "unusable address; see the console's log"}
        if port.info is None:
            return {"permission": "", "reason": port.public_reason}
        known = {name: port.info[name] for name in ("connections", "draining")}
        return {"permission": port.permission, **known}

    def client_of(self, instance_id: str) -> ControlClient | None:
        """Return the client of an instance's control port, if the console has one."""
        port = self._port_of(instance_id)
        return None if port is None else port.client

    async def device(self, device_id: str, instance_id: str | None) -> dict[str, Any]:
        """See :meth:`ControlClient.device`; the request goes to ``instance_id`` first."""
        return await self._first(instance_id, lambda client: client.device(device_id), wait=False)

    async def send_command(
        self, device_id: str, text: str, instance_id: str | None, **options: Any
    ) -> dict[str, Any]:
        """See :meth:`ControlClient.send_command`; the request goes to ``instance_id`` first."""
        return await self._first(
            instance_id, lambda client: client.send_command(device_id, text, **options)
        )

    async def command_status(self, command_id: str, device_id: str | None) -> dict[str, Any]:
        """See :meth:`ControlClient.command_status`."""
        return await self._first(
            None, lambda client: client.command_status(command_id, device_id), wait=False
        )

    async def _first(
        self,
        instance_id: str | None,
        send: Callable[[ControlClient], Awaitable[dict[str, Any]]],
        wait: bool = True,
    ) -> dict[str, Any]:
        """Send a request to one instance after another; return the first reply.

        :param instance_id: the first instance.
        :param wait: also send to instances that did not reply to Info, and wait for them.
        :raises NoInstance: if no instance is available.
        :raises ControlError: if an instance refuses the request.
        """
        reason = public = NO_CONTROL_PORT if self._has_instances else NO_INSTANCE
        order = {"operate": 0, "read": 1}
        ports = sorted(
            self._ports.values(),
            key=lambda port: (port.instance_id != instance_id, order.get(port.permission, 2)),
        )
        for port in ports:
            why = port.reason or "no reply yet"
            if wait or port.permission:
                try:
                    return await send(port.client)
                except (NotConnected, BadAddress, RedisUnavailable) as error:
                    why = str(error)
            reason = f"{port.instance_id or port.address}: {with_remedy(port.address, why)}"
            name = port.instance_id or "an instance"
            public = f"the control port of {name} cannot be used: {port.public_reason}"
        raise NoInstance(reason, public)

    def _port_of(self, instance_id: str) -> _Port | None:
        return next((one for one in self._ports.values() if one.instance_id == instance_id), None)

    def _ask_all(self) -> None:
        for port in list(self._ports.values()):
            if not port.asking:
                Deferred.fromCoroutine(self._ask(port))

    async def _ask(self, port: _Port) -> None:
        port.asking = True
        try:
            port.info = await port.client.info()
            port.reason = ""
            port.instance_id = str(port.info["instance_id"])
        except ControlError as error:
            port.info = None
            if port.reason != str(error):
                port.reason = str(error)
                self._log_reason(port, isinstance(error, BadAddress))
        except Exception:  # noqa: BLE001 - the next interval retries
            self._log.failure("control port not read: unexpected error")
            port.info, port.reason = None, "unexpected error"
        finally:
            port.asking = False

    def _log_reason(self, port: _Port, is_bad: bool) -> None:
        if is_bad:
            self._log.warn(
                "control port {address}: {reason}", address=port.address, reason=port.reason
            )
        else:
            self._log.info(
                "control port of {instance_id} does not reply: {reason}",
                instance_id=port.instance_id or "an instance",
                reason=with_remedy(port.address, port.reason),
            )
