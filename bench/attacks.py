"""Processes that act as hostile peers, each as fast as it can."""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from typing import Any, Final

from attrs import evolve, frozen

from bench.devices import log_in
from bench.frames import imei, packet, record
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, Record, encode_packet
from tracker.vendors.teltonika.datagram import Datagram, encode_datagram
from tracker.vendors.teltonika.frame import encode_frame
from tracker.vendors.teltonika.login import encode_login
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message

#: Datagrams a second of a flood.
FLOOD: Final = 17_000
#: Devices that attack over TCP at once.
DEVICES: Final = 3

_FIRST: Final = 50_000  # number of the first device that attacks: no other has as high a one
_SOURCES: Final = 500
_NICE: Final = 19
_SLICE: Final = 0.002  # seconds between two bursts of a flood
_LOOK: Final = 256  # datagrams between two checks whether to stop

#: Sends until the second argument returns True; returns the number of units sent.
_Attack = Callable[["Target", Callable[[], bool]], int]


@frozen
class Target:
    """The ports of one ingest process on 127.0.0.1."""

    tcp: int
    udp: int


def _message(text: bytes) -> bytes:
    message = Message(MESSAGE_CODECS[0x0D], 0x06, text, timestamp=1_790_000_000)
    return encode_frame(encode_message(message))


def _stream(target: Target, stopped: Callable[[], bool], frames: Sequence[bytes]) -> int:
    """Send frames from some devices without a pause, and read the answers."""
    sockets = log_in(target.tcp, _FIRST, DEVICES)
    pending = dict.fromkeys(sockets, b"")
    turns = {one: count() for one in sockets}
    poll = select.poll()
    by_number = {one.fileno(): one for one in sockets}
    for one in sockets:
        one.setblocking(False)
        poll.register(one, select.POLLIN | select.POLLOUT)
    sent = 0
    while not stopped():
        for number, event in poll.poll(50):
            one = by_number[number]
            with suppress(BlockingIOError):
                if event & select.POLLIN and not one.recv(65536):
                    raise ConnectionError("a device was disconnected")
                if event & select.POLLOUT:
                    if not pending[one]:
                        pending[one] = frames[next(turns[one]) % len(frames)]
                        sent += 1
                    written = one.send(pending[one])
                    pending[one] = pending[one][written:]
    for one in sockets:
        one.close()
    return sent


def _long_messages(target: Target, stopped: Callable[[], bool]) -> int:
    return _stream(target, stopped, [_message(("ж" * 32_000).encode())])


def _tiny(target: Target, stopped: Callable[[], bool], frame: bytes) -> int:
    # Many in one write, so that the receiver and not the sender is the bottleneck.
    number = 4096 // len(frame)
    return _stream(target, stopped, [frame * number]) * number


def _tiny_messages(target: Target, stopped: Callable[[], bool]) -> int:
    return _tiny(target, stopped, _message(b"x"))


def _empty_frames(target: Target, stopped: Callable[[], bool]) -> int:
    return _tiny(target, stopped, encode_frame(encode_packet(CODEC_8, ())))


def _tiny_records(target: Target, stopped: Callable[[], bool]) -> int:
    one = Record(1_790_000_000_000, 0, 1, 2, 3, 4, 5, 6, 0)
    return _tiny(target, stopped, encode_frame(encode_packet(CODEC_8, [one])))


def _slow_records(target: Target, stopped: Callable[[], bool]) -> int:
    """Send the longest frames of records without a compiled layout."""
    frames = []
    for start in range(20):
        elements = [((start * 60 + one + 1, 1, 0), (1, 1, 1), (1, 1, 2)) for one in range(160)]
        records = [evolve(record(one, 0), elements=each) for one, each in enumerate(elements)]
        frames.append(encode_frame(encode_packet(CODEC_8E, records)))
    return _stream(target, stopped, frames)


