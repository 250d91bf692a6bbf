"""A port that leads to another one, and changes what comes back from there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

#: Seconds for which a slow link sends at once.
_SLICE = 0.02


@contextmanager
def meddler(
    port: int,
    change: Callable[[bytes], bytes] = bytes,
    delay: float = 0.0,
    rate: float | None = None,
) -> Iterator[int]:
    """A port for as long as the block lasts.

    :param change: what becomes of each piece that the server has written at once.
    :param delay: seconds by which each of them is late.
    :param rate: bytes a second that come back, as over a slow link; None: all at once.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = [listening]

    def pump(source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            piece = 1 << 20 if rate is None or not answers else max(1, int(rate * _SLICE))
            while data := source.recv(piece):
                if answers:
                    time.sleep(delay if rate is None else delay + len(data) / rate)
                    data = change(data)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", port))
                ends.extend((near, far))
                for arguments in ((near, far, False), (far, near, True)):
                    Thread(target=pump, args=arguments, daemon=True).start()

    Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        for one in ends:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
