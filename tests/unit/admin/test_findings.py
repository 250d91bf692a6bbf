"""The wording of the doctor's findings.

Other tests assert the status of a finding, what mends it, and the names and numbers in it.
"""

from __future__ import annotations

from typing import Final

import pytest

from tracker.admin.doctor import leftovers, streams
from tracker.log.redis.lag import ConsumerLag, GroupLag, StreamLag
from tracker.observe.findings import Finding

CLI: Final = "redis-cli"


def group_of(*idle: float, lag: int | None = 0) -> GroupLag:
    """The group of processors, with consumers that were idle for so many seconds."""
    consumers = [ConsumerLag(f"host-{number}", 0, one) for number, one in enumerate(idle, 1)]
    return GroupLag("processor", lag, 0, 61.0, consumers)


def stream_of(*groups: GroupLag) -> StreamLag:
    return StreamLag("s", 1, 1, groups)


FINDINGS: Final[list[tuple[Finding, str]]] = [
    (streams.judge_instances(["eu-2", "eu-1"]), "2 alive: eu-1, eu-2"),
    (streams.judge_instances([]), "no ingest instance is alive"),
    (
        streams.judge_heartbeat("instance:heartbeat:a", "not JSON", CLI),
        "instance:heartbeat:a is malformed: not JSON",
    ),
    (streams.judge_stream("s", "none", 0, CLI), "s: not there yet, the first position makes it"),
    (streams.judge_stream("s", "stream", 3, CLI), "s: 3 entries"),
    (
        streams.judge_stream("s", "hash", 0, CLI),
        "s is no stream but a hash: nothing can be appended",
    ),
    (streams.judge_group("s", None, True), "s has no group processor: nobody has ever read it"),
    (
        streams.judge_group("s", stream_of(group_of()), True),
        "s: the group processor has no consumer",
    ),
    (streams.judge_group("s", stream_of(group_of(5.0)), True), "s: read by host-1"),
    (
        streams.judge_group("s", stream_of(group_of(700.0, 900.0)), True),
        "s: no consumer has asked for 700 s, host-1 was the last",
    ),
    (streams.judge_lag("s", group_of(lag=7)), "s: 7 entries not processed, the oldest 61 s old"),
    (
        streams.judge_lag("s", group_of(lag=None)),
        "s: an unknown number of entries not processed, the oldest 61 s old",
    ),
    (streams.judge_dead("s", 0), "s: none"),
    (streams.judge_dead("s", 3), "s: 3 entries could not be processed"),
    (leftovers.judge_device_registry(3, {}), "3 devices, all at living instances"),
    (
        leftovers.judge_device_registry(3, {"eu-9": 2}),
        "2 of 3 devices are registered at instances that are gone: eu-9",
    ),
    (leftovers.judge_orphans({}), "no streams of commands for instances that are gone"),
    (leftovers.judge_orphans({"eu-9": 2}), "2 commands for instances that are gone: eu-9"),
    (leftovers.judge_waiting(5, 0), "commands wait for 5 devices"),
    (
        leftovers.judge_waiting(5, 1),
        "commands wait for 5 devices, 1 of them have expired and were not ended",
    ),
    (leftovers.judge_outbound("eu-1", 2, 0), "eu-1 has 2 commands to deliver"),
    (
        leftovers.judge_outbound("eu-1", 2, 1),
        "eu-1 has 2 commands to deliver, 1 of them have expired and were not ended",
    ),
    (next(iter(streams.judge_names({"eu-1": ["a"]}, ["a"]))), "a: written by eu-1, and read"),
    (
        next(iter(streams.judge_names({"eu-1": ["a"]}, ["b"]))),
        "eu-1 writes a, and processors with this environment read b",
    ),
    (
        next(iter(streams.judge_names({"eu-1": ["a"]}, ["b"], {"a"}))),
        "eu-1 writes a, and processors with this environment read b "
        "(a processor elsewhere reads it)",
    ),
]


@pytest.mark.parametrize(("finding", "seen"), FINDINGS, ids=[seen for _, seen in FINDINGS])
def test_the_wording_of_a_finding(finding: Finding, seen: str) -> None:
    assert finding.seen == seen
