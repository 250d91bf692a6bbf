"""Reconnecting with growing delays, until a stop."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tracker.runtime.backoff import Backoff
from tracker.runtime.reconnect import stay_connected
from tracker.runtime.waits import Stopped, Waits


class Server:
    """A server whose connections last until the test ends them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.waits = Waits(self.clock)
        self.connections: list[Deferred[bool]] = []
        backoff = Backoff(self.clock, first_delay=1, max_delay=4, random=lambda: 1.0)
        self.ended = Deferred.fromCoroutine(stay_connected(self.waits, backoff, self.serve))

    async def serve(self) -> bool:
        connection: Deferred[bool] = Deferred()
        self.connections.append(connection)
        try:
            return await self.waits.result(connection)
        except Stopped:
            return False

    def lose(self, usable: bool) -> None:
        self.connections[-1].callback(usable)

    def seconds_until_next_attempt(self) -> float:
        (call,) = self.clock.getDelayedCalls()
        seconds = call.getTime() - self.clock.seconds()
        before = len(self.connections)
        self.clock.advance(seconds)
        assert len(self.connections) == before + 1
        return float(seconds)


def test_delays_grow_until_a_connection_was_usable() -> None:
    server = Server()
    delays = []
    for usable in (False, False, False, False, True, False):
        server.lose(usable)
        delays.append(server.seconds_until_next_attempt())
    assert delays == [1, 2, 4, 4, 1, 2]


def test_stop_while_connected_ends_the_loop() -> None:
    server = Server()
    server.waits.stop()
    assert server.ended.called
    assert len(server.connections) == 1
    assert not server.clock.getDelayedCalls()


def test_stop_during_a_delay_ends_the_loop() -> None:
    server = Server()
    server.lose(usable=False)
    assert not server.ended.called
    server.waits.stop()
    assert server.ended.called
    assert not server.clock.getDelayedCalls()
