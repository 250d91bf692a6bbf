"""Check the streams: their names, consumers, lag and dead letters."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from tracker.admin.doctor.server import Server
from tracker.durations import age, format_duration
from tracker.errors import Refused
from tracker.keys import (
    ALLOWED_DEVICES,
    CONNECTED_VENDORS,
    CONNECTIONS,
    DEADLINES,
    DEVICE_MODELS,
    DEVICE_VENDORS,
    PROCESSOR_GROUP,
    RESPONSES,
    TELEMETRY_TEMPLATE,
    WAITING,
    checkpoint,
    dead_letters,
    outbound,
)
from tracker.log.redis.checkpoint import Skipped, find_skipped
from tracker.log.redis.heartbeats import read_advertised, streams_by_instance
from tracker.log.redis.lag import GroupLag, StreamLag, stream_lag
from tracker.log.redis.stranded import SEARCH_SECONDS, StrandedStream, StreamSearch
from tracker.log.redis.stranded import stranded as find_stranded
from tracker.observe.findings import Finding, failure, ok, skipped, warning
from tracker.redis.pipeline import existing
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import listed, shown
from tracker.wording import counted

#: Maximum idle time of a running consumer, in seconds. Consumers ask for entries every few seconds.
MAX_IDLE: Final = 60
#: Age of the oldest unprocessed entry, in seconds.
AGE_WARNING: Final = 60
AGE_FAILURE: Final = 600

_START: Final = "systemctl start tracker-process@1"

#: Maximum number of streams, and of malformed heartbeats, with a finding of their own.
MAX_STREAMS: Final = 100
MAX_FINDINGS: Final = 5
#: Maximum number of stranded streams with a finding of their own.
MAX_STRANDED: Final = 20

Living = Mapping[str, Sequence[str]]


@define
class Traffic:
    """The streams of the installation; heartbeats and lag are read only once."""

    server: Server
    configured: Sequence[str]
    """The streams that a processor with this environment reads."""
    setting: str = TELEMETRY_TEMPLATE
    """The value of ``REDIS_TELEMETRY_STREAM``, or its default."""
    _living: Living | None = field(default=None, init=False)
    _lags: dict[str, StreamLag | None] = field(factory=dict, init=False)

    async def living(self) -> Living:
        """Return running instance → the streams that its heartbeat names."""
        if self._living is None:
            self._living = await streams_by_instance(self.server.redis)
        return self._living

    async def streams(self) -> list[str]:
        """Return at most :data:`MAX_STREAMS` streams that are read or written.

        A stream that is only read, such as that of a vendor without devices, is omitted if it is
        empty; unless all are.
        """
        living = await self.living()
        written = {one for its in living.values() for one in its}
        others = sorted(written.difference(self.configured))
        used = [
            one
            for one in self.configured
            if one in written or await self.size(one) or await self.size(dead_letters(one))
        ]
        if len(others) > MAX_STREAMS:
            others = [*await existing(self.server.redis, others), *others]
        return sorted(list(dict.fromkeys([*(used or self.configured), *others]))[:MAX_STREAMS])

    async def malformed(self) -> Mapping[str, str]:
        """Return key of each malformed heartbeat → reason."""
        return (await read_advertised(self.server.redis)).malformed

    async def lag(self, stream: str) -> StreamLag | None:
        """Return the lag of a stream's groups; None if the stream does not exist."""
        if stream not in self._lags:
            try:
                self._lags[stream] = await stream_lag(self.server.redis, stream)
            except Refused as error:
                if not is_wrong_type(error):
                    raise
                self._lags[stream] = None
        return self._lags[stream]

    async def size(self, stream: str) -> int:
        """Return the number of entries; 0 without the key, and -1 if it is of another type."""
        try:
            entries: int = await self.server.redis.execute("XLEN", stream)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            return -1
        return entries


