"""Outages of Redis, with devices that push all the while.

Whatever ails Redis: no device hears "received" meanwhile, ``/readyz`` says why, service
resumes by itself within 5 seconds of the return, and every record that a device was told
had been received is in the stream.
"""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import valkey

from tests.proxy import Proxy
from tests.servers import RedisServer, Sentinel, free_port
from tests.system.raw import START, STREAM, Ingest, RawDevice
from tests.waiting import wait_for
from tracker.position import iso_milliseconds
from tracker.vendors.teltonika.avl import CODEC_8E, Record, encode_packet
from tracker.vendors.teltonika.frame import encode_frame

#: Seconds from Redis' return within which service resumes.
RESUMPTION = 5.0
#: Seconds without an acknowledgement after which there are none.
QUIET = 0.5

Key = tuple[str, str]
"""IMEI and time of a record."""


def imei(number: int) -> str:
    return f"9{number:014}"


class Pushing:
    """Devices that send a record, wait for its acknowledgement, and send the next, for ever."""

    DEVICES = 10
    INTERVAL = 0.05  # seconds between an acknowledgement and the next record

    def __init__(self, ingest: Ingest) -> None:
        self.acknowledged: set[Key] = set()
        self.last = 0.0
        """When the last acknowledgement came."""
        self.unanswered = 0
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        self._go_on.set()
        self._ended = threading.Event()
        self._failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._push, args=(ingest.connect(), imei(number)), daemon=True)
            for number in range(self.DEVICES)
        ]
        for thread in self._threads:
            thread.start()

    def _push(self, device: RawDevice, device_id: str) -> None:
        device.socket.settimeout(60)
        number = 0
        with device, suppress(TimeoutError):
            if device.login(device_id) != b"\x01":
                self._failures.append(f"{device_id} is not let in")
                return
            while not self._ended.is_set():
                self._go_on.wait()
                number += 1
                with self._lock:
                    self.unanswered += 1
                delivered = device.deliver(number)
                with self._lock:
                    self.unanswered -= 1
                    if not delivered:
                        self._failures.append(f"{device_id} was disconnected")
                        return
                    self.last = time.monotonic()
                    self.acknowledged.add((device_id, iso_milliseconds(START + number)))
                self._ended.wait(self.INTERVAL)

    def wait_for_more(self, count: int = 100) -> None:
        """Wait until so many more records are acknowledged."""
        goal = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= goal, f"{goal} acknowledged")

    def wait_until_quiet(self) -> int:
        """Wait until no acknowledgement comes any more; how many there were."""
        wait_for(lambda: time.monotonic() - self.last > QUIET, "no acknowledgements", timeout=5)
        return len(self.acknowledged)

    def pause(self) -> None:
        """Send nothing more; returns when all that was sent is acknowledged."""
        self._go_on.clear()
        wait_for(lambda: time.monotonic() - self.last > QUIET and not self.unanswered, "a pause")

    def go_on(self) -> None:
        """End the pause."""
        self._go_on.set()

    def end(self) -> None:
        """Stop, when the last record of each device is acknowledged."""
        self._ended.set()
        self._go_on.set()
        for thread in self._threads:
            thread.join(30)
        assert not self._failures, self._failures
        assert not any(thread.is_alive() for thread in self._threads)


def stored(redis: RedisServer) -> set[Key]:
    """The records in the stream."""
    return {
        (fields[b"device_id"].decode(), fields[b"ts"].decode())
        for _, fields in redis.client.xrange(STREAM)
    }


class Outage:
    """What a test asks about an outage while it lasts."""

    def __init__(self, ingest: Ingest, pushing: Pushing) -> None:
        self.ingest = ingest
        self.pushing = pushing
        self._acknowledged = 0

    def is_told(self, *reasons: str) -> None:
        """Wait until ``/readyz`` gives one of these reasons."""
        answer: tuple[int, dict[str, object]] = (0, {})

        def told() -> bool:
            nonlocal answer
            answer = self.ingest.daemon.readyz()
            return answer[0] == 503 and any(reason in str(answer[1]) for reason in reasons)

        try:
            wait_for(told, "a reason", timeout=15)
        except AssertionError:
            raise AssertionError(f"not told: {reasons}, but {answer}") from None

    def lasts(self, *reasons: str) -> None:
        """Wait until no device is served any more, and one of these reasons is told."""
        self._acknowledged = self.pushing.wait_until_quiet()
        self.is_told(*reasons)

    def ends(self, bring_back: Callable[[], object]) -> float:
        """Bring Redis back; seconds from then until all is well again."""
        assert len(self.pushing.acknowledged) == self._acknowledged, "acknowledged in an outage"
        bring_back()
        return self.resumed(self._acknowledged)

    def resumed(self, acknowledged: int) -> float:
        """Wait until more than so many records are acknowledged; seconds until all is well."""
        returned = time.monotonic()
        wait_for(lambda: self.ingest.daemon.readyz()[0] == 200, "ready again")
        wait_for(lambda: len(self.pushing.acknowledged) > acknowledged, "devices are served again")
        seconds = time.monotonic() - returned
        assert seconds <= RESUMPTION
        self.pushing.wait_for_more()
        return seconds


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints figures."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f" ({text}) ", end="")

    return tell


