"""Ask the control ports of the living instances, and send commands through them."""

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
from tracker.control.connection import NotConnected
from tracker.control.pool import BadAddress, ControlPool, Credentials
from tracker.log.redis.heartbeats import InstanceHeartbeat

#: Seconds between two requests to each instance for its state.
INTERVAL: Final = 5.0
#: The console's name in the instances' logs.
NAME: Final = "console"


class NoInstance(Exception):
    """No instance's control port could be asked; the text gives the reason."""


@define(eq=False)
class _Port:
    address: str
    client: ControlClient
    instance_id: str = ""
    info: dict[str, Any] | None = None
    why: str = ""
    """The reason why there is no info, as in the log."""
    asking: bool = False

    @property
    def permission(self) -> str:
        """The console's permission there: ``read`` or ``operate``; empty if it does not answer."""
        return str(self.client.greeting.get("permission", "")) if self.info is not None else ""


class ControlPorts(Service):
    """Requests the state of each instance at an interval.

    :param given: whole addresses that are used, whether an instance advertises them or not.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, credentials: Credentials, given: Sequence[str] = ()
    ) -> None:
        self._pool = ControlPool(reactor, NAME, credentials, given=given)
        self._ports: dict[str, _Port] = {}
        self._asking = LoopingCall(self._ask_all)
        self._asking.clock = reactor

    def startService(self) -> None:
        """Connect to the ports that are given."""
        super().startService()
        self._pool.startService()
        self.keep([])
        self._asking.start(INTERVAL)

    def stopService(self) -> Deferred[None]:
        """Disconnect from all."""
        super().stopService()
        self._asking.stop()
        self._ports.clear()
        return self._pool.stopService()

    def keep(self, beats: Sequence[InstanceHeartbeat]) -> None:
        """Connect to the living instances, and disconnect from others."""
        if not self.running:
            return
        advertised = {beat.control: beat.instance_id for beat in beats if beat.control is not None}
        self._pool.keep(advertised.keys())
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
        """The highest permission that any instance gives the console; empty while none answers."""
        permissions = {port.permission for port in self._ports.values()}
        return next(
            (permission for permission in ("operate", "read") if permission in permissions), ""
        )

    def describe(self, instance_id: str) -> dict[str, Any]:
        """Return the console's permission at an instance, and the last answer to Info.

        :return: ``permission``, ``connections`` and ``draining``; where it does not answer,
            ``permission`` is empty, and ``why`` gives a reason that names no address.
        """
        port = self._port_of(instance_id)
        if port is None:
            return {"permission": "", "why": "there is none"}
        if isinstance(port.client.connection_error, BadAddress):
            return {"permission": "", "why": "it cannot be used; see the console's log"}
        if port.info is None:
            return {"permission": "", "why": "no answer; see the console's log"}
        known = {name: port.info[name] for name in ("connections", "draining")}
        return {"permission": port.permission, **known}

    def client_of(self, instance_id: str) -> ControlClient | None:
        """Return the client of an instance's control port, if it is connected to."""
        port = self._port_of(instance_id)
        return None if port is None else port.client

    async def device(self, device_id: str, instance_id: str | None) -> dict[str, Any]:
        """See :meth:`ControlClient.device`; its own instance is asked first."""
        return await self._first(
            instance_id, lambda client: client.device(device_id), patiently=False
        )

    async def send_command(
        self, device_id: str, text: str, instance_id: str | None, **options: Any
    ) -> dict[str, Any]:
        """See :meth:`ControlClient.send_command`; its own instance is asked first."""
        return await self._first(
            instance_id, lambda client: client.send_command(device_id, text, **options)
        )

    async def command_status(self, command_id: str, device_id: str | None) -> dict[str, Any]:
        """See :meth:`ControlClient.command_status`."""
        return await self._first(
            None, lambda client: client.command_status(command_id, device_id), patiently=False
        )

    async def _first(
        self,
        instance_id: str | None,
        ask: Callable[[ControlClient], Awaitable[dict[str, Any]]],
        patiently: bool = True,
    ) -> dict[str, Any]:
        """Return the answer of the first instance that answers.

        :param instance_id: is asked first.
        :param patiently: also ask instances that have not answered the last time, and wait for
            them.
        :raises NoInstance: if no instance could be asked.
        :raises ControlError: if an instance has refused.
        """
        why = "no instance with a control port lives"
        order = {"operate": 0, "read": 1}
        ports = sorted(
            self._ports.values(),
            key=lambda port: (port.instance_id != instance_id, order.get(port.permission, 2)),
        )
        for port in ports:
            if not (patiently or port.permission):
                continue
            try:
                return await ask(port.client)
            except (NotConnected, BadAddress, RedisUnavailable) as error:
                why = f"{port.instance_id or port.address}: {error}"
        raise NoInstance(why)

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
            port.why = ""
            port.instance_id = str(port.info["instance_id"])
        except ControlError as error:
            port.info = None
            if port.why != str(error):
                port.why = str(error)
                self._log_why(port, isinstance(error, BadAddress))
        except Exception:  # noqa: BLE001 - else it would never be asked again
            self._log.failure("an instance was not asked")
            port.info, port.why = None, "a fault"
        finally:
            port.asking = False

    def _log_why(self, port: _Port, is_bad: bool) -> None:
        if is_bad:
            self._log.warn("control port {address}: {why}", address=port.address, why=port.why)
        else:
            self._log.info(
                "no answer from the control port of {instance_id}: {why}",
                instance_id=port.instance_id or "an instance",
                why=port.why,
            )
