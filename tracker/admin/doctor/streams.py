"""Check that processors read the streams that ingestion writes, and their lag."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from attrs import define, field

from tracker.admin.doctor.server import Server
from tracker.errors import Refused
from tracker.keys import PROCESSOR_GROUP, dead_letters
from tracker.log.redis.heartbeats import read_advertised, streams_by_instance
from tracker.log.redis.lag import GroupLag, StreamLag, stream_lag
from tracker.observe.findings import Finding, failure, ok, skipped, warning
from tracker.redis.pipeline import existing
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import listed, shown

#: A consumer is alive if it has asked within these seconds: it does so every few seconds.
ALIVE: Final = 60
#: Seconds since the oldest unprocessed entry was appended.
AGE_WARNING: Final = 60
AGE_FAILURE: Final = 600

_START: Final = "systemctl start tracker-process@1"

#: Streams, and malformed heartbeats, that have findings.
MAX_STREAMS: Final = 100
MAX_FINDINGS: Final = 5

Living = Mapping[str, Sequence[str]]


@define
class Traffic:
    """The streams that are read in this environment and written, read once."""

    server: Server
    configured: Sequence[str]
    """The streams that a processor with this environment reads."""
    _living: Living | None = field(default=None, init=False)
    _lags: dict[str, StreamLag | None] = field(factory=dict, init=False)

    async def living(self) -> Living:
        """Return living instance → the streams that its heartbeat names."""
        if self._living is None:
            self._living = await streams_by_instance(self.server.redis)
        return self._living

    async def streams(self) -> list[str]:
        """Return the streams that are read or written, at most :data:`MAX_STREAMS`."""
        living = await self.living()
        others = sorted({one for its in living.values() for one in its}.difference(self.configured))
        if len(others) > MAX_STREAMS:
            others = [*await existing(self.server.redis, others), *others]
        return sorted(list(dict.fromkeys([*self.configured, *others]))[:MAX_STREAMS])

    async def malformed(self) -> Mapping[str, str]:
        """Return malformed heartbeats → what is wrong with each."""
        return (await read_advertised(self.server.redis)).malformed

    async def lag(self, stream: str) -> StreamLag | None:
        """Return the lag of a stream's groups; None if there is no such stream."""
        if stream not in self._lags:
            try:
                self._lags[stream] = await stream_lag(self.server.redis, stream)
            except Refused as error:
                if not is_wrong_type(error):
                    raise
                self._lags[stream] = None
        return self._lags[stream]

    async def size(self, stream: str) -> int:
        """Return the entries of a stream; 0 without the key, and -1 if it is of another type."""
        try:
            entries: int = await self.server.redis.execute("XLEN", stream)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            return -1
        return entries


async def instances(traffic: Traffic) -> list[Finding]:
    """Check that some ingest instance is alive, and that no heartbeat is malformed."""
    found = [judge_instances(await traffic.living())]
    malformed = await traffic.malformed()
    found += [
        judge_heartbeat(key, why, traffic.server.cli)
        for key, why in islice(malformed.items(), MAX_FINDINGS)
    ]
    if len(malformed) > MAX_FINDINGS:
        more = len(malformed) - MAX_FINDINGS
        found.append(warning(f"{more:,} more heartbeats are malformed", ""))
    return found


def judge_instances(living: Iterable[str]) -> Finding:
    """Judge the instances that have a heartbeat."""
    if names := sorted(living):
        return ok(f"{len(names)} alive: {listed(names)}")
    return warning("no ingest instance is alive", "systemctl start tracker-ingest@1")


def judge_heartbeat(key: str, why: str, cli: str) -> Finding:
    """Return the finding on a malformed heartbeat.

    :param key: its name, as shown.
    """
    # A name that was escaped or cut cannot be given to redis-cli.
    whole = "\\" not in key and "…" not in key
    fix = f"{cli} DEL {shlex.quote(key)}  # and find out what writes it" if whole else ""
    return warning(f"{key} is malformed: {why}", fix)


async def names(traffic: Traffic) -> list[Finding]:
    """Check that processors with this environment read the streams that instances write."""
    living = await traffic.living()
    elsewhere = {
        stream
        for stream in await traffic.streams()
        if stream not in traffic.configured and _readers(await _group(traffic, stream))
    }
    return list(judge_names(living, traffic.configured, elsewhere))


