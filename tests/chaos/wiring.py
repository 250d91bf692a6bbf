"""Proxies between the parts of a site, and certificates for TLS."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, cast

from attrs import frozen

from tests.certificates import certify, key_of
from tests.proxy import Change, LoopThread, Proxy, TlsPort
from tests.servers import free_port
from tests.system.processes import run

Address = tuple[str, int]


@frozen
class DatagramFaults:
    """Shares of datagrams that are lost, duplicated and delayed, each from 0 to 1."""

    lost: float = 0.0
    duplicated: float = 0.0
    delayed: float = 0.0


class UdpProxy:
    """A UDP port on 127.0.0.1 that forwards to another one and back."""

    def __init__(self, thread: LoopThread, target: int) -> None:
        self.faults = DatagramFaults()
        self._target = ("127.0.0.1", target)
        self._random = Random(target)
        self._far: dict[Address, asyncio.DatagramTransport] = {}
        self._near = cast(asyncio.DatagramTransport, thread.call(self._listen()))
        self.port: int = self._near.get_extra_info("sockname")[1]

    async def _listen(self) -> Any:
        loop = asyncio.get_running_loop()
        near, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._upward), local_addr=("127.0.0.1", 0)
        )
        return near

    def _upward(self, data: bytes, sender: Address) -> None:
        if sender in self._far:
            self._pass(self._far[sender], data, None)
            return
        asyncio.get_running_loop().create_task(self._connect(data, sender))

    async def _connect(self, data: bytes, sender: Address) -> None:
        def back(reply: bytes, _: Address) -> None:
            self._pass(self._near, reply, sender)

        far, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Receiver(back), remote_addr=self._target
        )
        self._far[sender] = far
        self._pass(far, data, None)

    def _pass(self, to: asyncio.DatagramTransport, data: bytes, address: Address | None) -> None:
        if self._random.random() < self.faults.lost:
            return
        for _ in range(2 if self._random.random() < self.faults.duplicated else 1):
            if self._random.random() < self.faults.delayed:
                delay = self._random.uniform(0.1, 2)
                asyncio.get_running_loop().call_later(delay, to.sendto, data, address)
            else:
                to.sendto(data, address)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, received: Any) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._received(data, addr)


@frozen
class Tls:
    """Certificates of all ports, and of the clients of control ports."""

    ca: Path
    certs: Path
    """Folder of the certificates by ``tracker-admin certs``."""

    @classmethod
    def make(cls, folder: Path) -> Tls:
        """Create all certificates."""
        ended = run("tracker-admin", "certs", str(folder / "certs"), "--client", "bridge")
        assert ended.returncode == 0, ended.stderr
        return cls(certify(folder, "127.0.0.1"), folder / "certs")

    def server(self) -> ssl.SSLContext:
        """Return the context of a port."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key_of(self.ca))
        context.set_alpn_protocols(["postgresql"])  # required by libpq only
        return context

    def client(self) -> ssl.SSLContext:
        """Return the context of a device."""
        return ssl.create_default_context(cafile=str(self.ca))


class Wiring:
    """All proxies by name.

    :param tls: certificates of the ports; None for ports without TLS.
    """

    def __init__(self, tls: Tls | None, stack: ExitStack) -> None:
        self.tls = tls
        self.links: dict[str, Proxy] = {}
        self.datagrams: dict[str, UdpProxy] = {}
        self._thread = LoopThread("proxies")
        stack.callback(self._thread.close)

    def link(self, name: str, target: int, change: Change | None = None) -> Proxy:
        """Make a proxy between two parts."""
        proxy = Proxy(target, thread=self._thread, port=free_port(), change=change)
        self.links[name] = proxy
        return proxy

    def datagram_link(self, name: str, target: int) -> None:
        """Make a proxy for datagrams."""
        self.datagrams[name] = UdpProxy(self._thread, target)

    def protected(self, port: int, change: Change | None = None) -> int:
        """Return a port with TLS that forwards to this one; without TLS, this port.

        :param change: applied to the decrypted bytes on their way back.
        """
        if self.tls is None:
            return port
        return TlsPort(self._thread, port, self.tls.server(), change).port
