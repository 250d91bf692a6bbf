"""A process whose metrics are fetched all the time."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tests.system.processes import Daemon
from tests.system.raw import Ingest
from tests.waiting import wait_for


@contextmanager
def scraping(daemon: Daemon, threads: int = 4) -> Iterator[list[str]]:
    """Fetch them again and again, until they cannot be had; the answers."""
    answers: list[str] = []
    ended = threading.Event()

    def scrape() -> None:
        try:
            while not ended.is_set():
                with urllib.request.urlopen(daemon.url("/metrics"), timeout=30) as response:
                    answers.append(response.read().decode())
        except (OSError, HTTPException):
            pass  # it has stopped

    all_of_them = [threading.Thread(target=scrape) for _ in range(threads)]
    for one in all_of_them:
        one.start()
    try:
        yield answers
    finally:
        ended.set()
        for one in all_of_them:
            one.join(60)


def test_it_serves_its_devices_and_stops_cleanly(serve: Callable[..., Ingest]) -> None:
    ingest = serve()
    with scraping(ingest.daemon) as answers:
        with ingest.connect() as device:
            assert device.login("356307042441013") == b"\x01"
            for number in range(100):
                assert device.deliver(number)
        so_far = len(answers)
        wait_for(lambda: len(answers) >= so_far + 10, "it is told", timeout=60)
        told = 'tracker_records_total{codec="8",result="appended",vendor="teltonika"} 100.0'
        assert told in answers[-1]
        assert ingest.daemon.stop() == 0
    assert "Traceback" not in ingest.daemon.text
