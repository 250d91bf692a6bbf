"""TCP proxies that can stall, slow down, cut and half-close what passes through them."""

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
    """An asyncio loop in a thread of its own, for code that blocks elsewhere."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

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
    """How data is passed on: pieces of at most ``size`` bytes, ``pause`` seconds apart."""

    size: int
    pause: float


@define(eq=False)
class _Connection:
    near: socket.socket
    far: socket.socket
    up: asyncio.Task[None] | None = None
    down: asyncio.Task[None] | None = None
    tasks: set[asyncio.Task[None]] = field(factory=set)


class Proxy:
    """A port on 127.0.0.1 that leads to another port, until it is told otherwise.

    All methods may be called from any thread; each returns when it has taken effect.

    :param thread: runs the proxy; several proxies may share one.
    :param target: the port that connections are forwarded to.
    :param port: the port to listen on; any free one if 0.
    :param change: applied to each piece of data that comes back from the target.
    :param delay: seconds by which each such piece is late.
    """

    def __init__(
        self,
        thread: LoopThread,
        target: int,
        *,
        port: int = 0,
        change: Change | None = None,
        delay: float = 0.0,
    ) -> None:
        self.target = target
        self.port = port
        self.accepted = 0
        """Connections so far."""
        self._thread = thread
        self._change = change
        self._delay = delay
        self._pace: Pace | None = None
        self._reply: bytes | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[_Connection] = set()
        self._accepting: asyncio.Task[None] | None = None
        thread.call(self._listen())

    def stall(self) -> None:
        """Accept connections, forward nothing, and tell nobody."""
        self._on_loop(self._open.clear)

    def set_pace(self, pace: Pace | None) -> None:
        """Forward slowly from now on, or at full speed if None."""

        def change() -> None:
            self._pace = pace

        self._on_loop(change)

    def reply(self, data: bytes) -> None:
        """Answer new connections with these bytes, and forward nothing of them."""

        def change() -> None:
            self._reply = data

        self._on_loop(change)
        self.cut()

    def refuse(self) -> None:
        """Reset all connections and refuse new ones."""
        self._thread.call(self._stop_listening())
        self.cut()

    def cut(self) -> int:
        """Reset all connections, at both ends; returns how many there were."""
        return self._thread.call(self._cut())

    def half_close(self, up: bool) -> int:
        """Send FIN in one direction of all connections, while the other stays open.

        :param up: toward the target; else toward the clients.
        :return: how many connections there were.
        """
        return self._thread.call(self._half_close(up))

    def heal(self) -> None:
        """Forward everything at full speed again."""
        self._thread.call(self._heal())

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._thread.call(self._close())

    def _on_loop(self, function: Callable[[], object]) -> None:
        async def run() -> None:
            function()

        self._thread.call(run())

    async def _listen(self) -> None:
        listening = socket.create_server((_LOOPBACK, self.port), backlog=100)
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(listening))

    async def _stop_listening(self) -> None:
        if self._accepting is not None:
            await _cancelled(self._accepting)
            self._accepting = None

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                near, _ = await loop.sock_accept(listening)
                near.setblocking(False)
                self.accepted += 1
                far = socket.socket()
                far.setblocking(False)
                connection = _Connection(near, far)
                self._connections.add(connection)
                task = asyncio.create_task(self._serve(connection))
                connection.tasks.add(task)

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
            await asyncio.wait({connection.up, connection.down})
        except OSError:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        finally:
            if connection in self._connections:  # else whoever removed it closes it
                self._connections.discard(connection)
                near.close()
                far.close()

    async def _pump(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._open.wait()
                data = await loop.sock_recv(source, _READ)
                await self._open.wait()
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                if back:
                    await asyncio.sleep(self._delay)
                    data = self._change(data) if self._change else data
                await self._forward(sink, data)
        except OSError:
            # One end was reset: the other one learns it, as without a proxy.
            for one in (source, sink):
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    one.shutdown(socket.SHUT_RDWR)

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

    async def _heal(self) -> None:
        if self._reply is not None:
            self._reply = None
        self._pace = None
        self._open.set()
        if self._accepting is None:
            await self._listen()

    async def _close(self) -> None:
        await self._stop_listening()
        await self._cut()


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TlsPort:
    """A port on 127.0.0.1 with TLS that leads to a plain port: for servers built without TLS.

    :param change: applied to each piece of data that comes back from the target.
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
