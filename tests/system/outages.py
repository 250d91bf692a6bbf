"""Devices that push while Redis is away, and what a test asks about the outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.servers import RedisServer
from tests.system.raw import START, STREAM, Ingest, RawDevice
from tests.waiting import wait_for
from tracker.position import iso_milliseconds

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
