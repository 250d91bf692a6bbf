"""Blocking requests to Redis and to a control port, for the completion of a shell.

A shell waits for its suggestions, and the import of Twisted alone takes longer than these
requests. Each function raises OSError if the server cannot be reached or does not reply in time,
and ValueError if it refuses the request or replies something else.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Final

import hiredis

from tracker.net.endpoints import connecting_endpoint, split
from tracker.redis.address import RedisAddress

#: Maximum bytes of all replies of a server.
MAX_REPLY_BYTES: Final = 1 << 20

_SCAN_COUNT: Final = 1000


class _Connection:
    """A connection that ends at a deadline.

    :param deadline: of the monotonic clock, in seconds.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline
        self._received = 0

    def __enter__(self) -> _Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, content: bytes) -> None:
        """Send all bytes."""
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(content)

    def receive(self) -> bytes:
        """Return the next bytes."""
        self._socket.settimeout(_left(self._deadline))
        content = self._socket.recv(65536)
        self._received += len(content)
        if not content or self._received > MAX_REPLY_BYTES:
            raise ConnectionAbortedError
        return content


class BlockingRedis:
    """A connection to a Redis server.

    :param deadline: time of the monotonic clock in seconds, until which all requests must end.
    """

    def __init__(self, address: RedisAddress, deadline: float) -> None:
        if address.sentinels:
            raise ValueError("Sentinels are not supported")
        self._deadline = deadline
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace", protocolError=ValueError)
        connected = _connected(address.path or (address.host, address.port), deadline)
        if address.tls:
            context = ssl.create_default_context(cafile=address.ca_file)
            connected = context.wrap_socket(connected, server_hostname=address.host)
        self._connection = _Connection(connected, deadline)
        if address.password is not None:
            user = () if address.username is None else (address.username,)
            self._call("AUTH", *user, address.password)
        if address.database:
            self._call("SELECT", str(address.database))

    def __enter__(self) -> BlockingRedis:
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.__exit__(*error)

    def scan(self, *pattern: str, key: str | None = None) -> Iterator[str]:
        """Yield the keys of the database, or the fields of the hash ``key``, until the deadline.

        :param pattern: arguments such as ``MATCH telemetry:*``.
        """
        command = ("SCAN",) if key is None else ("HSCAN", key)
        cursor = "0"
        while True:
            cursor, found = _page(self._call(*command, cursor, *pattern, "COUNT", str(_SCAN_COUNT)))
            yield from found if key is None else islice(found, 0, None, 2)
            if cursor == "0":
                return

    def _call(self, *parts: str) -> Any:
        self._connection.send(hiredis.pack_command(parts))  # type: ignore[arg-type] # a tuple of any length
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._connection.receive())
        if isinstance(reply, hiredis.HiredisError):
            raise ValueError(str(reply))
        return reply


def _page(reply: Any) -> tuple[str, list[str]]:
    """Return the next cursor and the elements of a reply to SCAN or HSCAN."""
    match reply:
        case [str(cursor), list(found)] if all(isinstance(one, str) for one in found):
            return cursor, found
        case _:
            raise ValueError("no reply to a scan")


class BlockingControl:
    """A connection to the control port of an instance, by its Unix socket or on loopback.

    :param address: ``unix:PATH`` or ``tcp:HOST:PORT``, or what is short for one of them.
    :param deadline: see :class:`BlockingRedis`.
    """

    def __init__(self, address: str, deadline: float) -> None:
        kind, arguments, _ = split(connecting_endpoint(address))
        if kind == "unix" and len(arguments) == 1:
            connected = _connected(arguments[0], deadline)
        elif kind == "tcp" and len(arguments) == 2:
            connected = _connected((arguments[0], int(arguments[1])), deadline)
        else:
            raise ValueError(f"{kind}: is not supported")
        self._connection = _Connection(connected, deadline)
        self._buffer = b""
        hello = self._call("Hello", version="1", client="tracker-admin completion")
        self.instance_id = hello[b"instance_id"].decode()

    def __enter__(self) -> BlockingControl:
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.__exit__(*error)

    def devices(self, prefix: str, limit: int) -> list[tuple[str, str]]:
        """Return the ids of connected devices with a prefix, each with its instance's id."""
        reply = self._call("ListDeviceRegistry", prefix=prefix, limit=str(limit))
        rest = reply[b"devices"]
        found = []
        while rest:
            row, rest = _box(rest)
            found.append((row[b"device_id"].decode(), row[b"instance_id"].decode()))
        return found

    def streams(self) -> list[str]:
        """Return the streams of positions."""
        rest = self._call("Lag")[b"groups"]
        found = []
        while rest:
            row, rest = _box(rest)
            found.append(row[b"stream"].decode())
        return found

    def _call(self, command: str, **arguments: str) -> dict[bytes, bytes]:
        strings = {"_ask": "1", "_command": command, **arguments}
        sent = b"".join(
            len(part).to_bytes(2, "big") + part
            for pair in strings.items()
            for part in (pair[0].encode(), pair[1].encode())
        )
        self._connection.send(sent + b"\0\0")
        while True:
            try:
                reply, self._buffer = _box(self._buffer)
                break
            except _IncompleteError:
                self._buffer += self._connection.receive()
        if b"_answer" not in reply:
            raise ValueError(reply.get(b"_error_description", b"no reply").decode())
        return reply


class _IncompleteError(Exception):
    """The box ends later."""


def _box(content: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """Return the first AMP box of some bytes, and the bytes after it."""
    strings: list[bytes] = []
    at = 0
    while True:
        length = int.from_bytes(content[at : at + 2], "big")
        end = at + 2 + length
        if len(content) < max(end, at + 2):
            raise _IncompleteError
        if length == 0 and len(strings) % 2 == 0:
            return dict(zip(strings[::2], strings[1::2], strict=True)), content[end:]
        strings.append(content[at + 2 : end])
        at = end


def _connected(address: str | tuple[str, int], deadline: float) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address, _left(deadline))
    unix = socket.socket(socket.AF_UNIX)
    try:
        unix.settimeout(_left(deadline))
        unix.connect(address)
    except BaseException:
        unix.close()
        raise
    return unix


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
