"""Devices as sockets, for tests that control each byte."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.login import encode_login

STREAM = "telemetry:teltonika"
#: Device time of record 0; record N is N milliseconds later.
START = 1_710_504_600_000


def frame_data(*numbers: int) -> bytes:
    """Return the data field of a frame whose records have these numbers."""
    records = [
        Record(START + number, 0, 252_500_000, 546_800_000, 100, 90, 8, 40, 0) for number in numbers
    ]
    return encode_packet(CODEC_8, records)


def frame(*numbers: int) -> bytes:
    """Return a frame whose records have these numbers."""
    return encode_frame(frame_data(*numbers))


class RawDevice:
    """A connection whose bytes the test sends."""

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
        first: bytes = b"",
    ) -> None:
        """Connect.

        :param source: the local address.
        :param first: bytes to send first, also before the TLS handshake.
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
        """Read ``size`` bytes, or fewer if the server closes the connection."""
        data = b""
        with suppress(ConnectionResetError, ssl.SSLError):
            while len(data) < size and (more := self.socket.recv(size - len(data))):
                data += more
        return data

    def is_silent(self, seconds: float = 0.3) -> bool:
        """Return whether the server neither sends a byte nor closes within ``seconds``."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10)
        return False

    def login(self, imei: str) -> bytes:
        """Log in; return the reply."""
        self.send(encode_login(imei))
        return self.read(1)

    def try_login(self, imei: str) -> bool:
        """Log in; return whether the device is served."""
        with suppress(ConnectionResetError, BrokenPipeError):
            return self.login(imei) == b"\x01"
        return False

    def deliver(self, *numbers: int) -> bool:
        """Send a frame with these records; return whether it is acknowledged."""
        self.send(frame(*numbers))
        return self.read(4) == len(numbers).to_bytes(4, "big")

    def is_closed(self) -> bool:
        """Return whether the server closes the connection without sending a byte."""
        return self.read(1) == b""


class Ingest:
    """An ingest process with its own port."""

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        *options: str,
        endpoint: str = "tcp:{port}",
        files: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.redis = redis
        listen = f"teltonika={endpoint.format(port=self.port)}:interface=127.0.0.1"
        self.daemon = Daemon(
            *(folder, "ingest", "ingest", "--redis", redis.url, "--listen", listen),
            *options,
            files=files,
            variables=variables,
        )

    def connect(self, tls: ssl.SSLContext | None = None) -> RawDevice:
        return RawDevice(self.port, tls)

    def entries(self) -> list[dict[str, Any]]:
        """Return the payloads in the stream, each with its ``codec``."""
        return [
            json.loads(fields[b"payload"]) | {"codec": fields[b"codec"].decode()}
            for _, fields in self.redis.client.xrange(STREAM)
        ]

    def rejections(self) -> list[str]:
        """Return the log lines about rejections."""
        return [line for line in self.daemon.text.splitlines() if ": rejected " in line]

    def memory(self) -> int:
        """Return the resident memory, in bytes."""
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
