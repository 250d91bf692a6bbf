"""The janitor as a process, and in the standalone role."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.conftest import Stack
from tests.system.processes import Daemon
from tests.waiting import wait_for

STREAM = "telemetry:teltonika"
LOAD = ("--devices", "40", "--interval", "0.02", "--records", "5")


@pytest.fixture
def janitor(tmp_path: Path, redis: RedisServer) -> Iterator[Daemon]:
    """Yield a janitor with the shortest retention, not started yet."""
    daemon = Daemon(
        *(tmp_path, "janitor", "janitor", "--redis", redis.url),
        *("--retain", "2s", "--retain-bytes", "none", "--interval", "1s"),
    )
    yield daemon
    daemon.kill()


def test_entries_that_a_stopped_processor_has_not_read_are_kept(
    stack: Stack, janitor: Daemon
) -> None:
    fleet = stack.fleet(*LOAD)
    fleet.wait_for_more(500)
    janitor.start()
    fleet.wait_for_more(3000)
    client = stack.redis.client
    wait_for(
        lambda: client.xinfo_stream(STREAM)["entries-added"] > client.xlen(STREAM) + 500,
        "processed entries are trimmed",
    )
    assert stack.process.stop() == 0
    fleet.wait_for_more(1500)
    wait_for(lambda: janitor.readyz()[0] == 503, "an alarm")
    reason = janitor.readyz()[1]["reasons"]["retention"]
    assert reason == f"{STREAM} exceeds --retain: group processor has not processed all of it"
    fleet.wait_for_more(500)
    assert (
        janitor.text.count("exceeds --retain: group processor has not processed all of it (") == 1
    )
    stack.process.start()
    stack.account(fleet)  # nothing is lost
    wait_for(lambda: janitor.readyz()[0] == 200, "the alarm ends")
    wait_for(lambda: client.xlen(STREAM) < 300, "trimmed again")
    assert janitor.stop() == 0


def test_ingest_processor_and_janitor_serve_their_metrics(stack: Stack, janitor: Daemon) -> None:
    janitor.start()
    fleet = stack.fleet(*LOAD)
    fleet.wait_for_more(200)
    name = f'tracker_stream_lag_entries{{group="processor",stream="{STREAM}"}}'
    wait_for(lambda: name in metrics(stack.process), "the lag is known", timeout=30)
    lag = stack.process.readyz()[1]["details"]["lag"][STREAM]["groups"]["processor"]
    assert set(lag) == {"lag", "pending", "oldest_unprocessed_age", "consumers"}
    wait_for(lambda: f'tracker_stream_bytes{{stream="{STREAM}"}}' in metrics(janitor), "its size")
    assert "tracker_build_info" in metrics(stack.ingest)


def test_standalone_runs_the_janitor(tmp_path: Path) -> None:
    data = tmp_path / "data"
    daemon = Daemon(
        *(tmp_path, "standalone", "standalone", "--data", str(data), "--retain", "1s"),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
    )
    try:
        daemon.start()
        assert "tracker_janitor_last_round_timestamp_seconds" in metrics(daemon)
        assert daemon.readyz()[1]["details"]["lag"].keys() <= {STREAM}
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def metrics(daemon: Daemon) -> str:
    url = daemon.url("/metrics")
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
    return text
