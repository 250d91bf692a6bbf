"""Clients of all control ports that instances advertise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    TimeoutError,  # noqa: A004
    fail,
)
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import (
    IProtocolFactory,
    IReactorTCP,
    IReactorTime,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient
from tracker.control.commands import ControlError

#: Control ports that are connected to. If instances advertise more, each call of
#: :meth:`ControlPool.update` replaces unusable ports by others.
MAX_PORTS: Final = 200
#: Seconds that connections may take to close.
CLOSE_TIMEOUT: Final = 5.0


#: Reasons for the lack of control ports, with remedies.
NO_INSTANCE: Final = "no ingest instance is running"
NO_CONTROL_PORT: Final = (
    "no running instance has a control port; start ingest without --control none (its log gives "
    "the reason)"
)


class BadAddress(ControlError):
    """The address of a control port, or a file that it requires, is not usable."""


@frozen
class Credentials:
    """PEM files for TLS: private key and certificate of the client, and the authority."""

    key: Path | None = None
    certificate: Path | None = None
    authority: Path | None = None

    def address(self, advertised: str) -> str:
        """Return the complete address of a control port that a heartbeat advertises.

        :raises BadAddress: if the address requires files that are not given.
        """
        if not advertised.startswith("ssl:"):
            return advertised
        files = {"privateKey": self.key, "certKey": self.certificate, "caCert": self.authority}
        if None in files.values():
            raise BadAddress("TLS requires --control-key, --control-cert and --control-ca")
        quoted = (f":{name}={quoteStringArgument(str(file))}" for name, file in files.items())
        return advertised + "".join(quoted)


class ControlPool(Service):
    """Clients of control ports, each of which reconnects by itself.

    :param reactor: also an ``IReactorTCP``.
    :param name: the clients' name in the logs of the instances.
    :param given: complete addresses of ports that are always connected to.
    :param changed: called with None when a connection becomes usable, and with the error when one
        is lost.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        name: str,
        credentials: Credentials,
        *,
        given: Collection[str] = (),
        changed: Callable[[ControlError | None], None] = lambda reason: None,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._credentials = credentials
        self._given = given
        self._changed = changed
        self._clients: dict[str, ControlClient] = {}
        self._last_tried = ""  # address; used if instances advertise too many

    def startService(self) -> None:
        """Connect to the given ports."""
        super().startService()
        self.update(())

    def stopService(self) -> Deferred[None]:
        """Disconnect; fires when all connections are closed, or after :data:`CLOSE_TIMEOUT`."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        clients, self._clients = self._clients, {}
        closing = [client.stopService() for client in clients.values()]
        with suppress(TimeoutError):  # an instance that hangs does not close its connection
            closed: Deferred[Any] = DeferredList(closing, consumeErrors=True)
            await closed.addTimeout(CLOSE_TIMEOUT, self._reactor)

    @property
    def clients(self) -> Mapping[str, ControlClient]:
        """Address (as given or advertised) → client; the preferred one is first."""
        return self._clients

    @property
    def usable(self) -> list[tuple[str, ControlClient]]:
        """Addresses and clients of usable connections."""
        return [item for item in self._clients.items() if item[1].connection_error is None]

    @property
    def connection_errors(self) -> dict[str, ControlError]:
        """Address → reason why its client is not connected."""
        errors = ((address, client.connection_error) for address, client in self._clients.items())
        return {address: why for address, why in errors if why is not None}

    def prefer(self, address: str) -> None:
        """Make a client the first one of :attr:`clients`."""
        client = self._clients.pop(address, None)
        if client is not None:
            self._clients = {address: client, **self._clients}

    def disconnect_others(self, advertised: Collection[str]) -> None:
        """Disconnect from ports that are neither given nor advertised."""
        for address in self._clients.keys() - {*advertised, *self._given}:
            self._clients.pop(address).stopService()

    def update(self, advertised: Collection[str]) -> None:
        """Connect to the given and the advertised ports, and disconnect from all others."""
        if not self.running:
            return
        chosen = self._chosen(set(map(self.key, advertised)) - set(self._given))
        self.disconnect_others(chosen)
        for address in sorted(chosen.union(self._given) - self._clients.keys()):
            credentials = None if address in self._given else self._credentials
            endpoint = _LazyEndpoint(self._reactor, address, credentials)
            client = ControlClient(self._reactor, endpoint, self._name)
            client.on_change(self._changed)
            self._clients[address] = client
            client.startService()

    def key(self, advertised: str) -> str:
        """Return the key in :attr:`clients` for an advertised address."""
        with suppress(BadAddress):
            whole = self._credentials.address(advertised)
            if whole in self._given:
                return whole
        return advertised

    def _chosen(self, advertised: set[str]) -> set[str]:
        """Return the ports to connect to: all, or :data:`MAX_PORTS` of them."""
        if len(advertised) <= MAX_PORTS:
            return advertised
        usable = [address for address, _ in self.usable if address in advertised]
        chosen = set(usable[:MAX_PORTS])
        # Continue after the last one that was tried, so that all are tried in turn.
        others = sorted(advertised - chosen, key=lambda one: (one <= self._last_tried, one))
        tried = others[: MAX_PORTS - len(chosen)]
        self._last_tried = tried[-1] if tried else ""
        return chosen.union(tried)


@implementer(IStreamClientEndpoint)
class _LazyEndpoint:
    """An endpoint that reads certificates at each attempt, since they may have been renewed.

    :param credentials: completes the address; None if the address is complete.
    """

    def __init__(
        self, reactor: IReactorTime, address: str, credentials: Credentials | None
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._credentials = credentials

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """See IStreamClientEndpoint."""
        try:
            address = self._address
            if self._credentials is not None:
                address = self._credentials.address(address)
            endpoint = client_endpoint(cast(IReactorTCP, self._reactor), address)
        except ValueError as error:
            return fail(BadAddress(str(error)))
        except BadAddress as error:
            return fail(error)
        connecting: Deferred[Any] = endpoint.connect(protocolFactory)
        return connecting
