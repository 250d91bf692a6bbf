"""The limit: entries per second that Redis accepts from a writer that only sends XADD."""

from __future__ import annotations

import gc
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final

from attrs import frozen

from bench.common import STREAM, Usage, Window, redis_pid
from bench.frames import packet, stream_entries
from tests.servers import RedisServer
from tracker.position import Entry
from tracker.simulator.fleet import simulated_imei

#: The default of redis-benchmark.
CONNECTIONS: Final = 50
#: Commands of a connection that are sent before their replies.
DEPTH: Final = 64

WRITER: Final = "writer"
REDIS: Final = "redis"

_MAX_REQUESTS: Final = 2_000_000_000  # never reached
_PROGRAMS: Final = ("redis-benchmark", "valkey-benchmark")
_TIMEOUT: Final = 30.0  # seconds


class WriterError(Exception):
    """The limit cannot be measured."""


@frozen
class Limit:
    """Entries that Redis has accepted."""

    writer: str
    records: int
    window: Window

    @property
    def records_per_second(self) -> float:
        """Records per second within the window."""
        return self.records / self.window.seconds


def sample() -> Sequence[Entry]:
    """Return the entries of one pipeline, each of another device."""
    return [stream_entries(packet(n, 1), simulated_imei(n))[0] for n in range(DEPTH)]


def measure(redis: RedisServer, warm_up: float, seconds: float, own_writer: bool) -> Limit:
    """Write at full speed to an empty server.

    :param own_writer: do not use redis-benchmark, even if it is installed.
    """
    program = None if own_writer else next(filter(None, map(shutil.which, _PROGRAMS)), None)
    writing = _own(redis) if program is None else _benchmark(redis, program)
    with writing as pid:
        processes = {REDIS: redis_pid(redis), WRITER: pid}
        time.sleep(warm_up)
        # Entries are counted, not replies, because both writers have to be comparable.
        length = redis.client.xlen(STREAM)
        before = Usage.now(processes)
        time.sleep(seconds)
        records = redis.client.xlen(STREAM) - length
        after = Usage.now(processes)
    if not records:
        raise WriterError(f"{program or 'writer'} has written nothing")
    return Limit(program or "own", records, Window.between(before, after))


@contextmanager
def _benchmark(redis: RedisServer, program: str) -> Iterator[int]:
    """Run redis-benchmark, which repeats one entry of median length."""
    entries = sorted(sample(), key=lambda entry: len(entry.payload))
    words = [word.decode() for word in _words(entries[len(entries) // 2])]
    process = subprocess.Popen(
        [
            *(program, "-h", "127.0.0.1", "-p", str(redis.port), "-q"),
            *("-c", str(CONNECTIONS), "-P", str(DEPTH), "-n", str(_MAX_REQUESTS)),
            *words,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process.pid
        if process.poll() is not None:
            raise WriterError(f"{program} has exited with code {process.returncode}")
    finally:
        process.kill()
        process.wait()


@contextmanager
def _own(redis: RedisServer) -> Iterator[int]:
    """Run our own writer."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    pipeline = b"".join(command(entry) for entry in sample())
    process = context.Process(target=_write, args=(theirs, redis.port, pipeline), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.recv() is not None or process.pid is None:
            raise WriterError("writer cannot connect to Redis")
        yield process.pid
        ours.send(None)
        replies = ours.recv()
        if isinstance(replies, Exception):
            raise replies
        if (length := redis.client.xlen(STREAM)) != replies:
            raise WriterError(f"{replies} replies, {length} entries")
    except EOFError:
        raise WriterError("writer has ended") from None
    finally:
        ours.close()
        process.kill()
        process.join()


def _words(entry: Entry) -> list[bytes]:
    named = zip(Entry._fields, entry, strict=True)
    fields = [word.encode() for pair in named for word in pair]
    return [b"XADD", STREAM.encode(), b"*", *fields]


def command(entry: Entry) -> bytes:
    """Return the XADD command of an entry, encoded for Redis."""
    words = _words(entry)
    return b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)))


class _Pipelined:
    """A connection that repeats a pipeline after all its replies have arrived."""

    def __init__(self, port: int, pipeline: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._pipeline = pipeline
        self.unsent = memoryview(b"")
        self._replies = bytearray()

    def begin(self) -> None:
        """Send the pipeline from its start."""
        self._replies.clear()
        self.unsent = memoryview(self._pipeline)
        self.send_rest()

    def send_rest(self) -> None:
        """Send the rest of the pipeline."""
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]

    def read_replies(self) -> bool:
        """Read replies, and return True if those to the whole pipeline have arrived."""
        received = self.socket.recv(65536)
        if not received:
            raise WriterError("Redis has closed the connection")
        replies = self._replies
        replies += received
        if replies.startswith(b"-") or b"\r\n-" in replies:
            raise WriterError(f"error reply from Redis: {bytes(replies[:200])!r}")
        # A reply has two lines: $15 and the id of the entry, which has no $.
        return replies.count(b"$") == DEPTH and replies.count(b"\r\n") == 2 * DEPTH


def _write(pipe: Connection, port: int, pipeline: bytes) -> None:
    gc.disable()
    try:
        epoll = select.epoll()
        epoll.register(pipe.fileno(), select.EPOLLIN)
        connections: dict[int, _Pipelined] = {}
        for _ in range(CONNECTIONS):
            made = _Pipelined(port, pipeline)
            connections[made.socket.fileno()] = made
            # Edge-triggered: a buffer with room is reported only once.
            epoll.register(made.socket, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        pipe.send(None)
        pipe.send(_write_until_readable(pipe.fileno(), epoll, connections))
    except (WriterError, OSError) as error:
        pipe.send(error)


def _write_until_readable(
    stop: int, epoll: select.epoll, connections: dict[int, _Pipelined]
) -> int:
    """Write until the file number ``stop`` is readable, and return the number of replies."""
    pipelines = 0
    unanswered = set(connections)
    stopping = False
    for connection in connections.values():
        connection.begin()
    while unanswered:
        events = epoll.poll(_TIMEOUT)
        if not events:
            raise WriterError(f"no reply within {_TIMEOUT:g} s")
        for number, happened in events:
            if number == stop:
                stopping = True
                epoll.unregister(stop)
                continue
            connection = connections[number]
            if connection.unsent:
                connection.send_rest()
            if happened & select.EPOLLIN and connection.read_replies():
                pipelines += 1
                if stopping:
                    unanswered.discard(number)
                else:
                    connection.begin()
    return pipelines * DEPTH
