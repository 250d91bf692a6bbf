"""The control ports of the instances that live, and one of them that takes a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredLock,
    TimeoutError,  # noqa: A004
    fail,
)
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient, NotConnected
from tracker.control.commands import (
    BadArgument,
    ControlError,
    NotPermitted,
    RedisUnavailable,
    VersionMismatch,
)
from tracker.control.credentials import Credentials
from tracker.errors import Refused, Unavailable
from tracker.log.redis.advertised import control_ports
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.untrusted import shown

#: Seconds between two looks at which instances live.
INTERVAL: Final = 10.0
#: Seconds after a look in which no command is worth another one.
FRESH: Final = 1.0
#: Seconds that a command waits for the first connection to any instance.
PATIENCE: Final = 10.0
#: Seconds that connections may take to be closed.
CLOSING: Final = 5.0
#: Control ports that are connected to. If instances advertise more, unusable ports are replaced
#: by others at each look.
MAX_PORTS: Final = 200
#: Ports at most for which the reason why they take no commands is reported.
MAX_REASONS: Final = 5
#: What the instances' logs call the bridge.
NAME: Final = "bridge"

_NONE_LIVES: Final = "no instance with a control port lives"


class NoInstance(Exception):
    """No instance's control port takes commands now; the text says why, of each."""


