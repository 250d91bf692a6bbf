"""The control ports of the instances that live: what they tell, and what they are asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient, NotConnected
from tracker.control.commands import ControlError, RedisUnavailable
from tracker.control.credentials import Credentials
from tracker.log.redis.advertised import Beat

#: Seconds between two questions to each instance how it is.
INTERVAL: Final = 5.0
#: What the instances' logs call the console.
NAME: Final = "console"


class NoInstance(Exception):
    """No instance's control port could be asked; the text says why."""


@define(eq=False)
class _Port:
    client: ControlClient
    instance_id: str = ""
    info: dict[str, Any] | None = None
    why: str = ""
    """Why there is no info; the same text as in the log."""
    asking: bool = False

    @property
    def role(self) -> str:
        """What it lets us do: ``read``, ``operate``; empty where it does not answer."""
        return str(self.client.greeting.get("role", "")) if self.info is not None else ""


class ControlPorts(Service):
    """Keeps a connection to each control port, and asks what it is asked.

    :param given: addresses that are used whether or not an instance advertises them.
    """

    _log = Logger()

    def __init__(self, reactor: Any, credentials: Credentials, given: Sequence[str] = ()) -> None:
        self._reactor = reactor
        self._credentials = credentials
        self._given = given
        self._ports: dict[str, _Port] = {}
        self._bad: dict[str, str] = {}
        self._asking = LoopingCall(self._ask_all)
        self._asking.clock = reactor

    def startService(self) -> None:
        """Begin with those that are given."""
        super().startService()
        self.keep([])
        self._asking.start(INTERVAL)

    def stopService(self) -> Deferred[Any]:
        """Disconnect from all."""
        super().stopService()
        self._asking.stop()
        ports, self._ports = self._ports, {}
        return gatherResults([port.client.stopService() for port in ports.values()])

    def keep(self, beats: Sequence[Beat]) -> None:
        """Be connected to the instances that live, and to no others."""
        if not self.running:
            return
        wanted = dict.fromkeys(self._given, "")
        unusable = set()
        for beat in beats:
            if beat.control is None:
                continue
            try:
                wanted[self._credentials.address(beat.control)] = beat.instance_id
            except ValueError as error:
                unusable.add(beat.control)
                self._is_bad(beat.control, str(error))
        for address in self._ports.keys() - wanted.keys():
            self._ports.pop(address).client.stopService()
        for address in self._bad.keys() - wanted.keys() - unusable:
            del self._bad[address]
        for address, instance_id in wanted.items():
            if address not in self._ports:
                self._add(address)
            if instance_id and address in self._ports:
                self._ports[address].instance_id = instance_id

    @property
    def role(self) -> str:
        """The most that any instance lets us do; empty while none answers."""
        roles = {port.role for port in self._ports.values()}
        return next((role for role in ("operate", "read") if role in roles), "")

    def describe(self, instance_id: str) -> dict[str, Any]:
        """What an instance's control port lets us do, and what it has said.

        :return: ``role``, ``connections`` and ``draining``; where it does not answer, ``role``
            is empty, and ``why`` gives a reason that names no address.
        """
        port = self._port_of(instance_id)
        if port is None:
            why = "it cannot be used; see the console's log" if self._bad else "there is none"
            return {"role": "", "why": why}
        if port.info is None:
            return {"role": "", "why": "no answer; see the console's log"}
        known = {name: port.info[name] for name in ("connections", "draining")}
        return {"role": port.role, **known}

    def client_of(self, instance_id: str) -> ControlClient | None:
        """The client of an instance's control port."""
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
        self, instance_id: str | None, ask: Any, patiently: bool = True
    ) -> dict[str, Any]:
        """The answer of the first instance that answers.

        :param patiently: also ask those that have not answered the last time, and wait for them.
        :raises NoInstance: when none could be asked.
        :raises ControlError: when one has said no.
        """
        why = "no instance with a control port lives"
        order = {"operate": 0, "read": 1}
        ports = sorted(
            self._ports.items(),
            key=lambda item: (item[1].instance_id != instance_id, order.get(item[1].role, 2)),
        )
        for address, port in ports:
            if not (patiently or port.role):
                continue
            try:
                answer: dict[str, Any] = await ask(port.client)
            except (NotConnected, RedisUnavailable) as error:
                why = f"{port.instance_id or address}: {error}"
                continue
            return answer
        raise NoInstance(why)

    def _add(self, address: str) -> None:
        try:
            endpoint = client_endpoint(self._reactor, address)
        except ValueError as error:
            self._is_bad(address, str(error))
            return
        client = ControlClient(self._reactor, endpoint, NAME)
        client.startService()
        self._ports[address] = port = _Port(client)
        Deferred.fromCoroutine(self._ask(port))

    def _is_bad(self, address: str, why: str) -> None:
        if self._bad.get(address) != why:
            self._bad[address] = why
            self._log.warn("control port {address}: {why}", address=address, why=why)

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
                self._log.info(
                    "no answer from the control port of {instance_id}: {why}",
                    instance_id=port.instance_id or "an instance",
                    why=port.why,
                )
        except Exception:  # noqa: BLE001 - else it would never be asked again
            self._log.failure("an instance was not asked")
            port.info, port.why = None, "a fault"
        finally:
            port.asking = False