async def instances(traffic: Traffic) -> list[Finding]:
    """Check that an ingest instance is running, and that no heartbeat is malformed."""
    found = [judge_instances(await traffic.living())]
    malformed = await traffic.malformed()
    found += [
        judge_heartbeat(key, why, traffic.server.cli)
        for key, why in islice(malformed.items(), MAX_FINDINGS)
    ]
    if len(malformed) > MAX_FINDINGS:
        more = counted(len(malformed) - MAX_FINDINGS, "more malformed heartbeat")
        found.append(warning(f"{more} not shown", ""))
    return found


def judge_instances(living: Iterable[str]) -> Finding:
    """Judge the instances that have a heartbeat."""
    if names := sorted(living):
        return ok(f"{counted(len(names), 'instance')} running: {listed(names)}")
    return warning("no ingest instance is running", "systemctl start tracker-ingest@1")


def judge_heartbeat(key: str, why: str, cli: str) -> Finding:
    """Return the finding on a malformed heartbeat.

    :param key: the key, as shown.
    """
    # A key that was escaped or cut cannot be passed to redis-cli.
    whole = "\\" not in key and "…" not in key
    fix = f"{cli} DEL {shlex.quote(key)}  # then find what writes it" if whole else ""
    return warning(f"{key} is malformed: {why}", fix)


async def names(traffic: Traffic) -> list[Finding]:
    """Check that processors with this environment read the streams that instances write."""
    living = await traffic.living()
    elsewhere = {
        stream
        for stream in await traffic.streams()
        if stream not in traffic.configured and _readers(await _group(traffic, stream))
    }
    return list(judge_names(living, traffic.configured, elsewhere, traffic.setting))


def judge_names(
    living: Living,
    configured: Sequence[str],
    elsewhere: Iterable[str] = (),
    setting: str = TELEMETRY_TEMPLATE,
) -> Iterator[Finding]:
    """Compare the streams that are written with those that are read.

    :param living: running instance → the streams that it writes.
    :param configured: the streams that a processor with this environment reads.
    :param elsewhere: the streams that a processor with another environment reads.
    :param setting: see :attr:`Traffic.setting`.
    """
    written = sorted((stream, name) for name, streams in living.items() for stream in streams)
    if not written:
        yield skipped("no running instance reports the streams that it writes")
    if len(written) > MAX_STREAMS:
        written.sort(key=lambda pair: pair[0] in configured)  # streams without a reader first
        more = counted(len(written) - MAX_STREAMS, "more stream name")
        yield warning(f"{more} not shown", "")
    for stream, name in written[:MAX_STREAMS]:
        if stream in configured:
            yield ok(f"{shown(stream)}: written by {shown(name)} and read by processors")
            continue
        reads = ", ".join(configured)
        note = " (another processor reads it)" if stream in elsewhere else ""
        value = shlex.quote(f"{setting},{stream}")
        yield failure(
            f"{shown(name)} writes {shown(stream)}{note}, "
            f"but processors with this environment read {reads}",
            f"REDIS_TELEMETRY_STREAM={value}  # in /etc/tracker/common.env, or correct ingest's",
        )


#: Key that is always named the same → its type.
_TYPES: Final = {
    RESPONSES: "stream",
    WAITING: "set",
    DEADLINES: "zset",
    CONNECTIONS: "hash",
    CONNECTED_VENDORS: "hash",
    ALLOWED_DEVICES: "set",
    DEVICE_MODELS: "hash",
    DEVICE_VENDORS: "hash",
}


async def key_types(traffic: Traffic) -> list[Finding]:
    """Check that the keys other than streams of positions have their types."""
    instances = islice(sorted(await traffic.living()), MAX_STREAMS)
    expected = _TYPES | {outbound(instance_id): "stream" for instance_id in instances}
    found = {}
    for key in expected:
        found[key] = (await traffic.server.redis.execute("TYPE", key)).decode()
    return judge_types(expected, found)


def judge_types(expected: Mapping[str, str], found: Mapping[str, str]) -> list[Finding]:
    """Judge the types of keys.

    :param expected: key → type.
    :param found: key → type in Redis; ``none`` if the key does not exist.
    """
    wrong = [
        failure(f"{shown(key)} is a {found[key]}, not a {kind}; rename or delete the key", "")
        for key, kind in expected.items()
        if found[key] not in (kind, "none")
    ]
    return wrong or [ok("keys of commands and devices have the right types")]


