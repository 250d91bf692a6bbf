"""The wording of the doctor's findings.

Other tests assert the status of a finding, the fix, and the names and numbers in it.
"""

from __future__ import annotations

from typing import Final, cast

import pytest

from tracker.admin.doctor import control, leftovers, machine, redis, rights, streams
from tracker.admin.doctor.server import Server
from tracker.log.redis.checkpoint import Skipped, SkippedRange
from tracker.log.redis.lag import ConsumerLag, GroupLag, StreamLag
from tracker.log.redis.stranded import StrandedStream
from tracker.observe.findings import Finding
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.storage import rowchecks

CLI: Final = "redis-cli"
ADDRESS: Final = RedisAddress.from_url("redis://localhost")
#: A server that is not connected: rights are judged by the address.
SERVER: Final = Server(cast(RedisConnection, None), ADDRESS)


def group_of(*idle: float, lag: int | None = 0) -> GroupLag:
    """Return the group of processors, with consumers that have been idle for these seconds."""
    consumers = [ConsumerLag(f"host-{number}", 0, one) for number, one in enumerate(idle, 1)]
    return GroupLag("processor", lag, 0, 61.0, consumers)


def stream_of(*groups: GroupLag) -> StreamLag:
    return StreamLag("s", 1, 1, groups)


