"""Outages of Redis while devices push.

In each outage no record is acknowledged, and ``/readyz`` gives the reason. Service resumes by
itself within 5 seconds after the outage, and every acknowledged record is in the stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
import valkey

from tests.proxy import Proxy
from tests.servers import RedisServer, free_port
from tests.system.outages import RESUMPTION, Report, Serve, outage
from tests.waiting import wait_for


def in_background(action: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        with suppress(valkey.ResponseError):  # a script that was killed
            action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_busy_redis_stops_only_acks(redis: RedisServer, serve: Serve, report: Report) -> None:
    redis.client.config_set("busy-reply-threshold", 200)
    with outage(serve(), redis) as during:
        busy = in_background(lambda: redis.client.eval("while true do end", 0))
        during.wait_for_effect("BUSY")

        def kill_it() -> None:
            valkey.Valkey(port=redis.port).script_kill()
            busy.join(10)

        report(f"resumed after {during.end(kill_it):.2f} s")


def test_slow_redis_delays_only_acks(redis: RedisServer, serve: Serve, report: Report) -> None:
    # It replies to every command seven seconds late.
    with outage(serve(), redis) as during:
        redis.client.client_pause(7000)
        ended = in_background(redis.client.ping)
        during.wait_for_effect("no reply within")
        report(f"resumed after {during.end(lambda: ended.join(20)):.2f} s")


def test_redis_that_holds_writes_stops_only_acks(
    redis: RedisServer, serve: Serve, report: Report
) -> None:
    with outage(serve(), redis) as during:
        redis.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        during.wait_for_effect("Redis does not reply to appends")
        connected_again = "not ready: redis (ingest): no reply within"
        wait_for(lambda: during.ingest.daemon.text.count(connected_again) >= 2, "reconnected twice")
        assert during.ingest.daemon.readyz()[0] == 503
        assert "Redis does not reply to appends" in str(during.ingest.daemon.readyz()[1])
        report(f"resumed after {during.end(redis.client.client_unpause):.2f} s")


def test_hanging_redis_stops_only_acks(redis: RedisServer, serve: Serve, report: Report) -> None:
    with outage(serve(), redis) as during:
        redis.suspend()
        during.wait_for_effect("no reply within")
        report(f"resumed after {during.end(redis.resume):.2f} s")


def test_killed_redis_loses_no_acknowledged_record(
    redis: RedisServer, serve: Serve, report: Report
) -> None:
    with outage(serve(), redis) as during:
        redis.kill()
        during.wait_for_effect("refused")
        report(f"resumed after {during.end(redis.start):.2f} s")


def test_loading_redis_stops_only_acks(redis: RedisServer, serve: Serve, report: Report) -> None:
    with outage(serve(), redis) as during:
        pipeline = redis.client.pipeline(transaction=False)
        for number in range(4500):
            pipeline.set(f"key-{number}", "")
        pipeline.execute()
        redis.kill()
        # It sleeps a millisecond after each command of its log, and replies after every 1,024.
        redis.extra = ("--key-load-delay", "1000")
        redis.start(wait=False)
        during.wait_for_effect("LOADING")
        loaded = lambda: wait_for(redis.is_up, "data loaded", timeout=60)  # noqa: E731
        report(f"resumed after {during.end(loaded):.2f} s")


@pytest.mark.parametrize("old", [True, False], ids=["resumed", "after reconnecting"])
def test_unreachable_redis_stops_only_acks(
    redis: RedisServer, serve: Serve, report: Report, old: bool
) -> None:
    proxy = Proxy(redis.port, backlog=1)
    redis.url = f"redis://127.0.0.1:{proxy.port}/0"
    with ExitStack() as stack:
        stack.callback(proxy.close)
        during = stack.enter_context(outage(serve(), redis))
        proxy.stall(deaf=True)
        during.wait_for_effect("no reply within", "timed out")
        report(f"resumed after {during.end(lambda: proxy.heal(forward_old=old)):.2f} s")


def test_appends_resume_in_time_after_an_outage_that_closes_no_connection(
    redis: RedisServer, serve: Serve, report: Report
) -> None:
    # Redis is reachable again before a timeout, but the old connection is dead.
    proxy = Proxy(redis.port, backlog=1)
    redis.url = f"redis://127.0.0.1:{proxy.port}/0"
    with ExitStack() as stack:
        stack.callback(proxy.close)
        during = stack.enter_context(outage(serve(), redis))
        proxy.stall(deaf=True)
        before = during.pushing.wait_until_quiet()
        proxy.heal(forward_old=False)
        returned = time.monotonic()
        # /readyz may not have detected the outage.
        wait_for(lambda: len(during.pushing.acknowledged) > before, "served again")
        seconds = time.monotonic() - returned
        assert seconds <= RESUMPTION
        report(f"resumed after {seconds:.2f} s")


def test_redis_that_becomes_a_replica_stops_only_acks(
    redis: RedisServer, serve: Serve, report: Report
) -> None:
    with outage(serve(), redis) as during:
        redis.client.replicaof("127.0.0.1", free_port())
        during.wait_for_effect("a read-only replica")
        promote = lambda: redis.client.replicaof("NO", "ONE")  # noqa: E731
        report(f"resumed after {during.end(promote):.2f} s")


def test_redis_without_memory_stops_only_acks(
    redis: RedisServer, serve: Serve, report: Report
) -> None:
    with outage(serve(), redis) as during:
        redis.client.config_set("maxmemory", 1)
        during.wait_for_effect("OOM")
        free = lambda: redis.client.config_set("maxmemory", 0)  # noqa: E731
        report(f"resumed after {during.end(free):.2f} s")
