"""Devices that push during an outage of Redis, and checks during the outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.servers import RedisServer
from tests.system.raw import START, STREAM, Ingest, RawDevice
from tests.waiting import wait_for
from tracker.position import iso_milliseconds

#: Maximum number of seconds from the end of the outage until service resumes.
RESUMPTION = 5.0
#: Seconds without an ACK after which no further ACK is expected.
QUIET_TIME = 0.5

Key = tuple[str, str]
"""IMEI and time of a record."""


def imei(number: int) -> str:
    return f"9{number:014}"


class Pushing:
    """Devices that repeatedly send a record and wait for its ACK."""

    DEVICES = 10
    INTERVAL = 0.05  # seconds between an ACK and the next record

    def __init__(self, ingest: Ingest) -> None:
        self.acknowledged: set[Key] = set()
        self.last = 0.0
        """Time of the last ACK."""
        self.unanswered = 0
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._running.set()
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
                self._failures.append(f"{device_id} is not served")
                return
            while not self._ended.is_set():
                self._running.wait()
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
        """Wait until ``count`` further records are acknowledged."""
        goal = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= goal, f"{goal} acknowledged")

    def wait_until_quiet(self) -> int:
        """Wait until the ACKs stop; return their number."""
        wait_for(lambda: time.monotonic() - self.last > QUIET_TIME, "no ACKs", timeout=5)
        return len(self.acknowledged)

    def pause(self) -> None:
        """Stop sending, and wait until all sent records are acknowledged."""
        self._running.clear()
        wait_for(
            lambda: time.monotonic() - self.last > QUIET_TIME and not self.unanswered, "a pause"
        )

    def resume(self) -> None:
        """Resume sending."""
        self._running.set()

    def end(self) -> None:
        """Stop once the last record of each device is acknowledged."""
        self._ended.set()
        self._running.set()
        for thread in self._threads:
            thread.join(30)
        assert not self._failures, self._failures
        assert not any(thread.is_alive() for thread in self._threads)


def stored(redis: RedisServer) -> set[Key]:
    """Return the keys of the records in the stream."""
    return {
        (fields[b"device_id"].decode(), fields[b"ts"].decode())
        for _, fields in redis.client.xrange(STREAM)
    }


class Outage:
    """Checks of a test during an outage."""

    def __init__(self, ingest: Ingest, pushing: Pushing) -> None:
        self.ingest = ingest
        self.pushing = pushing
        self._acknowledged = 0

    def wait_until_reported(self, *reasons: str) -> None:
        """Wait until ``/readyz`` gives one of these reasons."""
        answer: tuple[int, dict[str, object]] = (0, {})

        def is_reported() -> bool:
            nonlocal answer
            answer = self.ingest.daemon.readyz()
            return answer[0] == 503 and any(reason in str(answer[1]) for reason in reasons)

        try:
            wait_for(is_reported, "a reason", timeout=15)
        except AssertionError:
            raise AssertionError(f"not reported: {reasons}, but {answer}") from None

    def wait_for_effect(self, *reasons: str) -> None:
        """Wait until the ACKs stop and ``/readyz`` gives one of these reasons."""
        self._acknowledged = self.pushing.wait_until_quiet()
        self.wait_until_reported(*reasons)

    def end(self, restore: Callable[[], object]) -> float:
        """Restore Redis; return the seconds until service resumes."""
        assert len(self.pushing.acknowledged) == self._acknowledged, (
            "acknowledged during the outage"
        )
        restore()
        return self.wait_until_resumed(self._acknowledged)

    def wait_until_resumed(self, acknowledged: int) -> float:
        """Wait until more records are acknowledged; return the seconds until service resumes."""
        returned = time.monotonic()
        wait_for(lambda: self.ingest.daemon.readyz()[0] == 200, "ready again")
        wait_for(lambda: len(self.pushing.acknowledged) > acknowledged, "devices are served again")
        seconds = time.monotonic() - returned
        assert seconds <= RESUMPTION
        self.pushing.wait_for_more()
        return seconds


@contextmanager
def outage(ingest: Ingest, stored_in: RedisServer) -> Iterator[Outage]:
    """Run an outage while devices push; check that no acknowledged record is lost."""
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
Report = Callable[[str], None]
