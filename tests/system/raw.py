"""Devices as sockets, for tests that need to hold each byte in their hands."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.frame import encode_frame
from tracker.vendors.teltonika.login import encode_login

STREAM = "telemetry:teltonika"
#: Device time of the first record; each further one is a millisecond later.
START = 1_710_504_600_000


def packet(*numbers: int) -> bytes:
    """The data of a frame whose records are told apart by these numbers."""
    records = [
        Record(START + number, 0, 252_500_000, 546_800_000, 100, 90, 8, 40, 0) for number in numbers
    ]
    return encode_packet(CODEC_8, records)


def frame(*numbers: int) -> bytes:
    """The same as a frame."""
    return encode_frame(packet(*numbers))


class RawDevice:
    """A connection that sends what it is told."""

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
        first: bytes = b"",
    ) -> None:
        """:param source: the address that it connects from.
        :param first: what it sends before anything else, also before TLS begins.
        """
        plain = socket.create_connection(
            ("127.0.0.1", port), timeout=10, source_address=(source, 0)
        )
        plain.sendall(first)
        self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> RawDevice:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer when the server closes the connection before."""
        data = b""
        with suppress(ConnectionResetError, ssl.SSLError):
            while len(data) < size and (more := self.socket.recv(size - len(data))):
                data += more
        return data

    def says_nothing(self, seconds: float = 0.3) -> bool:
        """Whether no byte comes, and the connection stays, for that long."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10)
        return False

    def login(self, imei: str) -> bytes:
        """Log in; the answer."""
        self.send(encode_login(imei))
        return self.read(1)

    def try_login(self, imei: str) -> bool:
        """Log in; whether it is served, and not closed unread."""
        with suppress(ConnectionResetError, BrokenPipeError):
            return self.login(imei) == b"\x01"
        return False

    def deliver(self, *numbers: int) -> bool:
        """Send a frame with these records; whether it is acknowledged."""
        self.send(frame(*numbers))
        return self.read(4) == len(numbers).to_bytes(4, "big")

    def is_closed(self) -> bool:
        """Wait for the server to close the connection; whether it does so without a word."""
        return self.read(1) == b""


class Ingest:
    """An ingest process on a port of its own."""

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        *options: str,
        endpoint: str = "tcp:{port}",
        files: int | None = None,
    ) -> None:
        self.port = free_port()
        self.redis = redis
        listen = f"teltonika={endpoint.format(port=self.port)}:interface=127.0.0.1"
        self.daemon = Daemon(
            *(folder, "ingest", "ingest", "--redis", redis.url, "--listen", listen),
            *options,
            files=files,
        )

    def connect(self, tls: ssl.SSLContext | None = None) -> RawDevice:
        return RawDevice(self.port, tls)

    def entries(self) -> list[dict[str, Any]]:
        """The payloads in the stream, each with its ``codec``."""
        return [
            json.loads(fields[b"payload"]) | {"codec": fields[b"codec"].decode()}
            for _, fields in self.redis.client.xrange(STREAM)
        ]

    def rejections(self) -> list[str]:
        """What its log says of peers that broke the protocol."""
        return [line for line in self.daemon.text.splitlines() if ": rejected " in line]

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
