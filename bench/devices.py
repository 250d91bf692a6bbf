"""The load: devices of which each sends a frame, waits for its acknowledgement, sends the next.

All frames are encoded before the first is sent; after that a packet costs the process
that plays the devices three system calls and little else.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final

from attrs import frozen

from bench.common import Usage, Window, percentile
from bench.frames import device_frames, imei
from tracker.vendors.teltonika.login import ACCEPT, encode_login

#: Name of the process that plays the devices, in :attr:`Phase.window`.
GENERATOR: Final = "generator"

#: Different frames of a device, as a rule; after the last it begins again.
_FRAMES: Final = 4
#: Connections that are opened before the first of them logs in; less than a listen backlog.
_AT_ONCE: Final = 200
#: Connections from one address: less than it has ephemeral ports.
_PER_SOURCE: Final = 20_000
#: Seconds without an acknowledgement of anybody.
_PATIENCE: Final = 30.0
#: From <linux/in.h>; Python names it from 3.12 on. Lets the port be chosen at connect().
_IP_BIND_ADDRESS_NO_PORT: Final = 24


class BrokenPromise(Exception):
    """The server did not do what a device relies on."""


@frozen
class Phase:
    """What devices saw while they sent."""

    packets: int
    """Acknowledged within the window."""
    window: Window
    acknowledged: int
    """Packets acknowledged before the window, in it and after it."""
    latencies: Sequence[float] = ()
    """Seconds from when a packet was due to its acknowledgement, in ascending order."""
    lateness: Sequence[float] = ()
    """Seconds that packets of devices with nothing under way were sent too late."""

    @property
    def packets_per_second(self) -> float:
        """The rate within the window."""
        return self.packets / self.window.seconds

    def latency(self, percent: float) -> float:
        """A percentile of the latencies, in milliseconds."""
        return percentile(self.latencies, percent) * 1000


def log_in(port: int, first: int, count: int) -> list[socket.socket]:
    """Connections of the devices ``first``, ``first + 1``, …, logged in, blocking.

    :raises BrokenPromise: when one is not accepted.
    """
    result: list[socket.socket] = []
    numbers = range(first, first + count)
    for start in range(0, count, _AT_ONCE):
        some = numbers[start : start + _AT_ONCE]
        opened = [_connect(port, number) for number in some]
        for number, connection in zip(some, opened, strict=True):
            connection.sendall(encode_login(imei(number)))
        for connection in opened:
            if (answer := connection.recv(8)) != ACCEPT:
                raise BrokenPromise(f"a login was answered by {answer!r}")
        result += opened
    return result


def _connect(port: int, number: int) -> socket.socket:
    made = socket.socket()
    made.settimeout(_PATIENCE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if number >= _PER_SOURCE:
        made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((f"127.0.0.{1 + number // _PER_SOURCE}", 0))
    made.connect(("127.0.0.1", port))
    return made


class _Device:
    """One connection. ``due``: when the packet under way was to be sent; None without one."""

    __slots__ = ("_frames", "_send", "due", "queue", "recv", "socket")

    def __init__(self, connection: socket.socket, frames: Sequence[bytes]) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.recv = connection.recv
        self.due: float | None = None
        self.queue: deque[float] = deque()
        self._send = connection.send
        self._frames: Callable[[], bytes] = cycle(frames).__next__

    def send(self, due: float) -> None:
        """Send the next frame. The socket's buffer is empty, so it takes all of it."""
        frame = self._frames()
        if self._send(frame) != len(frame):
            raise BrokenPromise("a frame did not fit into the socket's buffer")
        self.due = due


