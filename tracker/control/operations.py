"""The commands of a control port, without the check of permissions."""

from __future__ import annotations

import heapq
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tracker import __version__
from tracker.command import (
    BadCommand,
    Command,
    Recorded,
    parse_time,
)
from tracker.commands.deadlines import GRACE_MS, end_expired
from tracker.commands.deviceregistry import connections, owners, vendors
from tracker.commands.ledger import CommandLedger, Effect
from tracker.commands.records import find_command, read_record, waiting_count
from tracker.control.commands import (
    FINAL_STATUS_GRACE,
    MAX_EXPIRY,
    MAX_NAME,
    MAX_RAW_BYTES,
    MAX_ROWS,
    MAX_TEXT,
    QUEUED,
    WAITING,
    BadArgument,
    ControlCommand,
    Lag,
    ListConnections,
    ListDeviceRegistry,
    NoSuchCommand,
    NoSuchDevice,
    RedisUnavailable,
    brief,
)
from tracker.control.statuses import queued_fields, recorded_fields, response_fields
from tracker.errors import Refused, Unavailable
from tracker.interfaces import ConnectionFacts, IInstance, Traffic
from tracker.log.redis.heartbeats import advertised_streams
from tracker.log.redis.lag import stream_lag
from tracker.observe.levels import LogLevels, check_namespace
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import shown
from tracker.vendors.installed import checked_device_id, installed_vendors

#: Default for the seconds until a command expires.
DEFAULT_EXPIRY: Final = 300.0
#: Seconds between two checks for the final status of a command.
POLL_INTERVAL: Final = 0.1
#: Seconds between two looks for expired commands, while a client waits for one.
LOOK_INTERVAL: Final = 1.0
#: Maximum of the seconds that a request for the status of a command waits for a final one.
MAX_STATUS_WAIT: Final = 60.0
#: Bytes of the rows of a page; AMP allows 65,535 for a value.
MAX_PAGE_BYTES: Final = 60_000
#: Characters of a stream's or a group's name that are sent.
MAX_STREAM_NAME: Final = 200
#: Characters of the reason for which a device's connection was closed.
_MAX_REASON: Final = 1000
#: Maximum of the seconds that a drain takes.
MAX_DRAIN_SECONDS: Final = 3600.0

T = TypeVar("T")


