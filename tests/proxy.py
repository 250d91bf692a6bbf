"""TCP proxies that can stall, slow down, reset and half-close their connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from attrs import define, field, frozen

T = TypeVar("T")
Change = Callable[[bytes], bytes]

_LOOPBACK: Final = "127.0.0.1"
_READ: Final = 1 << 16
#: SO_LINGER with a time of 0: close() sends RST.
_RESET: Final = struct.pack("ii", 1, 0)


class LoopThread:
    """An asyncio loop in its own thread, callable from code that blocks."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._failed)
        self.loop.run_forever()

    @staticmethod
    def _failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # sock_accept() of Python 3.11 raises this if a connection arrives for a cancelled task.
        if not isinstance(context.get("exception"), asyncio.InvalidStateError):
            loop.default_exception_handler(context)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float = 20) -> T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        """Cancel all tasks and end the thread."""
        with suppress(TimeoutError):
            self.call(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        self.loop.close()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@frozen
class Pace:
    """Speed of forwarding: pieces of at most ``size`` bytes, ``pause`` seconds apart."""

    size: int
    pause: float


@define(eq=False)
class _Connection:
    near: socket.socket
    far: socket.socket
    serving: asyncio.Task[None] | None = None
    up: asyncio.Task[None] | None = None
    down: asyncio.Task[None] | None = None
    tasks: set[asyncio.Task[None] | None] = field(factory=set)


@frozen
class _Listening:
    socket: socket.socket
    accepting: asyncio.Task[None]


@frozen
class _ReplyFault:
    """Change and delay of data from the target."""

    change: Change | None
    delay: float


class Proxy:
    """A port on 127.0.0.1 that forwards to another port and can simulate faults.

    All methods may be called from any thread. Each one returns when it has taken effect.

    :param target: the port to which connections are forwarded.
    :param thread: the thread that runs the proxy; by default its own. Proxies may share one.
    :param port: the port to listen on; 0: any free port.
    :param backlog: maximum number of connections that wait to be accepted.
    :param change: applied to each chunk of data from the target.
    :param delay: seconds by which each such chunk is delayed.
    """

    def __init__(
        self,
        target: int,
        *,
        thread: LoopThread | None = None,
        port: int = 0,
        backlog: int = 100,
        change: Change | None = None,
        delay: float = 0.0,
    ) -> None:
        self.target = target
        self.port = port
        self.accepted = 0
        """Number of connections accepted so far."""
        self._thread = thread or LoopThread("proxy")
        self._owns_thread = thread is None
        self._backlog = backlog
        self._reply_fault = _ReplyFault(change, delay)
        self._pace: Pace | None = None
        self._reply: bytes | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[_Connection] = set()
        self._abandoned: list[_Connection] = []
        self._listening: _Listening | None = None
        self._call(self._heal(forward_old=True))

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.call(coroutine)

    def stall(self, deaf: bool = False) -> None:
        """Stop forwarding, and keep all connections open.

        :param deaf: stop accepting connections, too; the kernel completes them until the
            backlog is full.
        """
        self._call(self._stall(deaf))

    def set_pace(self, pace: Pace | None) -> None:
        """Forward at this pace from now on; None: at full speed."""
        self._pace = pace

    def reply(self, data: bytes) -> None:
        """Reset all connections, and send these bytes to each new one without forwarding."""
        self._reply = data
        self.cut()

    def refuse(self) -> None:
        """Reset all connections and refuse new ones."""
        self._call(self._stop_listening())
        self.cut()

    def cut(self) -> int:
        """Reset all connections at both ends, and return their number."""
        return self._call(self._cut())

    def half_close(self, up: bool) -> int:
        """Send FIN in one direction of all connections, while the other stays open.

        :param up: send it to the target; else to the clients.
        :return: the number of connections.
        """
        return self._call(self._half_close(up))

    def heal(self, forward_old: bool = True) -> None:
        """End all faults: accept connections, and forward at full speed.

        :param forward_old: forward the existing connections, too; else they stay open and
            stalled.
        """
        self._call(self._heal(forward_old))

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._call(self._close())
        if self._owns_thread:
            self._thread.close()

    async def _stall(self, deaf: bool) -> None:
        self._open.clear()
        if deaf and self._listening is not None:
            await _cancelled(self._listening.accepting)

    async def _heal(self, forward_old: bool) -> None:
        self._pace = self._reply = None
        if not forward_old:
            self._abandoned += self._connections
            self._connections.clear()
            for connection in self._abandoned:
                await _cancelled(*connection.tasks)
        self._open.set()
        if self._listening is None:
            listening = socket.create_server((_LOOPBACK, self.port), backlog=self._backlog)
            listening.setblocking(False)
            self.port = listening.getsockname()[1]
        elif self._listening.accepting.done():
            listening = self._listening.socket
        else:
            return
        self._listening = _Listening(listening, asyncio.create_task(self._accept(listening)))

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            await _cancelled(self._listening.accepting)
            self._listening.socket.close()
            self._listening = None

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listening)
            near.setblocking(False)
            self.accepted += 1
            far = socket.socket()
            far.setblocking(False)
            connection = _Connection(near, far)
            self._connections.add(connection)
            connection.serving = asyncio.create_task(self._serve(connection))
            connection.tasks.add(connection.serving)

    async def _serve(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        near, far = connection.near, connection.far
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._open.wait()
            if self._reply is not None:
                await loop.sock_recv(near, _READ)
                await loop.sock_sendall(near, self._reply)
                return
            await loop.sock_connect(far, (_LOOPBACK, self.target))
            connection.up = asyncio.create_task(self._pump(near, far, back=False))
            connection.down = asyncio.create_task(self._pump(far, near, back=True))
            connection.tasks |= {connection.up, connection.down}
            pumps = {connection.up, connection.down}
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            for pump in done:
                if not pump.cancelled():
                    pump.result()
        except OSError:
            # One end was reset or refused: reset the other one, too, as without a proxy.
            await _cancelled(*(connection.tasks - {connection.serving}))
            for one in (near, far):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        finally:
            if connection in self._connections:  # else the method that removed it closes it
                self._connections.discard(connection)
                near.close()
                far.close()

    async def _pump(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._open.wait()
            data = await loop.sock_recv(source, _READ)
            await self._open.wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if back:
                await asyncio.sleep(self._reply_fault.delay)
                data = self._reply_fault.change(data) if self._reply_fault.change else data
            await self._forward(sink, data)

    async def _forward(self, sink: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data:
            pace = self._pace
            piece = data if pace is None else data[: pace.size]
            await loop.sock_sendall(sink, piece)
            data = data[len(piece) :]
            if pace is not None:
                await asyncio.sleep(pace.pause)
            await self._open.wait()

    async def _cut(self) -> int:
        connections, self._connections = self._connections, set()
        for connection in connections:
            await _cancelled(*connection.tasks)
            for one in (connection.near, connection.far):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.close()
        return len(connections)

    async def _half_close(self, up: bool) -> int:
        number = 0
        for connection in list(self._connections):
            pump, sink = (
                (connection.up, connection.far) if up else (connection.down, connection.near)
            )
            if pump is not None:
                await _cancelled(pump)
                number += 1
                with suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
        return number

    async def _close(self) -> None:
        await self._stop_listening()
        self._connections |= set(self._abandoned)
        await self._cut()


async def _cancelled(*tasks: asyncio.Task[None] | None) -> None:
    there = [task for task in tasks if task is not None]
    for task in there:
        task.cancel()
    await asyncio.gather(*there, return_exceptions=True)


class TlsPort:
    """A TLS port on 127.0.0.1 in front of a plain port, for servers built without TLS.

    :param change: applied to each chunk of data from the target.
    """

    def __init__(
        self,
        thread: LoopThread,
        target: int,
        context: ssl.SSLContext,
        change: Change | None = None,
    ) -> None:
        self._thread = thread
        self._target = target
        self._change = change
        self._connections: set[asyncio.StreamWriter] = set()
        self._server = thread.call(asyncio.start_server(self._serve, _LOOPBACK, 0, ssl=context))
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(_LOOPBACK, self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._connections |= ends
        try:
            pumps = (
                asyncio.create_task(_copy(reader, far_writer, None)),
                asyncio.create_task(_copy(far_reader, writer, self._change)),
            )
            # TLS has no half-open connections: the end of one direction ends both.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await _cancelled(*pumps)
        finally:
            self._connections -= ends
            for one in ends:
                one.transport.abort()

    def close(self) -> None:
        """Stop listening and close all connections."""

        async def close() -> None:
            self._server.close()
            for one in self._connections:
                one.transport.abort()

        self._thread.call(close())


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change | None
) -> None:
    with suppress(OSError):
        while data := await reader.read(_READ):
            writer.write(change(data) if change else data)
            await writer.drain()
