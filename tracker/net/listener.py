"""Listen on an endpoint from the start of a process to its stop."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.net.endpoints import readable
from tracker.net.reasons import listen_error
from tracker.runtime.lifecycle import Abort


class Listener(Service):
    """Listens on one endpoint from start to stop.

    It binds before twistd drops root privileges, which low ports require.

    :param name: name of the endpoint in log lines.
    :param endpoint: an ``IStreamServerEndpoint``, or an object with the same ``listen`` method.
    :param factory: passed to the endpoint.
    :param abort: called with the reason if listening fails.
    """

    _log = Logger()

    def __init__(self, name: str, endpoint: Any, factory: Any, abort: Abort) -> None:
        self._name = name
        self._endpoint = endpoint
        self._factory = factory
        self._abort = abort
        self._listening: Deferred[IListeningPort | None] | None = None
        self.address: IAddress | None = None
        """The address on which it listens; None if it does not."""

    def privilegedStartService(self) -> None:
        """Start listening."""
        super().privilegedStartService()
        self._listen()

    def _listen(self) -> None:
        listening: Deferred[Any] = self._endpoint.listen(self._factory)
        self._listening = listening.addCallbacks(self._listens, self._cannot_listen)

    def startService(self) -> None:
        """Start listening, unless :meth:`privilegedStartService` has done so."""
        super().startService()
        if self._listening is None:
            self._listen()

    def stopService(self) -> Deferred[None]:
        """Stop listening; accepted connections stay open."""
        super().stopService()
        listening, self._listening = self._listening, None
        self.address = None
        if listening is None:
            return succeed(None)
        listening.cancel()
        return listening.addCallback(lambda port: None if port is None else port.stopListening())

    def _listens(self, port: IListeningPort) -> IListeningPort:
        self.address = port.getHost()
        self._log.info(
            "{name}: listening on {address}", name=self._name, address=readable(self.address)
        )
        return port

    def _cannot_listen(self, failure: Failure) -> None:
        self._abort(f"cannot listen on {self._name}: {listen_error(failure.value)}")
