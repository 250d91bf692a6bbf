"""A proxy for datagrams, which may be lost, doubled or late."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

from attrs import frozen

from tests.proxy import LoopThread

Address = tuple[str, int]


@frozen
class Weather:
    """The shares of datagrams that are lost, doubled and late, each from 0 to 1."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0


class UdpProxy:
    """A UDP port on 127.0.0.1 that leads to another one, in both directions."""

    def __init__(self, thread: LoopThread, target: int) -> None:
        self.weather = Weather()
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
        def back(answer: bytes, _: Address) -> None:
            self._pass(self._near, answer, sender)

        far, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Receiver(back), remote_addr=self._target
        )
        self._far[sender] = far
        self._pass(far, data, None)

    def _pass(self, to: asyncio.DatagramTransport, data: bytes, address: Address | None) -> None:
        if self._random.random() < self.weather.lost:
            return
        for _ in range(2 if self._random.random() < self.weather.doubled else 1):
            if self._random.random() < self.weather.late:
                delay = self._random.uniform(0.1, 2)
                asyncio.get_running_loop().call_later(delay, to.sendto, data, address)
            else:
                to.sendto(data, address)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, received: Any) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._received(data, addr)