class Instances(Service):
    """Knows the control ports of all instances that live, and asks one after the other.

    Each has a client, which comes back by itself when its connection is lost. One that is
    connected is asked before any is waited for.

    :param condition: met while there is one.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        redis: RedisConnection,
        credentials: Credentials,
        condition: Condition,
        client: Callable[[IStreamClientEndpoint], ControlClient] | None = None,
    ) -> None:
        self._reactor = reactor
        self._redis = redis
        self._credentials = credentials
        self._condition = condition
        self._client = client or (lambda endpoint: ControlClient(reactor, endpoint, NAME))
        self._clients: dict[str, ControlClient] = {}  # the one that took something last first
        self._waiting: list[Deferred[None]] = []
        self._one_look = DeferredLock()
        self._looked = -FRESH
        self._last_tried = ""  # address, while there are too many
        self._timer = RedisTimer(reactor, redis, INTERVAL, self._look)

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._timer.startService()

    def stopService(self) -> Deferred[None]:
        """Disconnect from all."""
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        clients, self._clients = self._clients, {}
        self._connected()
        closing = [self._timer.stopService(), *(one.stopService() for one in clients.values())]
        with suppress(TimeoutError):  # one that hangs does not say good-bye
            all_closed: Deferred[Any] = DeferredList(closing, consumeErrors=True)
            await all_closed.addTimeout(CLOSING, self._reactor)

    async def send_command(self, device_id: str, text: str, **options: Any) -> dict[str, Any]:
        """Have any instance send a command; see :meth:`ControlClient.send_command`.

        It may be asked of several, so ``command_id`` is needed: it is sent once all the same.

        :raises NoInstance: when none takes commands now.
        :raises BadArgument: when it makes no sense to the one that was asked.
        :raises ControlError: when those that take commands have failed with this one.
        """
        await self._some()
        asked: dict[str, ControlError] = {}
        while (found := self._next(asked)) is not None:
            address, client = found
            try:
                answer: dict[str, Any] = await client.send_command(device_id, text, **options)
            except BadArgument:
                raise
            except ControlError as error:
                asked[address] = error
                continue
            self._prefer(address)
            self._condition.met()
            return answer
        for refusal in asked.values():
            if not isinstance(refusal, _OUT_OF_ORDER):
                raise refusal
        why = self._why(asked)
        self._condition.fails(why)
        raise NoInstance(why)

    async def _some(self) -> None:
        """Wait a little for a connection, if there is none."""
        if not self._clients:
            await self._one_look.run(self._look_again)
        if self._any_usable() or not any(
            isinstance(client.trouble, NotConnected) for client in self._clients.values()
        ):
            return
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        with suppress(TimeoutError):
            await waiting.addTimeout(PATIENCE, self._reactor)

    def _next(self, asked: Mapping[str, ControlError]) -> tuple[str, ControlClient] | None:
        """A control port that is connected and was not asked."""
        for address, client in self._clients.items():
            if client.trouble is None and address not in asked:
                return address, client
        return None

    def _why(self, asked: Mapping[str, ControlError]) -> str:
        """Why none takes commands."""
        troubles = {address: client.trouble for address, client in self._clients.items()}
        troubles |= asked
        told = [_line(address, error) for address, error in sorted(troubles.items()) if error]
        left_out = len(told) - MAX_REASONS
        if left_out > 0:
            told[MAX_REASONS:] = [f"and {left_out} more"]
        return "; ".join(told) or _NONE_LIVES

    def _any_usable(self) -> bool:
        return any(client.trouble is None for client in self._clients.values())

    def _prefer(self, address: str) -> None:
        """Ask this one first the next time."""
        client = self._clients.pop(address, None)
        if client is not None:
            self._clients = {address: client, **self._clients}

    def _connected(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def _changed(self, reason: ControlError | None) -> None:
        """A connection was made, or lost."""
        if self.running:
            self._tell()
            if reason is None:
                self._connected()

    def _tell(self) -> None:
        if self._any_usable():
            self._condition.met()
        else:
            self._condition.fails(self._why({}))

    def _look_again(self) -> Deferred[None] | None:
        """For who needs one at once; with others, no more than one a second."""
        if self._clients or self._reactor.seconds() - self._looked < FRESH:
            return None
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        self._looked = self._reactor.seconds()
        try:
            found = await control_ports(self._redis)
        except (Refused, Unavailable) as error:
            # Those that are known may live all the same.
            self._log.debug("instances not looked up: {error}", error=error)
            return
        if self.running:
            self._keep(self._chosen(set(found.values())))

    def _chosen(self, advertised: set[str]) -> set[str]:
        """Return the ports to connect to: all, unless there are too many."""
        if len(advertised) <= MAX_PORTS:
            return advertised
        usable = [one for one, client in self._clients.items() if client.trouble is None]
        chosen = set(usable[:MAX_PORTS]) & advertised
        # Continue after the last one that was tried, so that each gets its turn.
        others = sorted(advertised - chosen, key=lambda one: (one <= self._last_tried, one))
        tried = others[: MAX_PORTS - len(chosen)]
        self._last_tried = tried[-1] if tried else ""
        return chosen.union(tried)

    def _keep(self, addresses: set[str]) -> None:
        for address in self._clients.keys() - addresses:
            self._clients.pop(address).stopService()
        if self._clients or not addresses:
            self._tell()  # of those that have had time to be connected
        for address in sorted(addresses - self._clients.keys()):
            client = self._client(_Late(self._reactor, address, self._credentials))
            client.when_it_changes(self._changed)
            self._clients[address] = client
            client.startService()


@implementer(IStreamClientEndpoint)
class _Late:
    """Reads certificates when it connects: by then there may be newer ones."""

    def __init__(self, reactor: Any, advertised: str, credentials: Credentials) -> None:
        self._reactor = reactor
        self._advertised = advertised
        self._credentials = credentials

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """See IStreamClientEndpoint."""
        try:
            address = self._credentials.address(self._advertised)
            endpoint = client_endpoint(self._reactor, address)
        except ValueError as error:
            return fail(error)
        connecting: Deferred[Any] = endpoint.connect(protocolFactory)
        return connecting


#: What keeps an instance from any command, and not from this one.
_OUT_OF_ORDER: Final = (NotConnected, RedisUnavailable, NotPermitted, VersionMismatch)


def _line(address: str, error: ControlError) -> str:
    line = f"{shown(address)}: {shown(error)}"
    if isinstance(error, NotPermitted):
        return f"{line}, which the bridge does not have there"
    if "certificate verify failed" in str(error):
        return f"{line}: its certificate is not of the authority in --control-ca"
    return line
