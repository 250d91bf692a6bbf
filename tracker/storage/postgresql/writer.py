"""The PostgreSQL sink, with one connection in its own thread."""

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

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.durations import format_duration
from tracker.interfaces import Batch, BatchRefused, IPositionSink, SinkDown, SinkTimedOut
from tracker.reactor import Reactor
from tracker.storage.postgresql import batch as batches
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import (
    Connection,
    cannot_open,
    connect,
    error_text,
    is_refusal,
    is_timeout,
)
from tracker.storage.postgresql.schema import is_current, upgrade
from tracker.storage.thread import SinkThread

T = TypeVar("T")

#: Seconds that a batch may take; after them the connection is closed. The server's own timeouts
#: are shorter, and normally cancel the batch first.
STORE_TIMEOUT: Final = 30.0

# Other defaults of the server or its role are overridden. With synchronous_commit "local" or
# higher, a commit is on disk when it returns. A transaction that stays open because this process
# hangs must not hold its locks forever.
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
    """Sink that stores positions in the database at ``address``.

    :param migrate: create and upgrade the tables when the sink is opened.
    :param clocks: the rule that times of records must meet.
    :param timeout: seconds that a batch may take.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: PostgreSQLAddress,
        *,
        migrate: bool = True,
        clocks: ClockRule = DEFAULT_CLOCKS,
        timeout: float = STORE_TIMEOUT,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._migrate = migrate
        self._clocks = clocks
        self._timeout = timeout
        self._thread = SinkThread(reactor, "postgresql")
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # held to close or to abort the connection
        self._timed_out = False
        self._is_prepared = False

    def open(self) -> Deferred[None]:
        """See IPositionSink. Fails with :class:`SinkDown` if a retry may succeed."""
        self._thread.start()
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        if not await self._limited(self._connect):
            await self._thread.run(self._upgrade)  # without a timeout

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
        """Call a function in the thread, and abort its connection after the timeout."""
        call = None

        def expired() -> None:
            nonlocal call
            # While the thread is still connecting, connect_timeout applies.
            call = None if self._abort_connection() else self._reactor.callLater(1.0, expired)

        def done(result: Any) -> Any:
            if call is not None:
                call.cancel()
            return result

        call = self._reactor.callLater(self._timeout, expired)
        return self._thread.run(function, *arguments).addBoth(done)

    def _abort_connection(self) -> bool:
        """Shut down the socket of the connection; return False without a connection."""
        # libpq has no timeout for replies; shutting down the socket ends its wait.
        with self._lock:
            if self._connection is None:
                return False
            self._timed_out = True
            with (
                suppress(psycopg.Error, OSError),
                socket.socket(fileno=os.dup(self._connection.fileno())) as same,
            ):
                same.shutdown(socket.SHUT_RDWR)
            return True

    # The following methods run in the sink's thread.

    def _connect(self) -> bool:
        """Connect, and return True if the tables need no upgrade."""
        self._disconnect()
        try:
            connection = connect(self._address)
            with self._lock:
                self._connection, self._timed_out = connection, False
                self._is_prepared = False
            connection.execute(_SESSION)
            current = is_current(connection, self._address, self._migrate)
            if current:
                connection.execute(batches.CREATE_STAGING)
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
            self._connection.execute(batches.CREATE_STAGING)
        except psycopg.Error as error:
            raise self._unusable(error) from None
        except BaseException:
            self._disconnect()
            raise

    def _unusable(self, error: psycopg.Error) -> Exception:
        """Return the exception for an error of opening the database."""
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
            if not self._is_prepared:
                batches.prepare(connection, self._clocks)
                self._is_prepared = True
            return batches.store(connection, batch)
        except psycopg.Error as error:
            text = self._text(error)
            refused = is_refusal(error)
            timed_out = self._timed_out or is_timeout(error)
            if not (refused and self._rolled_back()):
                self._disconnect()
            if refused:
                raise BatchRefused(text) from None
            text = f"{self._address.url}: {text}"
            raise (SinkTimedOut(text) if timed_out else SinkDown(text)) from None
        except BaseException:
            self._disconnect()
            raise

    def _rolled_back(self) -> bool:
        assert self._connection is not None  # noqa: S101 - it has just replied
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
            raise SinkDown(f"{self._address.url}: {text}") from None

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._timed_out = False
            if connection is not None:
                connection.close()

    def _text(self, error: psycopg.Error) -> str:
        if self._timed_out:
            return f"no reply within {format_duration(self._timeout)}"
        return error_text(error)