class Operations:
    """Carries out the commands of an instance's control port."""

    def __init__(
        self, clock: IReactorTime, instance: IInstance, redis: RedisConnection, levels: LogLevels
    ) -> None:
        self.watchers: Callable[[], int] = lambda: 0
        """Returns the number of clients that watch a device."""
        self._clock = clock
        self._instance = instance
        self._redis = redis
        self._levels = levels
        self._ledger = CommandLedger(clock, redis, instance.instance_id)
        self._next_look = 0.0  # for expired commands
        self._vendors = installed_vendors()

    def device_id(self, text: str) -> str:
        """Return a device ID that a client has given, in the form of the entries.

        :raises BadArgument: if no installed vendor has such IDs.
        """
        try:
            return checked_device_id(text, self._vendors)
        except ValueError as error:
            raise BadArgument(f"device_id: {error}") from None

    def info(self) -> dict[str, Any]:
        """See the command Info."""
        return {
            "instance_id": self._instance.instance_id,
            "version": __version__,
            "started_at": self._instance.started_at,
            "watchers": self.watchers(),
            "draining": self._instance.draining,
            "streams": list(self._instance.streams),
            **self._instance.counts(),
        }

    def list_connections(
        self, *, after: str | None, limit: int | None, prefix: str | None, vendor: str | None
    ) -> dict[str, Any]:
        """See the command ListConnections."""
        count = _limit(limit)
        beginning = (prefix or "").upper()
        wanted = (
            device_id
            for device_id in self._instance.devices(vendor)
            if device_id > (after or "") and device_id.startswith(beginning)
        )
        first = heapq.nsmallest(count + 1, wanted)
        facts = filter(None, map(self._instance.connection, first[:count]))
        rows = list(map(_connection, facts))
        return _page(ListConnections, "connections", rows, len(first) > count)

    async def list_device_registry(
        self,
        *,
        after: str | None,
        limit: int | None,
        prefix: str | None,
        vendor: str | None,
        instance_id: str | None,
    ) -> dict[str, Any]:
        """See the command ListDeviceRegistry."""
        count = _limit(limit)

        def wanted(device_id: str, owner: str) -> bool:
            return (
                device_id > (after or "")
                and device_id.startswith((prefix or "").upper())
                and instance_id in (None, owner)
                # Longer ones are not device IDs; another program has written them.
                and len(device_id) <= MAX_NAME
            )

        first = await self._from_redis(self._smallest(count + 1, wanted, vendor))
        devices = sorted(first)[:count]
        found = await self._from_redis(vendors(self._redis, devices))
        rows = [
            {
                "device_id": device_id,
                "instance_id": brief(first[device_id], MAX_NAME),
                "vendor": its and brief(its, MAX_NAME),
            }
            for device_id, its in zip(devices, found, strict=True)
        ]
        return _page(ListDeviceRegistry, "devices", rows, len(first) > count)

    async def _smallest(
        self, count: int, wanted: Callable[[str, str], bool], vendor: str | None
    ) -> dict[str, str]:
        """Return device ID → instance ID, of the devices with the smallest IDs.

        The hash is not sorted, so each page requires a scan of all of it; only about twice
        ``count`` devices are kept in memory.
        """
        found: dict[str, str] = {}
        async for page in connections(self._redis):
            new = {device_id: its for device_id, its in page.items() if wanted(device_id, its)}
            if vendor is not None:
                known = await vendors(self._redis, list(new))
                new = {
                    device_id: its
                    for (device_id, its), one in zip(new.items(), known, strict=True)
                    if one == vendor
                }
            found |= new
            if len(found) > 2 * count:
                found = {one: found[one] for one in heapq.nsmallest(count, found)}
        return {one: found[one] for one in heapq.nsmallest(count, found)}

    async def get_device(self, device_id: str) -> dict[str, Any]:
        """See the command GetDevice."""
        device_id = self.device_id(device_id)
        here = self._instance.connection(device_id)
        (registered,) = await self._from_redis(owners(self._redis, [device_id]))
        waiting = await self._from_redis(waiting_count(self._redis, device_id))
        instance_id = self._instance.instance_id if here else registered
        if instance_id is None and not waiting:
            name = brief(device_id, MAX_NAME)
            raise NoSuchDevice(f"{name} is not connected, and no command waits for it")
        reply: dict[str, Any] = {
            "device_id": device_id,
            "instance_id": instance_id and brief(instance_id, MAX_NAME),
            "here": here is not None,
            "waiting": waiting,
        }
        if here is not None:
            queued, outstanding = self._instance.commands(device_id)
            reply |= _connection(here) | {"queued": queued, "outstanding": outstanding}
        return reply

    async def send_command(
        self, *, offline: str | None, wait: bool | None, **facts: Any
    ) -> dict[str, Any]:
        """See the command SendCommand.

        :param facts: see :meth:`_command`.
        """
        command = self._command(**facts)
        if command.codec:
            await self._check_codec(command)
        if offline not in (None, "wait", "fail"):
            raise BadArgument("offline must be wait or fail")
        effect, instance_id = await self._from_redis(
            self._ledger.submit(command, offline != "fail")
        )
        if wait:
            return await self._wait_for_final_status(command)
        if effect in (Effect.FINISHED, Effect.KNOWN):
            return await self._status(command.command_id, command.device_id)
        status = QUEUED if effect is Effect.MOVED else WAITING
        return {
            "command_id": command.command_id,
            "instance_id": instance_id or None,
            "status": status,
            "expires_at": iso_milliseconds(command.expires_at),
        }

    async def command_status(
        self, command_id: str, device_id: str | None, seconds: float | None = None
    ) -> dict[str, Any]:
        """See the command CommandStatus."""
        if device_id is not None:
            device_id = self.device_id(device_id)
        status = await self._status(command_id, device_id)
        if not seconds or not seconds > 0:
            return status
        deadline = self._clock.seconds() + min(seconds, MAX_STATUS_WAIT)
        while self._clock.seconds() < deadline and not await self._has_ended(command_id):
            if status.get("expires_at"):
                await self._end_expired(parse_time(status["expires_at"]))
            await deferLater(self._clock, POLL_INTERVAL)
        return await self._status(command_id, device_id)

    async def _status(self, command_id: str, device_id: str | None) -> dict[str, Any]:
        if recorded := await self._recorded_status(command_id):
            return recorded
        held = self._instance.held_command(command_id)
        if held is not None:
            return {
                "command_id": command_id,
                "instance_id": self._instance.instance_id,
                "status": QUEUED,
                "expires_at": iso_milliseconds(held.expires_at),
                **recorded_fields(Recorded.of(held)),
            }
        if device_id is not None:
            found = await self._from_redis(find_command(self._redis, command_id, device_id))
            if found is not None:
                return queued_fields(command_id, *found)
        # The command may have been claimed between these checks.
        if recorded := await self._recorded_status(command_id):
            return recorded
        raise NoSuchCommand(
            "unknown command ID: it was never sent, ended long ago, or is still queued elsewhere; "
            "give its device to search there"
        )

    async def _recorded_status(self, command_id: str) -> dict[str, Any] | None:
        """Return the status of a command that has a record; None without a record."""
        record = await self._from_redis(read_record(self._redis, command_id))
        if record is None:
            return None
        if record.response is not None:
            return response_fields(command_id, record.response)
        return {
            "command_id": command_id,
            "instance_id": brief(record.instance_id, MAX_NAME) or None,
            "status": record.phase,
        }

    def drop_connection(self, device_id: str) -> dict[str, Any]:
        """See the command DropConnection."""
        device_id = self.device_id(device_id)
        address = self._instance.drop(device_id)
        if address is None:
            raise NoSuchDevice(f"{brief(device_id, MAX_NAME)} is not connected to this instance")
        return {"address": address}

    async def lag(
        self, streams: list[str] | None, skip: int | None, limit: int | None
    ) -> dict[str, Any]:
        """See the command Lag."""
        count, skipped = _limit(limit), skip or 0
        if skipped < 0:
            raise BadArgument("skip must not be negative")
        if streams is not None and len(streams) > MAX_ROWS:
            raise BadArgument(f"at most {MAX_ROWS} streams can be requested at a time")
        names = streams or {
            *self._instance.streams,
            *await self._from_redis(advertised_streams(self._redis)),
        }
        rows: list[dict[str, Any]] = []
        for name in sorted(set(names)):
            rows += await self._lag_rows(name, named=bool(streams))
            if len(rows) > skipped + count:
                break
        page = rows[skipped : skipped + count]
        return _page(Lag, "groups", page, len(rows) > skipped + count)

    async def _lag_rows(self, stream: str, named: bool) -> list[dict[str, Any]]:
        """Return a row for each group of a stream.

        A stream without groups has one row; a missing stream has none.

        :param named: True if the client has named the stream: a key of another type is an error.
        """
        try:
            found = await self._from_redis(stream_lag(self._redis, stream))
        except RedisUnavailable as error:
            if not is_wrong_type(error):
                raise
            if named:
                raise BadArgument(f"{shown(stream, MAX_NAME)} is not a stream") from None
            return []
        if found is None:
            return []
        about = {"stream": shown(stream, MAX_STREAM_NAME), "entries": found.entries}
        return [
            about
            | {
                "group": brief(group.name, MAX_STREAM_NAME),
                "lag": group.undelivered,
                "pending": group.pending,
                "oldest_unprocessed_age": group.oldest_age,
                "consumers": group.consumer_count,
            }
            for group in sorted(found.groups, key=lambda group: group.name)
        ] or [about]

    def set_log_level(self, level: str, namespace: str | None) -> dict[str, Any]:
        """See the command SetLogLevel."""
        try:
            if namespace:
                check_namespace(namespace, sys.modules)
            return {"before": self._levels.set(level, namespace or "")}
        except ValueError as error:
            raise BadArgument(str(error)) from None

    async def drain(self, seconds: float) -> dict[str, Any]:
        """See the command Drain."""
        if not 0 <= seconds <= MAX_DRAIN_SECONDS:
            raise BadArgument(f"seconds must be between 0 and {MAX_DRAIN_SECONDS:g}")
        closed, left = await self._instance.drain(seconds)
        return {"closed": closed, "left": left}

    def _command(
        self,
        *,
        device_id: str,
        text: str | None,
        payload_hex: str | None,
        command_id: str | None,
        codec: str | None,
        expires_at: str | None,
        expires_in: float | None,
        timeout: float | None,
        sender: str,
    ) -> Command:
        if text is None and payload_hex is None:
            raise BadArgument("text is missing")
        if expires_at is not None and expires_in is not None:
            raise BadArgument("give either expires_at or expires_in, not both")
        if expires_at is None:
            seconds = DEFAULT_EXPIRY if expires_in is None else expires_in
            if not 0 < seconds <= MAX_EXPIRY:
                raise BadArgument(
                    f"expires_in must be more than 0 and at most {MAX_EXPIRY:.0f} seconds"
                )
            expires_at = iso_milliseconds(self._ledger.now + int(seconds * 1000))
        try:
            return Command.checked(
                command_id=command_id or str(uuid4()),
                device_id=self.device_id(device_id),
                text=text or "",
                expires_at=expires_at,
                codec=codec or "",
                timeout="" if timeout is None else repr(timeout),
                payload_hex=payload_hex or "",
                sender=sender,
                sent_at=iso_milliseconds(self._ledger.now),
            )
        except BadCommand as error:
            raise BadArgument(str(error)) from None

    async def _check_codec(self, command: Command) -> None:
        """Check that the device's vendor, if it is known, has the codec of a command."""
        (name,) = await self._from_redis(vendors(self._redis, [command.device_id]))
        if name in self._vendors and command.codec not in (
            codecs := self._vendors[name].command_codecs
        ):
            choices = f"must be {' or '.join(codecs)}" if codecs else "must be empty"
            given = f"not {command.codec!r}, for a device of vendor {name}"
            raise BadArgument(f"codec: {choices}, {given}")

    async def _wait_for_final_status(self, command: Command) -> dict[str, Any]:
        """Return the status of a command when it is final, or when it is overdue."""
        deadline = command.expires_at + (command.timeout + FINAL_STATUS_GRACE) * 1000
        while self._ledger.now <= deadline and not await self._has_ended(command.command_id):
            await self._end_expired(command.expires_at)
            await deferLater(self._clock, POLL_INTERVAL)
        return await self._status(command.command_id, command.device_id)

    async def _end_expired(self, expires_at: int) -> None:
        """End expired commands if one that a client waits for expires at this time.

        A janitor does so, too, but a client must not depend on one.
        """
        now = self._clock.seconds()
        if self._ledger.now < expires_at + GRACE_MS or now < self._next_look:
            return
        self._next_look = now + LOOK_INTERVAL
        with suppress(Refused, Unavailable):
            await end_expired(self._redis, self._ledger)

    async def _has_ended(self, command_id: str) -> bool:
        try:
            record = await read_record(self._redis, command_id)
        except (Refused, Unavailable):
            return False  # keep waiting: the client may not know the command ID
        return record is not None and record.final

    async def _from_redis(self, result: Awaitable[T]) -> T:
        try:
            return await result
        except (Refused, Unavailable) as error:
            raise RedisUnavailable(f"Redis: {error}") from None