def _flood(
    target: Target,
    stopped: Callable[[], bool],
    datagrams: Iterator[bytes],
    sources: int,
) -> int:
    """Send :data:`FLOOD` datagrams a second, in bursts, from ``sources`` addresses."""
    sockets = []
    for number in range(sources):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((f"127.0.{1 + number // 200}.{1 + number % 200}", 0))
        made.setblocking(False)
        sockets.append(made)
    to = ("127.0.0.1", target.udp)
    start = time.monotonic()
    sent = 0
    while not stopped():
        due = int((time.monotonic() - start) * FLOOD)
        while sent < due:
            with suppress(BlockingIOError, ConnectionError):
                sockets[sent % sources].sendto(next(datagrams), to)
            sent += 1
            if sent % _LOOK == 0 and stopped():
                break
        time.sleep(_SLICE)
    for made in sockets:
        made.close()
    return sent


def _rubbish() -> Iterator[bytes]:
    """Yield in turn random bytes, no bytes, and datagrams that are valid up to the codec."""
    chance = random.Random(1)  # noqa: S311 - the same in each run
    noise = [chance.randbytes(60) for _ in range(64)]
    for number in count():
        yield noise[number % 64]
        yield b""
        yield encode_datagram(Datagram(number % 65536, 1, imei(_FIRST + number % 999), noise[0]))


def _records_of_one() -> Iterator[bytes]:
    data = [packet(start, 1) for start in range(1_000_000, 1_000_512)]
    for number in count():
        datagram = Datagram(number % 65536, number // 65536 % 256, imei(_FIRST), data[number % 512])
        yield encode_datagram(datagram)


def _reconnections(target: Target, stopped: Callable[[], bool]) -> int:
    """Make connections with a malformed login, or with a login and a damaged frame."""
    bad_frame = bytearray(_message(b"x" * 60_000))
    bad_frame[-1] ^= 1
    sends = [
        *(b"GET / HTTP/1.1\r\n\r\n", b"\x00\x0f12345678901234x"),
        encode_login(imei(_FIRST)) + bad_frame,
    ]
    sent = 0
    while not stopped():
        with suppress(OSError), socket.create_connection(("127.0.0.1", target.tcp), 5) as one:
            one.sendall(sends[sent % len(sends)])
            while one.recv(4096):
                pass
        sent += 1
    return sent


def _left_over(target: Target, stopped: Callable[[], bool]) -> int:
    """Connections that end with as many unread messages as are buffered for a connection."""
    records = encode_frame(encode_packet(CODEC_8, [record(1, 0)]))
    message = _message(b"x")
    sends = [
        encode_login(imei(_FIRST + number)) + records + message * (60_000 // len(message))
        for number in range(200)
    ]
    sent = 0
    while not stopped():
        with suppress(OSError), socket.create_connection(("127.0.0.1", target.tcp), 5) as one:
            one.sendall(sends[sent % len(sends)])
        sent += 1
    return sent


#: Name → attack.
ATTACKS: Final[dict[str, _Attack]] = {
    "long messages": _long_messages,
    "rubbish, 1 source": lambda t, s: _flood(t, s, _rubbish(), 1),
    "rubbish, many": lambda t, s: _flood(t, s, _rubbish(), _SOURCES),
    "datagrams, 1 source": lambda t, s: _flood(t, s, _records_of_one(), 1),
    "datagrams, many": lambda t, s: _flood(t, s, _records_of_one(), _SOURCES),
    "tiny messages": _tiny_messages,
    "empty frames": _empty_frames,
    "tiny records": _tiny_records,
    "slow records": _slow_records,
    "reconnections": _reconnections,
    "left over": _left_over,
}


class Attacker:
    """A process that attacks while the context lasts, at the lowest priority.

    :ivar rate: units that it has sent a second, once it has ended.
    """

    def __init__(self, attack: str, target: Target, cpus: set[int]) -> None:
        context = get_context("spawn")
        self.rate = 0.0
        self._stop = context.Event()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(attack, target, cpus, self._stop, theirs), daemon=True
        )

    def __enter__(self) -> Attacker:
        self._process.start()
        self._pipe.recv()  # it has begun
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._pipe.poll(20):
            self.rate = self._pipe.recv()
        self._process.kill()
        self._process.join()


def _serve(attack: str, target: Target, cpus: set[int], stop: Any, pipe: Any) -> None:
    os.sched_setaffinity(0, cpus)
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    else:  # all others have a real-time priority, and so go first
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    pipe.send(None)
    start = time.monotonic()
    sent = ATTACKS[attack](target, stop.is_set)
    pipe.send(sent / (time.monotonic() - start))
