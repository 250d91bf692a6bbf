"""The sink: a connection that is made again when it is lost, in a thread of its own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from twisted.internet.defer import Deferred
from zope.interface import implementer

from tracker.interfaces import Batch, BatchRefused, IPositionSink, SinkDown, SinkTimedOut
from tracker.reactor import Reactor
from tracker.storage.postgresql import batch as batches
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import (
    Connection,
    cannot_open,
    connect,
    is_refusal,
    is_timeout,
    told,
)
from tracker.storage.postgresql.schema import is_current, upgrade
from tracker.storage.thread import SinkThread

T = TypeVar("T")

#: Seconds that a batch may take; then the connection is closed. The server cancels the batch
#: before, if it can.
STORE_TIMEOUT: Final = 30.0

# A server or role may have other defaults. "local" and better are on disk at the commit.
# A transaction that this process leaves open when it hangs must not hold locks for ever.
_SESSION: Final = """
SELECT set_config('statement_timeout', '25s', false),
    set_config('lock_timeout', '20s', false),
    set_config('idle_in_transaction_session_timeout', '20s', false),
    set_config('work_mem', '32MB', false),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
        ELSE current_setting('synchronous_commit') END, false)
"""


@implementer(IPositionSink)
class PostgreSQLSink:
    """Stores positions in the database at ``address``.

    :param migrate: whether to make and upgrade the tables when opened.
    :param timeout: seconds that a batch may take.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: PostgreSQLAddress,
        migrate: bool = True,
        timeout: float = STORE_TIMEOUT,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._migrate = migrate
        self._timeout = timeout
        self._thread = SinkThread(reactor, "postgresql")
        self._connection: Connection | None = None
        self._turn = threading.Lock()  # over closing a connection and giving it up
        self._given_up = False

    def open(self) -> Deferred[None]:
        """See IPositionSink. Fails with :class:`SinkDown` if a retry may succeed."""
        self._thread.start()
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        if not await self._limited(self._connect):
            await self._thread.run(self._upgrade)  # which may take its time

    def store(self, batch: Batch) -> Deferred[int]:
        """See IPositionSink."""
        return self._limited(self._store, batch)

    def checkpoint(self, stream: str, group: str) -> Deferred[str | None]:
        """See IPositionSink."""
        return self._limited(self._checkpoint, stream, group)

    def close(self) -> Deferred[None]:
        """See IPositionSink."""
        return self._thread.stop(self._disconnect)

    def _limited(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call a function in the thread; close its connection if it takes too long."""
        call = None

        def expired() -> None:
            nonlocal call
            # While there is no connection yet, connect_timeout holds.
            call = None if self._give_up() else self._reactor.callLater(1.0, expired)

        def done(result: Any) -> Any:
            if call is not None:
                call.cancel()
            return result

        call = self._reactor.callLater(self._timeout, expired)
        return self._thread.run(function, *arguments).addBoth(done)

    def _give_up(self) -> bool:
        """Close the connection; return whether there was one."""
        # libpq waits for an answer for ever; a socket that was shut down ends that.
        with self._turn:
            if self._connection is None:
                return False
            self._given_up = True
            with (
                suppress(psycopg.Error, OSError),
                socket.socket(fileno=os.dup(self._connection.fileno())) as same,
            ):
                same.shutdown(socket.SHUT_RDWR)
            return True

    # From here on everything runs in the sink's thread.

    def _connect(self) -> bool:
        """Connect; return whether the tables have this program's version."""
        self._disconnect()
        try:
            connection = connect(self._address)
            with self._turn:
                self._connection, self._given_up = connection, False
            connection.execute(_SESSION)
            current = is_current(connection, self._address, self._migrate)
            if current:
                connection.execute(batches.MAKE_STAGING)
        except psycopg.Error as error:
            raise self._unusable(error) from None
        except BaseException:
            self._disconnect()
            raise
        return current

    def _upgrade(self) -> None:
        assert self._connection is not None  # noqa: S101 - connected just before
        try:
            upgrade(self._connection, self._address)
            self._connection.execute(batches.MAKE_STAGING)
        except psycopg.Error as error:
            raise self._unusable(error) from None
        except BaseException:
            self._disconnect()
            raise

    def _unusable(self, error: psycopg.Error) -> Exception:
        """Return the exception to raise for an error of opening."""
        text = self._text(error)
        self._disconnect()
        return cannot_open(self._address, error, text)

    def _ready(self) -> Connection:
        if self._connection is None and not self._connect():
            self._upgrade()
        assert self._connection is not None  # noqa: S101 - either connects or raises
        return self._connection

    def _store(self, batch: Batch) -> int:
        try:
            connection = self._ready()
            return batches.store(connection, batch)
        except psycopg.Error as error:
            text = self._text(error)
            refused = is_refusal(error)
            timed_out = self._given_up or is_timeout(error)
            if not (refused and self._rolled_back()):
                self._disconnect()
            if refused:
                raise BatchRefused(text) from None
            raise (SinkTimedOut(text) if timed_out else SinkDown(text)) from None
        except BaseException:
            self._disconnect()
            raise

    def _rolled_back(self) -> bool:
        assert self._connection is not None  # noqa: S101 - it has just answered
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            return False
        return True

    def _checkpoint(self, stream: str, group: str) -> str | None:
        try:
            return batches.read_checkpoint(self._ready(), stream, group)
        except psycopg.Error as error:
            text = self._text(error)
            self._disconnect()
            raise SinkDown(text) from None

    def _disconnect(self) -> None:
        with self._turn:
            connection, self._connection = self._connection, None
            self._given_up = False
            if connection is not None:
                connection.close()

    def _text(self, error: psycopg.Error) -> str:
        if self._given_up:
            return f"no answer from {self._address.url} within {self._timeout:g} s"
        return told(error)