class _Fleet:
    """All devices of a process."""

    def __init__(
        self,
        port: int,
        connections: int,
        records: int,
        layouts: int,
        processes: Mapping[str, int],
        frames: int,
    ) -> None:
        """Log them in.

        :param records: in a packet.
        :param layouts: see :func:`bench.frames.record`.
        :param processes: name → id of those whose use of CPU is to be told.
        :param frames: how many different ones a device has; after the last it begins again.
        """
        sent = [device_frames(number, records, frames, layouts) for number in range(connections)]
        self._epoll = select.epoll()  # before the connections: select() takes only low numbers
        sockets = log_in(port, 0, connections)
        self._devices = [_Device(*pair) for pair in zip(sockets, sent, strict=True)]
        self._by_number = {device.socket.fileno(): device for device in self._devices}
        for number in self._by_number:
            self._epoll.register(number, select.EPOLLIN)
        self._acknowledgement = records.to_bytes(4, "big")
        self._processes = {**processes, GENERATOR: os.getpid()}
        self._last_heard = 0.0

    def top(self, warm_up: float, seconds: float) -> Phase:
        """Everybody sends as soon as the packet before is acknowledged."""
        before: Usage | None = None
        acknowledged = counted_from = 0
        mark = self._last_heard = time.monotonic()
        mark += warm_up
        for device in self._devices:
            device.send(mark)
        while True:
            for device in self._acknowledged(0.05):
                acknowledged += 1
                device.send(mark)
            if time.monotonic() < mark:
                continue
            usage = Usage.now(self._processes)
            if before is not None:
                break
            before, counted_from = usage, acknowledged
            mark = usage.time + seconds
        packets = acknowledged - counted_from
        self._drain(len(self._devices))  # one packet each is under way
        acknowledged += len(self._devices)
        return Phase(packets, Window.between(before, usage), acknowledged)

    def paced(self, rate: float, warm_up: float, seconds: float) -> Phase:
        """Packets are due at even intervals, of one device after the other.

        A packet that is due while the one before of its device is under way waits, and
        its latency counts from when it was due: a server that stalls is not spared the
        packets that would have come meanwhile.

        :param rate: packets a second.
        """
        latencies: list[float] = []
        lateness: list[float] = []
        before: Usage | None = None
        after: Usage | None = None
        acknowledged = in_window = sent = 0
        interval = 1 / rate
        total = int((warm_up + seconds) * rate)
        start = self._last_heard = time.monotonic()
        measured_from, end = start + warm_up, start + warm_up + seconds
        devices = cycle(self._devices)
        while acknowledged < total:
            now = time.monotonic()
            while sent < total and (due := start + sent * interval) <= now:
                device = next(devices)
                if device.due is None:
                    device.send(due)
                    lateness.append(now - due)
                else:
                    device.queue.append(due)
                sent += 1
            if before is None and now >= measured_from:
                before = Usage.now(self._processes)
            if after is None and now >= end:
                after = Usage.now(self._processes)
            until_next = start + sent * interval - time.monotonic() if sent < total else 1.0
            for device in self._acknowledged(max(0.0, until_next)):
                now = time.monotonic()
                acknowledged += 1
                # It had one under way: _acknowledged has seen to that.
                due, device.due = device.due, None  # type: ignore[assignment]
                if due >= measured_from:
                    latencies.append(now - due)
                in_window += measured_from <= now < end
                if device.queue:
                    device.send(device.queue.popleft())
        after = after or Usage.now(self._processes)
        window = Window.between(before or after, after)
        latencies.sort()
        lateness.sort()
        return Phase(in_window, window, acknowledged, latencies, lateness)

    def _acknowledged(self, timeout: float) -> Iterator[_Device]:
        """The devices that have got an acknowledgement, after waiting for one.

        ``due`` stays set until the next frame is sent, or the caller clears it.
        """
        events = self._epoll.poll(0)
        if not events and timeout > 0:
            # epoll waits for whole milliseconds, which would be seen in the latencies.
            select.select([self._epoll], [], [], timeout)
            events = self._epoll.poll(0)
        if events:
            self._last_heard = time.monotonic()
        elif time.monotonic() > self._last_heard + _PATIENCE:
            raise BrokenPromise(f"no acknowledgement within {_PATIENCE:g} s")
        for number, _ in events:
            device = self._by_number[number]
            answer = device.recv(8)
            if answer != self._acknowledgement or device.due is None:
                raise BrokenPromise(f"acknowledged by {answer!r}")
            yield device

    def _drain(self, packets: int) -> None:
        while packets:
            for device in self._acknowledged(1.0):
                device.due = None
                packets -= 1


class DeviceProcess:
    """A process that plays devices; a context manager."""

    def __init__(
        self,
        port: int,
        connections: int,
        records: int,
        layouts: int,
        processes: Mapping[str, int],
        frames: int = _FRAMES,
    ) -> None:
        """See :class:`_Fleet`."""
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(theirs, port, connections, records, layouts, dict(processes), frames),
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def __enter__(self) -> DeviceProcess:
        self._answer()  # they are logged in
        return self

    def __exit__(self, *exception: object) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def top(self, warm_up: float, seconds: float) -> Phase:
        """All send as fast as they may.

        :raises BrokenPromise: as all methods do, when the server fails a device.
        """
        self._pipe.send(("top", warm_up, seconds))
        return self._phase()

    def paced(self, rate: float, warm_up: float, seconds: float) -> Phase:
        """So many packets a second in all, evenly spread."""
        self._pipe.send(("paced", rate, warm_up, seconds))
        return self._phase()

    def _phase(self) -> Phase:
        answer = self._answer()
        if not isinstance(answer, Phase):
            raise TypeError(f"no phase: {answer!r}")
        return answer

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise BrokenPromise("the process that plays the devices has ended") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(
    pipe: Connection,
    port: int,
    connections: int,
    records: int,
    layouts: int,
    processes: Mapping[str, int],
    frames: int,
) -> None:
    gc.disable()  # nothing here makes cycles, and a collection would be seen in the latencies
    try:
        fleet = _Fleet(port, connections, records, layouts, processes, frames)
        pipe.send(None)
        while True:
            name, *arguments = pipe.recv()
            pipe.send(getattr(fleet, name)(*arguments))
    except EOFError:
        pass
    except (BrokenPromise, OSError) as error:
        pipe.send(error)
