"""Run all checks, and return the findings in the order in which they are shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from tracker import config
from tracker.admin.doctor import control, leftovers, machine, redis, streams
from tracker.admin.doctor.rights import rights
from tracker.admin.doctor.server import Server, is_here
from tracker.admin.redis import configured_streams
from tracker.durations import format_duration
from tracker.errors import Refused
from tracker.keys import TELEMETRY_TEMPLATE
from tracker.observe.examination import Examination
from tracker.observe.findings import Finding, failure, skipped
from tracker.observe.health import Condition
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.storage.checks import examine_sink

Check = tuple[str, Callable[..., Any]]


async def examine(
    reactor: Reactor,
    seconds: float,
    address: RedisAddress,
    *,
    sink: str | None,
    ports: Sequence[tuple[str, int]],
) -> list[Finding]:
    """Run all checks, which change nothing.

    :param seconds: time limit for the checks of each server, and for those of this machine.
    :param sink: a valid URL; None to skip the checks of the sink.
    :param ports: host and number of each port that devices connect to.
    """
    server, database, here = (Examination(reactor, seconds) for _ in range(3))
    port_checks = [Examination(reactor, seconds) for _ in ports]
    checks = [
        _redis(reactor, server, address),
        examine_sink(reactor, database, sink),
        _machine(here, address),
        *(
            examination.make("port", machine.port, reactor, *port)
            for examination, port in zip(port_checks, ports, strict=True)
        ),
    ]
    await gatherResults([Deferred.fromCoroutine(one) for one in checks], consumeErrors=True)
    return [one for part in (server, database, here, *port_checks) for one in part.findings]


async def _redis(reactor: Reactor, examination: Examination, address: RedisAddress) -> None:
    usable = Condition()
    known = usable.reported()
    connection = RedisConnection(reactor, address, usable, require_master=False)
    server = Server(connection, address)
    examination.expected = server.finding
    connection.startService()
    try:
        reason = await known.addTimeout(examination.seconds, reactor, _overdue)
        if reason is None:
            late = partial(redis.unreachable, address)
            await examination.make("redis-reachable", redis.reachable, server, late=late)
        else:
            await examination.make("redis-reachable", redis.unreachable, address, reason)
        for name, check in _checks(server, reactor):
            if reason is None and not server.lost:
                await examination.make(name, check)
            else:
                await examination.make(name, skipped, "Redis cannot be used")
    finally:
        await connection.stopService()


def _overdue(result: Any, seconds: float) -> str:
    return f"no reply within {format_duration(seconds)}"


def _checks(server: Server, clock: IReactorTime) -> list[Check]:
    """Return name and function of the checks of Redis; slow ones come last."""
    error = ""
    try:
        configured = sorted(configured_streams())
    except click.UsageError as raised:
        configured, error = [], raised.message
    traffic = streams.Traffic(server, configured, config.telemetry_setting(os.environ))

    async def by_info(judge: redis.Rule) -> Any:
        return judge(await server.info(), server.cli)

    async def by_setting(setting: str, judge: Callable[[str, str], Finding]) -> Finding:
        return judge(await server.setting(setting), server.cli)

    async def replication() -> Finding:
        return redis.replication(await server.info(), server.address)

    async def all_rights() -> list[Finding]:
        try:
            names = await traffic.streams()
        except Refused:  # the user may lack the right to SCAN or GET
            names = configured
        return await rights(server, names)

    def pinned() -> Finding:
        return failure(error, f"REDIS_TELEMETRY_STREAM='{TELEMETRY_TEMPLATE}'")

    return [
        *((name, partial(by_info, judge)) for name, judge in redis.BY_INFO.items()),
        ("replication", replication),
        *((name, partial(by_setting, *how)) for name, how in redis.BY_SETTING.items()),
        ("redis-disk", partial(redis.disk, server)),
        ("redis-latency", partial(redis.latency, server, clock)),
        ("redis-clock", partial(redis.server_clock, server, clock)),
        ("redis-rights", all_rights),
        ("instances", partial(streams.instances, traffic)),
        ("control-ports", partial(control.control_ports, traffic)),
        ("stream-names", pinned if error else partial(streams.names, traffic)),
        ("streams", partial(streams.streams, traffic)),
        ("key-types", partial(streams.key_types, traffic)),
        ("groups", partial(streams.groups, traffic)),
        ("lag", partial(streams.lags, traffic)),
        ("dead-letters", partial(streams.dead, traffic)),
        ("skipped-entries", partial(streams.skipped_entries, traffic)),
        ("stranded-streams", partial(streams.stranded, traffic, clock)),
        ("orphaned-commands", partial(leftovers.orphans, traffic)),
        ("waiting-commands", partial(leftovers.commands, traffic, clock)),
        ("device-registry", partial(leftovers.device_registry, traffic)),
    ]


async def _machine(examination: Examination, address: RedisAddress) -> None:
    await examination.make("machine-clock", machine.clock)
    await examination.make("machine-files", machine.files)
    await examination.make("machine-backlog", machine.backlog)
    for name, check in (
        ("machine-overcommit", machine.overcommit),
        ("machine-huge-pages", machine.huge_pages),
    ):
        if is_here(address):
            await examination.make(name, check)
        else:
            await examination.make(name, skipped, "Redis is on another machine")