def event_arguments(
    instance: IInstance, device_id: str, kind: Traffic, data: bytes
) -> dict[str, Any]:
    """Return the arguments of an Event, except for ``at`` and ``dropped``."""
    arguments: dict[str, Any] = {"device_id": device_id, "kind": kind.value, "truncated": False}
    if kind not in (Traffic.RECEIVED, Traffic.SENT):
        text = brief(data.decode(errors="replace"), _MAX_REASON)
        return arguments | {"decoded": json.dumps({"text": text})}
    described = instance.describe(device_id, data, kind)
    decoded = _shorten_description(described)
    return arguments | {
        "raw": data[:MAX_RAW_BYTES].hex(),
        "decoded": json.dumps(decoded),
        "truncated": len(data) > MAX_RAW_BYTES or decoded is not described,
    }


def _shorten_description(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a description, with fewer records if it is too long."""
    while len(json.dumps(described)) > 4 * MAX_TEXT:
        records = described.get("records")
        if not isinstance(records, list) or len(records) < 2:
            return {"left_out": "too long to be shown; see the raw bytes"}
        described = {**described, "records": records[: len(records) // 2]}
    return described


def _page(
    command: type[ControlCommand], name: str, rows: Iterable[dict[str, Any]], more: bool
) -> dict[str, Any]:
    """Return a reply with as many of the rows as one value can hold.

    :param more: True if further rows follow these.
    """
    kind = next(argument for key, argument in command.response if key.decode() == name)
    page: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        size += len(kind.toStringProto([row], None))
        if page and size > MAX_PAGE_BYTES:
            return {name: page, "more": True}
        page.append(row)
    return {name: page, "more": more}


def _limit(limit: int | None) -> int:
    if limit is None:
        return MAX_ROWS
    if not 1 <= limit <= MAX_ROWS:
        raise BadArgument(f"limit must be between 1 and {MAX_ROWS}")
    return limit


def _connection(facts: ConnectionFacts) -> dict[str, Any]:
    figures = facts.figures
    return {
        "device_id": facts.device_id,
        "vendor": facts.vendor,
        "address": brief(facts.address, MAX_NAME),
        "since": figures.since,
        "last_heard": figures.last_heard,
        "codec": figures.codec or None,
        "records": figures.records,
        "bytes": figures.bytes,
    }