def judge_names(
    living: Living, configured: Sequence[str], elsewhere: Iterable[str] = ()
) -> Iterator[Finding]:
    """Compare streams that are written with those that are read.

    :param elsewhere: those that a processor with another environment reads.
    """
    written = sorted((stream, name) for name, streams in living.items() for stream in streams)
    if not written:
        yield skipped("no living instance tells which streams it writes")
    if len(written) > MAX_STREAMS:
        written.sort(key=lambda pair: pair[0] in configured)  # streams without a reader first
        yield warning(f"{len(written) - MAX_STREAMS:,} more names of streams are not shown", "")
    for stream, name in written[:MAX_STREAMS]:
        if stream in configured:
            yield ok(f"{shown(stream)}: written by {shown(name)}, and read")
            continue
        reads = ", ".join(configured)
        aside = " (a processor elsewhere reads it)" if stream in elsewhere else ""
        value = shlex.quote(",".join((*configured, stream)))
        yield failure(
            f"{shown(name)} writes {shown(stream)}, "
            f"and processors with this environment read {reads}{aside}",
            f"REDIS_TELEMETRY_STREAM={value}  # in /etc/tracker/common.env, or ingest's is wrong",
        )


async def streams(traffic: Traffic) -> list[Finding]:
    """Check that the keys of the streams are streams, or missing."""
    found = []
    for stream in await traffic.streams():
        kind = (await traffic.server.redis.execute("TYPE", stream)).decode()
        entries = await traffic.server.redis.execute("XLEN", stream) if kind == "stream" else 0
        found.append(judge_stream(stream, kind, entries, traffic.server.cli))
    return found


def judge_stream(stream: str, kind: str, entries: int, cli: str) -> Finding:
    """Judge a key that should be a stream."""
    if kind == "none":
        return ok(f"{stream}: not there yet, the first position makes it")
    if kind == "stream":
        return ok(f"{stream}: {entries} entries")
    old, new = shlex.quote(stream), shlex.quote(f"{stream}:{kind}")
    return failure(
        f"{stream} is no stream but a {kind}: nothing can be appended",
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

    :param written: whether a living instance writes the stream.
    """
    if lag is None and not written:
        return skipped(f"{stream} is not there yet")
    group = None if lag is None else lag.group(PROCESSOR_GROUP)
    if group is None:
        return failure(f"{stream} has no group {PROCESSOR_GROUP}: nobody has ever read it", _START)
    if readers := _readers(group):
        return ok(f"{stream}: read by {', '.join(sorted(readers))}")
    if not group.consumers:
        return failure(f"{stream}: the group {PROCESSOR_GROUP} has no consumer", _START)
    latest = min(group.consumers, key=lambda one: one.idle)
    return failure(
        f"{stream}: no consumer has asked for {latest.idle:.0f} s, {latest.name} was the last",
        f"systemctl restart tracker-process@1  # on the machine of {shlex.quote(latest.name)}",
    )


async def lags(traffic: Traffic) -> list[Finding]:
    """Check that the processors are not far behind."""
    found = []
    for stream in await traffic.streams():
        if group := await _group(traffic, stream):
            found.append(judge_lag(stream, group))
    return found or [skipped(f"no stream has the group {PROCESSOR_GROUP}")]


def judge_lag(stream: str, group: GroupLag) -> Finding:
    """Judge the entries that a group has not finished."""
    waiting = "an unknown number of" if group.total is None else group.total
    seen = f"{stream}: {waiting} entries not processed, the oldest {group.oldest_age:.0f} s old"
    if group.oldest_age <= AGE_WARNING:
        return ok(seen)
    fix = f"tracker-admin lag --stream {shlex.quote(stream)}  # then journalctl -u tracker-process"
    return (warning if group.oldest_age <= AGE_FAILURE else failure)(seen, fix)


async def dead(traffic: Traffic) -> list[Finding]:
    """Check that there are no dead letters."""
    return [
        judge_dead(stream, await traffic.size(dead_letters(stream)))
        for stream in await traffic.streams()
    ]


def judge_dead(stream: str, count: int) -> Finding:
    """Judge the number of dead letters of a stream."""
    if not count:
        return ok(f"{stream}: none")
    if count < 0:
        return failure(
            f"{dead_letters(stream)} is not a stream: no dead letters can be appended", ""
        )
    fix = f"tracker-admin dead list --stream {shlex.quote(stream)}"
    return warning(f"{stream}: {count} entries could not be processed", fix)


async def _group(traffic: Traffic, stream: str) -> GroupLag | None:
    lag = await traffic.lag(stream)
    return None if lag is None else lag.group(PROCESSOR_GROUP)


def _readers(group: GroupLag | None) -> list[str]:
    """Return the consumers that are alive."""
    consumers = () if group is None else group.consumers
    return [one.name for one in consumers if one.idle <= ALIVE]