async def streams(traffic: Traffic) -> list[Finding]:
    """Check that the keys of the streams are streams or missing."""
    found = []
    for stream in await traffic.streams():
        kind = (await traffic.server.redis.execute("TYPE", stream)).decode()
        entries = await traffic.server.redis.execute("XLEN", stream) if kind == "stream" else 0
        found.append(judge_stream(stream, kind, entries, traffic.server.cli))
    return found


def judge_stream(stream: str, kind: str, entries: int, cli: str) -> Finding:
    """Judge a key that should be a stream."""
    if kind == "none":
        return ok(f"{stream}: does not exist yet; the first position creates it")
    if kind == "stream":
        return ok(f"{stream}: {counted(entries, 'entry', 'entries')}")
    old, new = shlex.quote(stream), shlex.quote(f"{stream}:{kind}")
    return failure(
        f"{stream} is a {kind}, not a stream: no positions can be appended",
        f"{cli} RENAME {old} {new}",
    )


async def groups(traffic: Traffic) -> list[Finding]:
    """Check that a processor reads each stream."""
    written = {stream for its in (await traffic.living()).values() for stream in its}
    return [
        judge_group(stream, await traffic.lag(stream), stream in written)
        for stream in await traffic.streams()
    ]


def judge_group(stream: str, lag: StreamLag | None, written: bool) -> Finding:
    """Judge the group by which processors read a stream.

    :param written: True if a running instance writes the stream.
    """
    if lag is None and not written:
        return skipped(f"{stream} does not exist yet")
    group = None if lag is None else lag.group(PROCESSOR_GROUP)
    if group is None:
        seen = f"{stream}: group {PROCESSOR_GROUP} not found; no processor has ever read the stream"
        return failure(seen, _START)
    if readers := _readers(group):
        return ok(f"{stream}: read by {', '.join(sorted(readers))}")
    if not group.consumers:
        return failure(f"{stream}: group {PROCESSOR_GROUP} has no consumers", _START)
    latest = min(group.consumers, key=lambda one: one.idle)
    return failure(
        f"{stream}: no consumer has read for {age(latest.idle)}; the last one was {latest.name}",
        f"systemctl restart tracker-process@1  # on the machine of {shlex.quote(latest.name)}",
    )


async def lags(traffic: Traffic) -> list[Finding]:
    """Check that the processors are not far behind."""
    found = []
    for stream in await traffic.streams():
        if group := await _group(traffic, stream):
            found.append(judge_lag(stream, group))
    return found or [skipped(f"no stream has a group {PROCESSOR_GROUP}")]


def judge_lag(stream: str, group: GroupLag) -> Finding:
    """Judge the entries that a group has not finished."""
    unprocessed = (
        "an unknown number of entries"
        if group.total is None
        else counted(group.total, "entry", "entries")
    )
    seen = f"{stream}: {unprocessed} not processed"
    if group.total != 0:
        seen += f", the oldest {age(group.oldest_age)} old"
    if group.oldest_age <= AGE_WARNING:
        return ok(seen)
    fix = f"tracker-admin lag --stream {shlex.quote(stream)}  # then journalctl -u tracker-process"
    return (warning if group.oldest_age <= AGE_FAILURE else failure)(seen, fix)


async def dead(traffic: Traffic) -> list[Finding]:
    """Check that there are no dead letters."""
    found = [
        judge_dead(stream, await traffic.size(dead_letters(stream)))
        for stream in await traffic.streams()
    ]
    if responses := await traffic.size(dead_letters(RESPONSES)):
        found.append(judge_dead(RESPONSES, responses))
    return found


def judge_dead(stream: str, count: int) -> Finding:
    """Judge the number of dead letters of a stream."""
    if not count:
        return ok(f"{stream}: no dead letters")
    if count < 0:
        return failure(
            f"{dead_letters(stream)} is not a stream: no dead letters can be appended; "
            "rename or delete the key",
            "",
        )
    fix = f"tracker-admin dead list --stream {shlex.quote(stream)}"
    entries = counted(count, "entry", "entries")
    return warning(f"{stream}: {entries} could not be processed", fix)