@contextmanager
def outage(ingest: Ingest, stored_in: RedisServer) -> Iterator[Outage]:
    """An outage in the middle of the pushing; at the end nothing is lost."""
    pushing = Pushing(ingest)
    try:
        pushing.wait_for_more()
        yield Outage(ingest, pushing)
        ingest.daemon.wait_until_ready()
    finally:
        pushing.end()
    assert pushing.acknowledged <= stored(stored_in), "lost"
    assert ingest.daemon.stop() == 0
    assert "Traceback" not in ingest.daemon.text, ingest.daemon.text


Serve = Callable[..., Ingest]
Tell = Callable[[str], None]


def in_background(action: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        with suppress(valkey.ResponseError):  # a script that was killed
            action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_redis_that_is_busy(redis: RedisServer, serve: Serve, tell: Tell) -> None:
    redis.client.config_set("busy-reply-threshold", 200)
    with outage(serve(), redis) as during:
        busy = in_background(lambda: redis.client.eval("while true do end", 0))
        during.lasts("BUSY")

        def kill_it() -> None:
            valkey.Valkey(port=redis.port).script_kill()
            busy.join(10)

        tell(f"resumed after {during.ends(kill_it):.2f} s")


def test_a_redis_that_is_slow(redis: RedisServer, serve: Serve, tell: Tell) -> None:
    """It answers everything, seven seconds late."""
    with outage(serve(), redis) as during:
        redis.client.client_pause(7000)
        ended = in_background(redis.client.ping)
        during.lasts("no answer within")
        tell(f"resumed after {during.ends(lambda: ended.join(20)):.2f} s")


def test_a_redis_that_answers_anything_but_writes(
    redis: RedisServer, serve: Serve, tell: Tell
) -> None:
    with outage(serve(), redis) as during:
        redis.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        during.lasts("appends are not answered")
        connected_again = "not ready: redis (ingest): no answer within"
        wait_for(
            lambda: during.ingest.daemon.text.count(connected_again) >= 2, "it has come back twice"
        )
        assert during.ingest.daemon.readyz()[0] == 503
        assert "appends are not answered" in str(during.ingest.daemon.readyz()[1])
        tell(f"resumed after {during.ends(redis.client.client_unpause):.2f} s")


def test_a_redis_that_hangs(redis: RedisServer, serve: Serve, tell: Tell) -> None:
    with outage(serve(), redis) as during:
        redis.suspend()
        during.lasts("no answer within")
        tell(f"resumed after {during.ends(redis.resume):.2f} s")


def test_a_redis_that_is_killed(redis: RedisServer, serve: Serve, tell: Tell) -> None:
    with outage(serve(), redis) as during:
        redis.kill()
        during.lasts("refused")
        tell(f"resumed after {during.ends(redis.start):.2f} s")


def test_a_redis_that_takes_long_to_load_its_data(
    redis: RedisServer, serve: Serve, tell: Tell
) -> None:
    with outage(serve(), redis) as during:
        pipeline = redis.client.pipeline(transaction=False)
        for number in range(4500):
            pipeline.set(f"key-{number}", "")
        pipeline.execute()
        redis.kill()
        # It sleeps a millisecond after each command of its log, and answers every 1,024.
        redis.extra = ("--key-load-delay", "1000")
        redis.start(wait=False)
        during.lasts("LOADING")
        loaded = lambda: wait_for(redis.answers, "it has loaded", timeout=60)  # noqa: E731
        tell(f"resumed after {during.ends(loaded):.2f} s")


@pytest.mark.parametrize("old", [True, False], ids=["for a while", "until connected anew"])
def test_a_redis_that_cannot_be_reached(
    redis: RedisServer, serve: Serve, tell: Tell, old: bool
) -> None:
    proxy = Proxy(redis.port, backlog=1)
    redis.url = f"redis://127.0.0.1:{proxy.port}/0"
    with ExitStack() as stack:
        stack.callback(proxy.close)
        during = stack.enter_context(outage(serve(), redis))
        proxy.stall(deaf=True)
        during.lasts("no answer within", "timed out")
        tell(f"resumed after {during.ends(lambda: proxy.heal(forward_old=old)):.2f} s")


def test_an_outage_that_only_the_connection_survives_is_over_in_time(
    redis: RedisServer, serve: Serve, tell: Tell
) -> None:
    """Redis is back before it was missed, but the way to it leads nowhere."""
    proxy = Proxy(redis.port, backlog=1)
    redis.url = f"redis://127.0.0.1:{proxy.port}/0"
    with ExitStack() as stack:
        stack.callback(proxy.close)
        during = stack.enter_context(outage(serve(), redis))
        proxy.stall(deaf=True)
        before = during.pushing.wait_until_quiet()
        proxy.heal(forward_old=False)
        returned = time.monotonic()
        # /readyz need not have noticed, and so does not tell.
        wait_for(lambda: len(during.pushing.acknowledged) > before, "served again")
        seconds = time.monotonic() - returned
        assert seconds <= RESUMPTION
        tell(f"resumed after {seconds:.2f} s")


def test_a_redis_that_becomes_a_replica(redis: RedisServer, serve: Serve, tell: Tell) -> None:
    with outage(serve(), redis) as during:
        redis.client.replicaof("127.0.0.1", free_port())
        during.lasts("a read-only replica")
        promote = lambda: redis.client.replicaof("NO", "ONE")  # noqa: E731
        tell(f"resumed after {during.ends(promote):.2f} s")


def test_a_redis_without_memory(redis: RedisServer, serve: Serve, tell: Tell) -> None:
    with outage(serve(), redis) as during:
        redis.client.config_set("maxmemory", 1)
        during.lasts("OOM")
        free = lambda: redis.client.config_set("maxmemory", 0)  # noqa: E731
        tell(f"resumed after {during.ends(free):.2f} s")


# Failovers. What the old master had confirmed and not yet passed on is lost by Redis
# itself; so the devices pause until the replica has everything.


class Pair:
    """A master and its replica, watched by a Sentinel."""

    def __init__(self, folder: Path) -> None:
        self.master = RedisServer(folder / "master")
        self.replica = RedisServer(folder / "replica")
        self.master.start()
        self.replica.start()
        self.replica.replicate(self.master)
        self.sentinel = Sentinel(folder / "sentinel", self.master)
        self.sentinel.start()
        wait_for(self.sentinel.knows_replica, "the Sentinel knows the replica")
        self.master.url = self.sentinel.url

    def has_failed_over(self) -> bool:
        """Whether the replica is the master, accepts commands, and the Sentinel says so."""
        if self.is_promoted():
            self.replica.client.set("failed-over", "1")
            return self.sentinel.master_port() == self.replica.port
        return False

    def is_promoted(self) -> bool:
        """Whether the replica is a master. The Sentinel closes all its connections then."""
        with suppress(valkey.ConnectionError):
            promoted: bool = self.replica.client.role()[0] == b"master"
            return promoted
        return False

    def kill(self) -> None:
        for one in (self.sentinel, self.master, self.replica):
            one.kill()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.kill()


@pytest.fixture
def ingest(tmp_path: Path, pair: Pair) -> Iterator[Ingest]:
    ingest = Ingest(tmp_path, pair.master)
    ingest.daemon.start()
    yield ingest
    ingest.daemon.kill()


def test_a_master_that_is_killed_is_replaced(pair: Pair, ingest: Ingest, tell: Tell) -> None:
    with outage(ingest, pair.replica) as during:
        during.pushing.pause()
        wait_for(lambda: pair.replica.is_level_with(pair.master), "the replica has everything")
        pair.master.kill()
        during.pushing.go_on()
        during.lasts(f"the master 127.0.0.1:{pair.master.port}: ")
        failed_over = lambda: wait_for(pair.has_failed_over, "a new master")  # noqa: E731
        tell(f"resumed after {during.ends(failed_over):.2f} s")


def test_a_master_that_is_replaced_without_need_is_left(
    pair: Pair, ingest: Ingest, tell: Tell
) -> None:
    with outage(ingest, pair.replica) as during:
        during.pushing.pause()
        # It refuses as soon as it has lost its replica. Without that it would confirm, and
        # Redis would lose, what comes until ingest has left it.
        pair.master.client.config_set("min-replicas-to-write", 1)
        wait_for(lambda: pair.replica.is_level_with(pair.master), "the replica has everything")
        pair.sentinel.fail_over()
        wait_for(pair.is_promoted, "the replica is promoted")
        before = len(during.pushing.acknowledged)
        during.pushing.go_on()
        during.is_told("NOREPLICAS", "replaced, the master is")
        assert len(during.pushing.acknowledged) == before
        wait_for(pair.has_failed_over, "the Sentinel names the new master")
        tell(f"resumed after {during.resumed(before):.2f} s")


# Many devices.

DEVICES = 2000
PLACE = (0, 252_500_000, 546_800_000, 100, 90, 8, 40)
FRAMES = 24
#: Bytes that 2,000 devices may cost while nothing they send is confirmed: 16 KiB unread
#: bytes and a decoded packet each, and what the interpreter makes of them.
MEMORY = 64 << 20


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the system allows, for the test and the daemons it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DEVICES + 500:
        pytest.skip(f"no more than {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Fleet:
    """Devices that send frames of a kilobyte without waiting for acknowledgements."""

    def __init__(self, port: int) -> None:
        elements = tuple((number, 8, number) for number in range(200, 300))
        self._frames = [
            encode_frame(encode_packet(CODEC_8E, [Record(START + at, *PLACE, 0, elements)]))
            for at in range(FRAMES)
        ]
        self.acknowledgements = 0
        self._sent: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()
        for number in range(DEVICES):
            device = RawDevice(port)
            assert device.login(imei(number)) == b"\x01"
            device.socket.setblocking(False)
            self._sent[device.socket] = 0
            self._selector.register(device.socket, selectors.EVENT_READ)

    def send(self) -> None:
        """One frame of each device."""
        for device, sent in self._sent.items():
            assert device.send(self._frames[sent]) == len(self._frames[sent])
            self._sent[device] = sent + 1

    def read(self) -> int:
        """Read what has come; how many frames are acknowledged by now."""
        for key, _ in self._selector.select(0):
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(4 * FRAMES)
            assert data == b"\0\0\0\1" * (len(data) // 4) != b""
            self.acknowledgements += len(data) // 4
        return self.acknowledgements

    def close(self) -> None:
        self._selector.close()
        for device in self._sent:
            device.close()


@pytest.mark.usefixtures("many_files")
def test_two_thousand_devices_that_push_at_a_dead_redis_cost_bounded_memory(
    redis: RedisServer, serve: Serve, tell: Tell
) -> None:
    ingest = serve("--connection-rate", "10000", "--connection-rate-per-address", "10000")
    fleet = Fleet(ingest.port)
    with ExitStack() as stack:
        stack.callback(fleet.close)
        fleet.send()
        wait_for(lambda: fleet.read() == DEVICES, "all are served", timeout=60)
        before = ingest.memory()
        redis.kill()
        began = time.monotonic()
        wait_for(lambda: ingest.daemon.readyz()[0] == 503, "the outage is told")

        def after(seconds: float) -> int:
            """Memory so many seconds into the outage; nobody is served until then."""
            wait_for(lambda: time.monotonic() >= began + seconds, "time passes", timeout=40)
            assert fleet.read() == DEVICES
            return ingest.memory()

        # In the first seconds more than is buffered; the rest piles up in the kernel.
        for number in range(1, FRAMES):
            after(0.25 * number if number < FRAMES - 4 else 6 + number + 4 - FRAMES)
            fleet.send()
            if number == FRAMES - 5:
                early = after(6)
        late = after(12)
        redis.start()
        returned = time.monotonic()
        ingest.daemon.wait_until_ready()
        seconds = time.monotonic() - returned
        wait_for(lambda: fleet.read() == FRAMES * DEVICES, "all are served", timeout=90)
        served = time.monotonic() - returned
        afterwards = ingest.memory()
    figures = ", ".join(
        f"{name} {memory / (1 << 20):.0f} MiB"
        for name, memory in (
            *(("before", before), ("after 6 s", early), ("after 12 s", late)),
            ("in the end", afterwards),
        )
    )
    tell(f"{figures}; ready after {seconds:.2f} s, all served after {served:.1f} s")
    assert seconds <= RESUMPTION
    assert late - before < MEMORY, figures
    assert late - early < 8 << 20, figures
    assert afterwards - before < MEMORY, figures
    assert redis.client.xlen(STREAM) >= FRAMES * DEVICES
    assert len(stored(redis)) == FRAMES * DEVICES
    assert "Traceback" not in ingest.daemon.text
