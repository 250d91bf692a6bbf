"""Processes that attack a server as fast as they can."""

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
from bench.frames import packet, record
from tracker.simulator.fleet import simulated_imei
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, Record, encode_packet
from tracker.vendors.teltonika.datagram import Datagram, encode_datagram
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.login import encode_login
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message

#: Datagrams per second of a flood.
FLOOD_RATE: Final = 17_000
#: Number of devices that attack over TCP at the same time.
DEVICES: Final = 3

#: Lowest number of an attacking device, above those of all other devices.
_FIRST_DEVICE: Final = 50_000
_SOURCES: Final = 500
_NICE: Final = 19
_BURST_INTERVAL: Final = 0.002  # seconds
_STOP_CHECK_INTERVAL: Final = 256  # datagrams

#: Sends until the second argument returns True; returns how often it has sent.
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
    """Send frames from some devices without a pause, and read the replies."""
    sockets = log_in(target.tcp, _FIRST_DEVICE, DEVICES)
    pending = dict.fromkeys(sockets, b"")
    counters = {one: count() for one in sockets}
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
                        pending[one] = frames[next(counters[one]) % len(frames)]
                        sent += 1
                    written = one.send(pending[one])
                    pending[one] = pending[one][written:]
    for one in sockets:
        one.close()
    return sent


def _long_messages(target: Target, stopped: Callable[[], bool]) -> int:
    return _stream(target, stopped, [_message(("ж" * 32_000).encode())])


def _tiny(target: Target, stopped: Callable[[], bool], frame: bytes) -> int:
    # Many frames per write, because the receiver has to be the bottleneck, not the sender.
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
    """Send :data:`FLOOD_RATE` datagrams per second, in bursts, from ``sources`` addresses."""
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
        due = int((time.monotonic() - start) * FLOOD_RATE)
        while sent < due:
            with suppress(BlockingIOError, ConnectionError):
                sockets[sent % sources].sendto(next(datagrams), to)
            sent += 1
            if sent % _STOP_CHECK_INTERVAL == 0 and stopped():
                break
        time.sleep(_BURST_INTERVAL)
    for made in sockets:
        made.close()
    return sent


def _garbage() -> Iterator[bytes]:
    """Yield random bytes, empty datagrams, and datagrams that are valid up to the codec."""
    chance = random.Random(1)  # noqa: S311 - the same in each run
    noise = [chance.randbytes(60) for _ in range(64)]
    for number in count():
        yield noise[number % 64]
        yield b""
        yield encode_datagram(
            Datagram(number % 65536, 1, simulated_imei(_FIRST_DEVICE + number % 999), noise[0])
        )


def _records_of_one() -> Iterator[bytes]:
    data = [packet(start, 1) for start in range(1_000_000, 1_000_512)]
    for number in count():
        datagram = Datagram(
            number % 65536, number // 65536 % 256, simulated_imei(_FIRST_DEVICE), data[number % 512]
        )
        yield encode_datagram(datagram)


def _reconnections(target: Target, stopped: Callable[[], bool]) -> int:
    """Open connections with a malformed login, or with a login and a damaged frame."""
    bad_frame = bytearray(_message(b"x" * 60_000))
    bad_frame[-1] ^= 1
    sends = [
        *(b"GET / HTTP/1.1\r\n\r\n", b"\x00\x0f12345678901234x"),
        encode_login(simulated_imei(_FIRST_DEVICE)) + bad_frame,
    ]
    sent = 0
    while not stopped():
        with suppress(OSError), socket.create_connection(("127.0.0.1", target.tcp), 5) as one:
            one.sendall(sends[sent % len(sends)])
            while one.recv(4096):
                pass
        sent += 1
    return sent


def _unread_messages(target: Target, stopped: Callable[[], bool]) -> int:
    """Open and close connections with as many unread messages as the server buffers."""
    records = encode_frame(encode_packet(CODEC_8, [record(1, 0)]))
    message = _message(b"x")
    sends = [
        encode_login(simulated_imei(_FIRST_DEVICE + number))
        + records
        + message * (60_000 // len(message))
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
    "garbage, 1 source": lambda t, s: _flood(t, s, _garbage(), 1),
    "garbage, many": lambda t, s: _flood(t, s, _garbage(), _SOURCES),
    "datagrams, 1 source": lambda t, s: _flood(t, s, _records_of_one(), 1),
    "datagrams, many": lambda t, s: _flood(t, s, _records_of_one(), _SOURCES),
    "tiny messages": _tiny_messages,
    "empty frames": _empty_frames,
    "tiny records": _tiny_records,
    "slow records": _slow_records,
    "reconnections": _reconnections,
    "unread messages": _unread_messages,
}


class Attacker:
    """A process of lowest priority that attacks while the context lasts.

    :ivar rate: frames, datagrams or connections per second, once the process has ended.
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
        self._pipe.recv()  # the attack begins
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
    else:  # the other processes have a real-time priority, which takes precedence
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    pipe.send(None)
    start = time.monotonic()
    sent = ATTACKS[attack](target, stop.is_set)
    pipe.send(sent / (time.monotonic() - start))
