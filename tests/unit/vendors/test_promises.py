"""Replies to devices, compared with the entries in the log; real gateway and publisher."""

from __future__ import annotations

from itertools import count

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.vendors.lines import DEVICE, LOGIN
from tests.unit.vendors.plane import Outage, Plane, Socket
from tracker.ingestion.publisher import STOP_TIMEOUT
from tracker.limits import Limits

#: Seconds for which a device waits for an answer, and between two attempts to connect.
ANSWER_TIMEOUT = 5
RETRY_DELAY = 7


@define
class Listener:
    """A device that compares what it hears with what the log holds at that moment."""

    plane: Plane = field(factory=Plane)
    socket: Socket = field(init=False)
    numbers: count[int] = field(factory=count)
    sent: dict[str, list[str]] = field(
        factory=lambda: {"alarm": [], "place": [], "note": [], "records": []}
    )
    """Word of a line → the payloads that were sent with it."""
    fences: list[set[str]] = field(factory=list)
    """Payloads that were sent before each fence that was not heard yet."""
    heard: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        socket = self.plane.connect()
        assert socket is not None
        self.socket = socket
        self.socket.send(LOGIN)
        self.listen()
        assert self.heard == ["welcome"]

    def send(self, word: str) -> None:
        """Send a line."""
        if word == "beat":
            self.fences.append({one for sent in self.sent.values() for one in sent})
            self.socket.send(b"beat\n")
        else:
            payload = f"{word}-{next(self.numbers)}"
            self.sent[word].append(payload)
            self.socket.send(f"{word} {payload}\n".encode())
        self.listen()

    def listen(self) -> None:
        """Check that nothing that was heard is untrue."""
        stored = set(self.plane.stored)
        for line in self.socket.received().decode().split("\n")[:-1]:
            self.heard.append(line)
            if line == "beat":
                assert self.fences.pop(0) <= stored
        assert self.heard.count("alarm") <= len(stored & {*self.sent["alarm"]})
        assert self.heard.count("1") <= len(stored & {*self.sent["records"]})


def stop(listener: Listener) -> None:
    """Stop the parts in their order: the publisher first, then the sockets."""
    listener.plane.publisher.stopService()
    for word in ("alarm", "place", "beat"):
        listener.send(word)
    listener.plane.run()
    listener.listen()
    listener.plane.run(STOP_TIMEOUT)
    listener.listen()
    listener.plane.gateway.stopService()
    listener.listen()


@pytest.mark.parametrize("outage", [None, *Outage])
@pytest.mark.parametrize("under_way", [False, True], ids=["waiting", "under way"])
def test_stop_ends_in_no_false_ack_and_no_false_fence(
    outage: Outage | None, under_way: bool
) -> None:
    listener = Listener()
    for word in ("alarm", "place", "beat"):
        listener.send(word)
    if under_way:
        listener.plane.clock.advance(0)
    if outage is not None:
        listener.plane.begin(outage)
    stop(listener)
    assert listener.heard == (["welcome"] if outage else ["welcome", "alarm", "beat"])
    assert listener.socket.closed


ACTIONS = st.sampled_from(
    ["alarm", "place", "note", "records", "beat", "turn", "reply", *Outage, "back", "lose"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=30), st.sampled_from(["stop", "lose", "go on"]))
def test_nothing_that_a_device_hears_is_untrue(actions: list[str | Outage], end: str) -> None:
    listener = Listener(Plane(Limits(buffer_bytes=64)))
    plane = listener.plane
    for action in actions:
        if isinstance(action, Outage):
            if plane.outage is None:
                plane.begin(action)
        elif action == "turn":
            plane.clock.advance(0)
        elif action == "reply":
            plane.run(0.5)
        elif action == "back":
            if plane.outage is not None:
                plane.end()
        elif action == "lose":
            listener.socket.close()
        else:
            listener.send(action)
        listener.listen()
    if end == "stop":
        stop(listener)
        return
    if end == "lose":
        listener.socket.close()
    if plane.outage is not None:
        plane.end()
    for _ in range(20):
        plane.run(1)
        listener.listen()
    if not listener.socket.closed:
        assert not listener.fences
        assert listener.heard.count("alarm") == len(listener.sent["alarm"])
    assert plane.gateway.kept.entries == plane.gateway.kept.unread == 0


# A device with flash.


