"""The control ports of the instances that live, and one of them that takes a command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient, NotConnected
from tracker.control.commands import RedisUnavailable
from tracker.streams.advertised import control_ports
from tracker.streams.connection import RedisConnection, Refused, Unavailable
from tracker.streams.timer import RedisTimer

#: Seconds between two looks at which instances live.
INTERVAL: Final = 10.0
#: What the instances' logs call the bridge.
NAME: Final = "bridge"


class NoInstance(Exception):
    """No instance's control port could be asked; the text says why."""


@frozen
class Credentials:
    """What the bridge shows to control ports with TLS."""

    key: Path | None = None
    certificate: Path | None = None
    authority: Path | None = None

    def address(self, advertised: str) -> str:
        """The whole address of a control port that a heartbeat tells of."""
        if not advertised.startswith("ssl:"):
            return advertised
        files = {"privateKey": self.key, "certKey": self.certificate, "caCert": self.authority}
        return advertised + "".join(f":{name}={file}" for name, file in files.items() if file)


class Instances(Service):
    """Knows the control ports of all instances that live, and asks one after the other.

    :param report: told None when there is one, else why not.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        redis: RedisConnection,
        credentials: Credentials,
        report: Any,
    ) -> None:
        self._reactor = reactor
        self._redis = redis
        self._credentials = credentials
        self._report = report
        self._clients: dict[str, ControlClient] = {}
        self._bad: dict[str, str] = {}
        self._timer = RedisTimer(reactor, redis, INTERVAL, self._look)

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._timer.startService()

    def stopService(self) -> Deferred[Any]:
        """Disconnect from all."""
        super().stopService()
        clients, self._clients = self._clients, {}
        return gatherResults(
            [self._timer.stopService(), *(client.stopService() for client in clients.values())],
            consumeErrors=True,
        )

    async def send_command(self, device_id: str, text: str, **options: Any) -> dict[str, Any]:
        """Have any instance send a command; see :meth:`ControlClient.send_command`.

        :raises NoInstance: when none could be asked.
        :raises ControlError: when one has said no.
        """
        if not self._clients:
            await self._look()
        why = "no instance with a control port lives"
        for address, client in list(self._clients.items()):
            try:
                answer: dict[str, Any] = await client.send_command(device_id, text, **options)
            except (NotConnected, RedisUnavailable) as error:
                why = f"{address}: {error}"
                self._forget(address)
                continue
            self._prefer(address)
            self._report(None)
            return answer
        self._report(why)
        raise NoInstance(why)

    def _forget(self, address: str) -> None:
        """It is asked again when it has been seen to live."""
        client = self._clients.pop(address, None)
        if client is not None:
            client.stopService()

    def _prefer(self, address: str) -> None:
        """Ask this one first the next time."""
        client = self._clients.pop(address, None)
        if client is not None:
            self._clients = {address: client, **self._clients}

    async def _look(self) -> None:
        try:
            found = await control_ports(self._redis)
        except (Refused, Unavailable) as error:
            self._log.debug("instances not looked up: {error}", error=error)
            return
        self._keep(found)

    def _keep(self, found: Mapping[str, str]) -> None:
        if not self.running:
            return
        addresses = {self._credentials.address(advertised) for advertised in found.values()}
        for address in self._clients.keys() - addresses:
            self._forget(address)
        for address in sorted(addresses - self._clients.keys()):
            try:
                endpoint = client_endpoint(self._reactor, address)
            except ValueError as error:
                if self._bad.get(address) != str(error):
                    self._bad[address] = str(error)
                    self._log.warn("control port {address}: {error}", address=address, error=error)
                continue
            client = ControlClient(self._reactor, endpoint, NAME, retry=False)
            client.startService()
            self._clients[address] = client
        self._report(None if self._clients else "no instance with a control port lives")
