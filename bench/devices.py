"""Simulated devices, which each send a frame, wait for its ACK, and send the next one.

All frames are encoded before the first one is sent. A packet then costs the process of the
devices three system calls and little else.
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
from bench.frames import device_frames
from tracker.simulator.fleet import simulated_imei
from tracker.vendors.teltonika.login import ACCEPT, encode_login

#: Name of the process of the devices in :attr:`Phase.window`.
GENERATOR: Final = "generator"

#: Number of different frames of a device, which it repeats.
_FRAMES: Final = 4
#: Connections that are opened before the first of them logs in; below the listen backlog.
_LOGIN_BATCH: Final = 200
#: Below the number of ephemeral ports of an address.
_CONNECTIONS_PER_ADDRESS: Final = 20_000
#: Seconds without an ACK for any device.
_TIMEOUT: Final = 30.0
#: From <linux/in.h>, in Python since 3.12: the kernel chooses the port at connect().
_IP_BIND_ADDRESS_NO_PORT: Final = 24


class ContractViolation(Exception):
    """The server has broken the protocol, or has lost data."""


@frozen
class Phase:
    """Measurements of the devices during one phase."""

    packets: int
    """Packets acknowledged within the window."""
    window: Window
    acknowledged: int
    """Packets acknowledged before, within and after the window."""
    latencies: Sequence[float] = ()
    """Seconds from the due time of a packet to its ACK, in ascending order."""
    lateness: Sequence[float] = ()
    """Seconds by which packets of idle devices were sent too late, in ascending order."""

    @property
    def packets_per_second(self) -> float:
        """Packets per second within the window."""
        return self.packets / self.window.seconds

    def latency(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        return percentile(self.latencies, percent) * 1000


def log_in(port: int, first: int, count: int) -> list[socket.socket]:
    """Log in the devices ``first``, ``first + 1``, … and return their blocking sockets.

    :raises ContractViolation: if a login is not accepted.
    """
    result: list[socket.socket] = []
    numbers = range(first, first + count)
    for start in range(0, count, _LOGIN_BATCH):
        some = numbers[start : start + _LOGIN_BATCH]
        opened = [_connect(port, number) for number in some]
        for number, connection in zip(some, opened, strict=True):
            connection.sendall(encode_login(simulated_imei(number)))
        for connection in opened:
            if (answer := connection.recv(8)) != ACCEPT:
                raise ContractViolation(f"unexpected reply to a login: {answer!r}")
        result += opened
    return result


def _connect(port: int, number: int) -> socket.socket:
    made = socket.socket()
    made.settimeout(_TIMEOUT)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if number >= _CONNECTIONS_PER_ADDRESS:
        made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((f"127.0.0.{1 + number // _CONNECTIONS_PER_ADDRESS}", 0))
    made.connect(("127.0.0.1", port))
    return made


class _Device:
    """One connection. ``due`` is the due time of the unacknowledged packet, or None."""

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
        """Send the next frame; the empty buffer of the socket has room for all of it."""
        frame = self._frames()
        if self._send(frame) != len(frame):
            raise ContractViolation("frame did not fit into the buffer of the socket")
        self.due = due


class _Fleet:
    """The devices of one process."""

    def __init__(
        self,
        port: int,
        connections: int,
        records: int,
        layouts: int,
        processes: Mapping[str, int],
        frames: int,
    ) -> None:
        """Log the devices in.

        :param records: records in a packet.
        :param layouts: see :func:`bench.frames.record`.
        :param processes: name → process id of the processes whose CPU time is measured.
        :param frames: number of different frames of a device, which it repeats.
        """
        sent = [device_frames(number, records, frames, layouts) for number in range(connections)]
        self._epoll = select.epoll()  # first, because select() requires a low file number
        sockets = log_in(port, 0, connections)
        self._devices = [_Device(*pair) for pair in zip(sockets, sent, strict=True)]
        self._by_number = {device.socket.fileno(): device for device in self._devices}
        for number in self._by_number:
            self._epoll.register(number, select.EPOLLIN)
        self._acknowledgement = records.to_bytes(4, "big")
        self._processes = {**processes, GENERATOR: os.getpid()}
        self._last_ack_at = 0.0

    def full_speed(self, warm_up: float, seconds: float) -> Phase:
        """Let each device send as soon as its previous packet is acknowledged."""
        before: Usage | None = None
        acknowledged = counted_from = 0
        mark = self._last_ack_at = time.monotonic()
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
        self._drain(len(self._devices))  # each device has one unacknowledged packet
        acknowledged += len(self._devices)
        return Phase(packets, Window.between(before, usage), acknowledged)

    def paced(self, rate: float, warm_up: float, seconds: float) -> Phase:
        """Let the devices send at even intervals, one device after the other.

        A packet whose device still waits for an ACK is sent later, but its latency counts from
        its due time. The latencies therefore include the effect of a stall on all packets that
        were due during the stall.

        :param rate: packets per second of all devices.
        """
        latencies: list[float] = []
        lateness: list[float] = []
        before: Usage | None = None
        after: Usage | None = None
        acknowledged = in_window = sent = 0
        interval = 1 / rate
        total = int((warm_up + seconds) * rate)
        start = self._last_ack_at = time.monotonic()
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
                # Not None: _acknowledged() returns only devices with an unacknowledged packet.
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
        """Yield the devices that have received an ACK; wait for one if necessary.

        ``due`` stays set until the next frame is sent, or the caller clears it.
        """
        events = self._epoll.poll(0)
        if not events and timeout > 0:
            # epoll waits for whole milliseconds, which would distort the latencies.
            select.select([self._epoll], [], [], timeout)
            events = self._epoll.poll(0)
        if events:
            self._last_ack_at = time.monotonic()
        elif time.monotonic() > self._last_ack_at + _TIMEOUT:
            raise ContractViolation(f"no ACK within {_TIMEOUT:g} s")
        for number, _ in events:
            device = self._by_number[number]
            answer = device.recv(8)
            if answer != self._acknowledgement or device.due is None:
                raise ContractViolation(f"unexpected ACK: {answer!r}")
            yield device

    def _drain(self, packets: int) -> None:
        while packets:
            for device in self._acknowledged(1.0):
                device.due = None
                packets -= 1


class DeviceProcess:
    """A process with simulated devices; a context manager."""

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
        self._answer()  # the devices are logged in
        return self

    def __exit__(self, *exception: object) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def full_speed(self, warm_up: float, seconds: float) -> Phase:
        """Let each device send as soon as its previous packet is acknowledged.

        :raises ContractViolation: if the server breaks the protocol.
        """
        self._pipe.send(("full_speed", warm_up, seconds))
        return self._phase()

    def paced(self, rate: float, warm_up: float, seconds: float) -> Phase:
        """Let the devices send at even intervals.

        :param rate: packets per second of all devices.
        :raises ContractViolation: if the server breaks the protocol.
        """
        self._pipe.send(("paced", rate, warm_up, seconds))
        return self._phase()

    def _phase(self) -> Phase:
        answer = self._answer()
        if not isinstance(answer, Phase):
            raise TypeError(f"not a Phase: {answer!r}")
        return answer

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise ContractViolation("process of the devices has ended") from None
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
    gc.disable()  # a collection would distort the latencies; the code creates no cycles
    try:
        fleet = _Fleet(port, connections, records, layouts, processes, frames)
        pipe.send(None)
        while True:
            name, *arguments = pipe.recv()
            pipe.send(getattr(fleet, name)(*arguments))
    except EOFError:
        pass
    except (ContractViolation, OSError) as error:
        pipe.send(error)
