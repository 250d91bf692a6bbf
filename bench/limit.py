"""The limit: how many entries a second Redis takes from one who does nothing else but XADD."""

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
from bench.frames import imei, packet, stream_entries
from tests.servers import RedisServer
from tracker.position import Entry

#: As many as redis-benchmark has by default.
CONNECTIONS: Final = 50
#: Commands of a connection that are under way at once.
DEPTH: Final = 64

WRITER: Final = "writer"
REDIS: Final = "redis"

_ENDLESS: Final = 2_000_000_000  # requests: it is stopped before
_PROGRAMS: Final = ("redis-benchmark", "valkey-benchmark")
_PATIENCE: Final = 30.0  # seconds


class BrokenWriter(Exception):
    """The limit could not be measured."""


@frozen
class Limit:
    """What Redis took."""

    writer: str
    records: int
    window: Window

    @property
    def records_per_second(self) -> float:
        """The rate within the window."""
        return self.records / self.window.seconds


def sample() -> Sequence[Entry]:
    """Entries as ingestion makes them: a pipeline's worth, each of another device."""
    return [stream_entries(packet(n, 1), imei(n))[0] for n in range(DEPTH)]


def measure(redis: RedisServer, warm_up: float, seconds: float, own_writer: bool) -> Limit:
    """Write at full speed into an empty server.

    :param own_writer: use ours even where redis-benchmark is installed.
    """
    program = None if own_writer else next(filter(None, map(shutil.which, _PROGRAMS)), None)
    writing = _own(redis) if program is None else _benchmark(redis, program)
    with writing as pid:
        processes = {REDIS: redis_pid(redis), WRITER: pid}
        time.sleep(warm_up)
        # Entries, and not the writer's replies, are counted: so both writers are equal.
        length = redis.client.xlen(STREAM)
        before = Usage.now(processes)
        time.sleep(seconds)
        records = redis.client.xlen(STREAM) - length
        after = Usage.now(processes)
    if not records:
        raise BrokenWriter(f"{program or 'the writer'} has written nothing")
    return Limit(program or "own", records, Window.between(before, after))


@contextmanager
def _benchmark(redis: RedisServer, program: str) -> Iterator[int]:
    """redis-benchmark, which sends the same entry again and again: one of middling length."""
    entries = sorted(sample(), key=lambda entry: len(entry.payload))
    words = [word.decode() for word in _words(entries[len(entries) // 2])]
    process = subprocess.Popen(
        [
            *(program, "-h", "127.0.0.1", "-p", str(redis.port), "-q"),
            *("-c", str(CONNECTIONS), "-P", str(DEPTH), "-n", str(_ENDLESS)),
            *words,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process.pid
        if process.poll() is not None:
            raise BrokenWriter(f"{program} has ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


@contextmanager
def _own(redis: RedisServer) -> Iterator[int]:
    """A process of ours."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    pipeline = b"".join(command(entry) for entry in sample())
    process = context.Process(target=_write, args=(theirs, redis.port, pipeline), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.recv() is not None or process.pid is None:
            raise BrokenWriter("the writer cannot connect")
        yield process.pid
        ours.send(None)
        replies = ours.recv()
        if isinstance(replies, Exception):
            raise replies
        if (length := redis.client.xlen(STREAM)) != replies:
            raise BrokenWriter(f"{replies} replies, {length} entries")
    except EOFError:
        raise BrokenWriter("the writer has ended") from None
    finally:
        ours.close()
        process.kill()
        process.join()


def _words(entry: Entry) -> list[bytes]:
    named = zip(Entry._fields, entry, strict=True)
    fields = [word.encode() for pair in named for word in pair]
    return [b"XADD", STREAM.encode(), b"*", *fields]


def command(entry: Entry) -> bytes:
    """The XADD of an entry, as Redis reads it."""
    words = _words(entry)
    return b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)))


class _Pipelined:
    """A connection that sends the same pipeline whenever the one before is answered."""

    def __init__(self, port: int, pipeline: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._pipeline = pipeline
        self.unsent = memoryview(b"")
        self._replies = bytearray()

    def begin(self) -> None:
        """Send it from its start."""
        self._replies.clear()
        self.unsent = memoryview(self._pipeline)
        self.go_on()

    def go_on(self) -> None:
        """Send what is left of it."""
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]

    def is_answered(self) -> bool:
        """Read; whether all replies to the pipeline are here."""
        received = self.socket.recv(65536)
        if not received:
            raise BrokenWriter("Redis has closed the connection")
        replies = self._replies
        replies += received
        if replies.startswith(b"-") or b"\r\n-" in replies:
            raise BrokenWriter(f"Redis refuses: {bytes(replies[:200])!r}")
        # $15, an entry's id: two lines each, of which no id holds a $.
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
            # Edge-triggered, so that a buffer with room in it is told of only once.
            epoll.register(made.socket, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        pipe.send(None)
        pipe.send(_write_until_told(pipe.fileno(), epoll, connections))
    except (BrokenWriter, OSError) as error:
        pipe.send(error)


def _write_until_told(told: int, epoll: select.epoll, connections: dict[int, _Pipelined]) -> int:
    """Write until there is something to read on ``told``; how many entries were confirmed."""
    pipelines = 0
    under_way = set(connections)
    stopping = False
    for connection in connections.values():
        connection.begin()
    while under_way:
        events = epoll.poll(_PATIENCE)
        if not events:
            raise BrokenWriter(f"no reply within {_PATIENCE:g} s")
        for number, happened in events:
            if number == told:
                stopping = True
                epoll.unregister(told)
                continue
            connection = connections[number]
            if connection.unsent:
                connection.go_on()
            if happened & select.EPOLLIN and connection.is_answered():
                pipelines += 1
                if stopping:
                    under_way.discard(number)
                else:
                    connection.begin()
    return pipelines * DEPTH
