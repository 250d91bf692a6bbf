"""A process whose metrics are scraped continuously."""

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
    """Fetch the metrics continuously until the process stops; yield the list of responses."""
    pages: list[str] = []
    ended = threading.Event()

    def scrape() -> None:
        try:
            while not ended.is_set():
                with urllib.request.urlopen(daemon.url("/metrics"), timeout=30) as response:
                    pages.append(response.read().decode())
        except (OSError, HTTPException):
            pass  # the process has stopped

    scrapers = [threading.Thread(target=scrape) for _ in range(threads)]
    for scraper in scrapers:
        scraper.start()
    try:
        yield pages
    finally:
        ended.set()
        for scraper in scrapers:
            scraper.join(60)


def test_ingest_serves_devices_and_stops_cleanly_while_scraped(
    serve: Callable[..., Ingest],
) -> None:
    ingest = serve()
    with scraping(ingest.daemon) as pages:
        with ingest.connect() as device:
            assert device.login("356307042441013") == b"\x01"
            for number in range(100):
                assert device.deliver(number)
        so_far = len(pages)
        wait_for(lambda: len(pages) >= so_far + 10, "ten more scrapes", timeout=60)
        line = 'tracker_records_total{codec="8",result="appended",vendor="teltonika"} 100.0'
        assert line in pages[-1]
        assert ingest.daemon.stop() == 0
    assert "Traceback" not in ingest.daemon.text