async def stranded(traffic: Traffic, clock: IReactorTime) -> list[Finding]:
    """Check that no stream of positions is stranded; streams that instances write are left out."""
    search = StreamSearch(traffic.server.redis, clock)
    complete = await search.proceed(SEARCH_SECONDS)
    others = {
        *traffic.configured,
        *(one for its in (await traffic.living()).values() for one in its),
    }
    found = await find_stranded(traffic.server.redis, search.streams.values(), others)
    return list(judge_stranded(found, complete))


def judge_stranded(found: Sequence[StrandedStream], complete: bool = True) -> Iterator[Finding]:
    """Judge the stranded streams.

    :param complete: True if all keys of Redis were examined.
    """
    for stream in found[:MAX_STRANDED]:
        name = shown(stream.name)
        # A name that was escaped or cut cannot be passed to a command.
        exact = name == stream.name
        end = "-- " if name.startswith("-") else ""
        fix = f"tracker-admin streams adopt {end}{shlex.quote(name)}" if exact else ""
        yield failure(f"{name}: no processor reads it; {stream.described()}", fix)
    if len(found) > MAX_STRANDED:
        more = counted(len(found) - MAX_STRANDED, "more stranded stream")
        yield failure(f"{more} not shown", "tracker-admin streams list")
    if not complete:
        yield warning(
            f"not all keys were examined within {format_duration(SEARCH_SECONDS)}",
            "tracker-admin streams list",
        )
    elif not found:
        yield ok("no stream of positions is without a processor")


async def skipped_entries(traffic: Traffic) -> list[Finding]:
    """Check that processors have skipped no entries."""
    found: list[Finding] = []
    for stream in await traffic.streams():
        if await traffic.lag(stream) is None:
            continue
        try:
            found += judge_skipped(stream, await find_skipped(traffic.server.redis, stream))
        except Refused as error:
            if not is_wrong_type(error):
                raise
            key = shlex.quote(checkpoint(stream))
            fix = f"{traffic.server.cli} RENAME {key} {key}:x  # then restart the processors"
            found.append(failure(f"{checkpoint(stream)} is not a sorted set", fix))
    return found or [skipped("no stream exists yet")]


def judge_skipped(stream: str, found: Skipped) -> Iterator[Finding]:
    """Judge the skipped entries of a stream."""
    if found.committed is None:
        yield skipped(f"{stream}: no processor has published a checkpoint")
        return
    if not found.ranges:
        among = "" if found.complete else " among the first ones that are not finished"
        yield ok(f"{stream}: no entry was skipped{among}")
        return
    replay = f"tracker-admin replay --stream {shlex.quote(stream)}"
    for one in found.ranges[:MAX_FINDINGS]:
        entries = counted(one.entries, "entry", "entries")
        first, last = one.times
        yield failure(
            f"{stream}: {entries} skipped, {one.first} ({first}) to {one.last} ({last}): neither "
            "pending nor recorded as stored",
            f'{replay} --from {one.first} --to {one.last} --sink "$TRACKER_SINK"',
        )
    left = found.ranges[MAX_FINDINGS:]
    if not found.complete:
        yield failure(
            f"{stream}: more entries may be skipped, which were not examined",
            f'{replay} --from {found.ranges[0].first} --sink "$TRACKER_SINK"',
        )
    elif left:
        count = sum(one.entries for one in left)
        yield failure(
            f"{stream}: {counted(count, 'more skipped entry', 'more skipped entries')}",
            f"tracker-admin skipped list --stream {shlex.quote(stream)}",
        )


async def _group(traffic: Traffic, stream: str) -> GroupLag | None:
    lag = await traffic.lag(stream)
    return None if lag is None else lag.group(PROCESSOR_GROUP)


def _readers(group: GroupLag | None) -> list[str]:
    """Return the consumers that are running."""
    consumers = () if group is None else group.consumers
    return [one.name for one in consumers if one.idle <= MAX_IDLE]