FINDINGS: Final[list[tuple[Finding, str]]] = [
    (streams.judge_instances(["eu-2", "eu-1"]), "2 instances running: eu-1, eu-2"),
    (streams.judge_instances(["eu-1"]), "1 instance running: eu-1"),
    (streams.judge_instances([]), "no ingest instance is running"),
    (control.judge_control_ports(0, []), "no ingest instance is running"),
    (control.judge_control_ports(2, []), "each instance has a control port"),
    (
        control.judge_control_ports(3, ["eu-2", "eu-1"]),
        "2 instances without a control port: eu-1, eu-2; tracker-admin, the console and the bridge "
        "cannot reach them",
    ),
    (
        control.judge_socket("eu-1", "unix:/s", "permission denied"),
        "eu-1: cannot connect to unix:/s: permission denied; run both as the same user, or with a "
        "common group and --control unix:PATH in a folder of that group",
    ),
    (
        streams.judge_heartbeat("instance:heartbeat:a", "not JSON", CLI),
        "instance:heartbeat:a is malformed: not JSON",
    ),
    (
        streams.judge_stream("s", "none", 0, CLI),
        "s: does not exist yet; the first position creates it",
    ),
    (streams.judge_stream("s", "stream", 1, CLI), "s: 1 entry"),
    (streams.judge_stream("s", "stream", 3, CLI), "s: 3 entries"),
    (
        streams.judge_stream("s", "hash", 0, CLI),
        "s is a hash, not a stream: no positions can be appended",
    ),
    (
        streams.judge_group("s", None, True),
        "s: group processor not found; no processor has ever read the stream",
    ),
    (streams.judge_group("s", None, False), "s does not exist yet"),
    (
        streams.judge_group("s", stream_of(group_of()), True),
        "s: group processor has no consumers",
    ),
    (streams.judge_group("s", stream_of(group_of(5.0)), True), "s: read by host-1"),
    (
        streams.judge_group("s", stream_of(group_of(700.0, 900.0)), True),
        "s: no consumer has read for 11m; the last one was host-1",
    ),
    (streams.judge_lag("s", group_of(lag=7)), "s: 7 entries not processed, the oldest 1m old"),
    (streams.judge_lag("s", group_of(lag=1)), "s: 1 entry not processed, the oldest 1m old"),
    (
        streams.judge_lag("s", group_of(lag=None)),
        "s: an unknown number of entries not processed, the oldest 1m old",
    ),
    *(
        (finding, seen)
        for finding, seen in zip(
            streams.judge_stranded(
                [StrandedStream("s", 1, 61.4), *[StrandedStream("t", None, 5)] * 21], complete=False
            ),
            [
                "s: no processor reads it; 1 entry, the oldest 1m old",
                *["t: no processor reads it; an unknown number of entries, the oldest 5s old"] * 19,
                "2 more stranded streams not shown",
                "not all keys were examined within 5s",
            ],
            strict=True,
        )
    ),
    (next(streams.judge_stranded([])), "no stream of positions is without a processor"),
    (next(streams.judge_skipped("s", Skipped(None))), "s: no processor has published a checkpoint"),
    (next(streams.judge_skipped("s", Skipped("5-0"))), "s: no entry was skipped"),
    *(
        (finding, seen)
        for finding, seen in zip(
            streams.judge_skipped(
                "s", Skipped("5-0", [SkippedRange("1000-0", "2000-1", 1)] * 7, complete=False)
            ),
            [
                *[
                    "s: 1 entry skipped, 1000-0 (1970-01-01T00:00:01.000Z) to 2000-1 "
                    "(1970-01-01T00:00:02.000Z): neither pending nor recorded as stored"
                ]
                * 5,
                "s: more entries may be skipped, which were not examined",
            ],
            strict=True,
        )
    ),
    (
        [*streams.judge_skipped("s", Skipped("5-0", [SkippedRange("1-0", "2-0", 1)] * 7))][5],
        "s: 2 more skipped entries",
    ),
    (
        next(streams.judge_skipped("s", Skipped("5-0", complete=False))),
        "s: no entry was skipped among the first ones that are not finished",
    ),
    (streams.judge_dead("s", 0), "s: no dead letters"),
    (streams.judge_dead("s", 1), "s: 1 entry could not be processed"),
    (streams.judge_dead("s", 3), "s: 3 entries could not be processed"),
    (
        streams.judge_types({"a": "set", "b": "hash"}, {"a": "string", "b": "none"})[0],
        "a is a string, not a set; rename or delete the key",
    ),
    (
        streams.judge_types({"a": "set"}, {"a": "set"})[0],
        "keys of commands and devices have the right types",
    ),
    (
        streams.judge_dead("s", -1),
        "s:dead is not a stream: no dead letters can be appended; rename or delete the key",
    ),
    (leftovers.judge_device_registry(0, {}), "no devices are registered"),
    (leftovers.judge_device_registry(3, {}), "3 devices registered, all at running instances"),
    (
        leftovers.judge_device_registry(3, {"eu-9": 2}),
        "2 of 3 devices registered at instances that are gone: eu-9",
    ),
    (leftovers.judge_orphans({}), "no commands for instances that are gone"),
    (leftovers.judge_orphans({"eu-9": 1}), "1 command for instances that are gone: eu-9"),
    (leftovers.judge_waiting(0, 0), "no commands are waiting"),
    (leftovers.judge_waiting(5, 0), "commands are waiting for 5 devices"),
    (
        leftovers.judge_waiting(1, 1),
        "commands are waiting for 1 device; 1 expired without a final status",
    ),
    (leftovers.judge_outbound("eu-1", 0, 0), "eu-1 has no commands to deliver"),
    (
        leftovers.judge_outbound("eu-1", 2, 1),
        "eu-1 has 2 commands to deliver; 1 expired without a final status",
    ),
    (leftovers.judge_malformed(["a", "b"]), "not a stream: a, b; rename or delete the key"),
    (
        next(iter(streams.judge_names({"eu-1": ["a"]}, ["a"]))),
        "a: written by eu-1 and read by processors",
    ),
    (
        next(iter(streams.judge_names({"eu-1": ["a"]}, ["b"]))),
        "eu-1 writes a, but processors with this environment read b",
    ),
    (
        next(iter(streams.judge_names({"eu-1": ["a"]}, ["b"], {"a"}))),
        "eu-1 writes a (another processor reads it), but processors with this environment read b",
    ),
    (
        next(iter(streams.judge_names({}, ["b"]))),
        "no running instance reports the streams that it writes",
    ),
    (rowchecks.judge_clocks([]), "no device has sent a wrong time within the last day"),
    (
        rowchecks.judge_clocks([(1, "356307042441013", "ahead")]),
        "1 device sent a wrong time within the last day: 356307042441013 (ahead)",
    ),
    (
        rowchecks.judge_clocks([(1001, "1", "old"), (1001, "2", "rollover")]),
        "1,001 devices sent a wrong time within the last day: 1 (old), 2 (rollover) and 999 more",
    ),
    (
        rowchecks.judge_wrong([(0,)], "sqlite:p"),
        "all last positions are places, and no last contact is in the future",
    ),
    (
        rowchecks.judge_wrong([(3,)], "sqlite:p"),
        "wrong last positions or contacts: 3, stored by an earlier version",
    ),
    (
        rowchecks.judge_wrong([(1000,)], "sqlite:p"),
        "wrong last positions or contacts: 1,000 or more, stored by an earlier version",
    ),
    (rowchecks.OLD_SCHEMA, "the tables do not have this column yet"),
    (rowchecks.LATE, "no reply from the database within 5s"),
    (redis.version({"redis_version": "7.2.4"}, CLI), "Redis 7.2.4"),
    (
        redis.version({"redis_version": "6.0.9"}, CLI),
        "Redis 6.0.9 is too old: Redis 7.0 or Valkey 8.0 is required",
    ),
    (redis.replication({"role": "master"}, ADDRESS), "the server is a master"),
    (
        redis.replication({"role": "slave", "master_host": "h", "master_port": "1"}, ADDRESS),
        "the server is a replica of h:1 and refuses writes",
    ),
    (redis.replication({"role": "sentinel"}, ADDRESS), "the server stores no data"),
    (
        redis.append_only({"aof_enabled": "0"}, CLI),
        "appendonly no: acknowledged records are lost when Redis stops",
    ),
    (
        redis.fsync("everysec", CLI),
        "appendfsync everysec: up to a second of acknowledged records is lost on a power failure",
    ),
    (
        redis.fsync_on_rewrite("yes", CLI),
        "no-appendfsync-on-rewrite yes: writes are not synchronised during a rewrite",
    ),
    (next(redis.writes({}, CLI)), "the last write, rewrite and snapshot succeeded"),
    (
        next(redis.writes({"rdb_last_bgsave_status": "err"}, CLI)),
        "the last snapshot failed, and Redis may refuse writes (rdb_last_bgsave_status err)",
    ),
    (
        redis.eviction({"maxmemory_policy": "allkeys-lru"}, CLI),
        "maxmemory-policy allkeys-lru: Redis deletes whole streams, unread, when memory is full",
    ),
    (
        redis.memory({"used_memory": "1048576", "maxmemory": "1048576"}, CLI),
        "1 MiB of 1 MiB (maxmemory) used, 100%: devices get no ACKs when memory is full",
    ),
    (redis.judge_latency(0.0001, 0.0002, CLI), "0.1 ms (median of 11), 0.2 ms (maximum)"),
    (redis.judge_clock(0.0), "0.0s from this machine's clock"),
    (
        redis.judge_clock(-40),
        "40.0s behind this machine's clock: ages, expiry times and received_at are wrong",
    ),
    (
        rights.judge_rights(SERVER, "ingest", set(), "default"),
        'Redis user "default" has all permissions that ingest needs',
    ),
    (
        rights.judge_rights(SERVER, "ingest", {"+xadd", "~a"}, "bob"),
        'Redis user "bob" lacks permissions that ingest needs: +xadd ~a',
    ),
    (
        rights.judge_loader(SERVER, {"+xadd"})[0],
        'Redis user "default" lacks permissions, so that a restart skips commands of the '
        "append-only file: +xadd",
    ),
    (machine.judge_clock(0), "the clock is synchronised"),
    (
        machine.judge_files(20_000),
        "open-file limit is 20,000: a process started here can serve fewer devices than that",
    ),
    (machine.judge_files(65_536), "open-file limit is 65,536"),
    (machine.judge_files(None), "no open-file limit"),
]


@pytest.mark.parametrize(("finding", "seen"), FINDINGS, ids=[seen for _, seen in FINDINGS])
def test_finding_has_the_catalogued_wording(finding: Finding, seen: str) -> None:
    assert finding.seen == seen


def test_fix_of_a_wrong_clock_is_a_command_for_devices_of_all_vendors() -> None:
    fix = rowchecks.judge_clocks([(1, "A10000499AEF9B", "old")]).fix
    assert fix.startswith("tracker-admin watch A10000499AEF9B ")