@define
class FlashDevice:
    """A device that takes a position as delivered once it is sent, and else records it.

    It sends only after its login is answered. Without an answer to its login or to a heartbeat it
    reconnects.
    """

    plane: Plane
    socket: Socket | None = None
    online: bool = False
    flash: list[str] = field(factory=list)
    made: int = 0
    logins: int = 0
    patience: int = 0
    """Seconds left to wait for an answer or for the next attempt; 0: it waits for nothing."""

    def live(self, second: int) -> None:
        """Live through one second."""
        self._hear()
        if self.patience:
            self.patience -= 1
            if not self.patience:
                self._connect() if self.socket is None else self._give_up()
        elif self.socket is None:
            self._connect()
        if second % 10 == 0:
            self.flash.append(f"p{self.made}")
            self.made += 1
        if self.online and self.socket is not None:
            for payload in self.flash:
                self.socket.send(f"place {payload}\n".encode())
            self.flash.clear()
            if second % 30 == 0 and not self.patience:
                self.socket.send(b"beat\n")
                self.patience = ANSWER_TIMEOUT

    def _connect(self) -> None:
        self.socket = self.plane.connect()
        if self.socket is None:
            self.patience = RETRY_DELAY
            return
        self.logins += 1
        self.socket.send(f"enter {DEVICE}\n".encode())
        self.patience = ANSWER_TIMEOUT

    def _hear(self) -> None:
        if self.socket is not None:
            heard = self.socket.received()
            if heard:
                self.online, self.patience = True, 0
            if self.socket.closed:
                self._give_up()

    def _give_up(self) -> None:
        assert self.socket is not None
        self.socket.close()
        self.socket, self.online, self.patience = None, False, RETRY_DELAY


@pytest.mark.parametrize("outage", Outage)
def test_device_with_flash_loses_nothing_while_the_log_is_down(outage: Outage) -> None:
    plane = Plane()
    device = FlashDevice(plane)
    for second in range(600):
        if second == 65:
            plane.begin(outage)
        if second == 65 + 240:
            assert len(device.flash) > 15
            assert len(plane.stored) < 10
            plane.end()
        device.live(second)
        plane.run(1)
    assert_nothing_lost(plane, device)
    assert device.logins > 10


def test_device_with_flash_loses_nothing_while_the_memory_is_used_up() -> None:
    plane = Plane()
    device = FlashDevice(plane)
    kept = plane.gateway.kept
    for second in range(600):
        if second == 65:
            kept.begin(kept.limit)
        if second == 65 + 240:
            assert len(device.flash) > 15
            kept.end(kept.limit)
        device.live(second)
        plane.run(1)
    assert_nothing_lost(plane, device)


def assert_nothing_lost(plane: Plane, device: FlashDevice) -> None:
    assert sorted(set(plane.stored)) == sorted(f"p{number}" for number in range(60))
    assert device.flash == []
    assert plane.gateway.connections == 1
    assert plane.gateway.kept.entries == plane.gateway.kept.unread == 0
    assert plane.gateway.withheld_logins == 0
    assert plane.gateway.figures.lost == 0


def test_reconnects_of_devices_whose_login_is_withheld_are_limited() -> None:
    plane = Plane(Limits(connection_rate_per_address=20))
    plane.begin(Outage.DOWN)
    admitted = []
    for _ in range(200):
        socket = plane.connect()
        admitted.append(socket is not None)
        if socket is not None:
            socket.send(f"enter {DEVICE}\n".encode())
            socket.close()
    assert sum(admitted) == 20
    assert plane.gateway.connections == plane.gateway.withheld_logins == 0
    plane.clock.advance(1)
    assert plane.connect() is not None


def test_memory_stays_bounded_whatever_connections_leave_behind() -> None:
    plane = Plane(Limits(kept_memory=1 << 20, message_rate=1e6, message_bytes_rate=1 << 30))
    plane.begin(Outage.DOWN)
    kept = plane.gateway.kept
    for number in range(300):
        socket = plane.connect()
        assert socket is not None
        word = (b"place", b"note")[number % 2]
        socket.send(b"login device-%d\n" % number + (word + b" A\n") * 4000)
        plane.clock.advance(0)
        socket.close()
        plane.clock.advance(1)
        assert kept.entries <= kept.limit + 2000
        assert kept.unread <= kept.limit
    assert plane.gateway.figures.lost > 0
    plane.end()
    for _ in range(3000):
        plane.run(0.01)
        if not kept.entries and not kept.unread:
            break
    assert kept.entries == kept.unread == 0
