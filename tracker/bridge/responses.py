"""From ``commands:responses`` to the rows of commands.

A response is acknowledged to the stream when Directus has taken it, and not before. Those of one
command are told one after another, in their order; those of others beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredSemaphore,
    succeed,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tracker.bridge.backoff import Backoff
from tracker.bridge.rest import DirectusDenied, DirectusDown, DirectusRefused
from tracker.bridge.rows import fields_of
from tracker.bridge.table import CommandTable
from tracker.command import Response
from tracker.keys import DIRECTUS_GROUP, RESPONSES
from tracker.streams.connection import RedisConnection, Refused, Unavailable
from tracker.streams.groups import (
    Delivered,
    acknowledge,
    claim_idle,
    create_group,
    read_new,
    read_pending,
)

#: Milliseconds that a read waits for something to come.
BLOCK_MS: Final = 5000
#: Responses of one read.
BATCH: Final = 200
#: Commands whose rows are changed at once.
AT_ONCE: Final = 8
#: Seconds until Redis is asked again.
RETRY: Final = 1.0
#: Milliseconds after which what another bridge was given is taken over.
CLAIM_AFTER_MS: Final = 60_000


class ResponseWriter(Service):
    """Tells Directus what has become of commands.

    :param reading: a connection that only this service uses, since its reads block.
    :param name: this bridge's name in the group; the same after a restart.
    :param report: told None while that goes well, else why not.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        reading: RedisConnection,
        redis: RedisConnection,
        table: CommandTable,
        name: str,
        backoff: Callable[[], Backoff],
        report: Callable[[str | None], None],
    ) -> None:
        self._clock = clock
        self._reading = reading
        self._redis = redis
        self._table = table
        self._name = name
        self._backoff = backoff
        self._report = report
        self._turns = DeferredSemaphore(AT_ONCE)
        self._loop: Deferred[None] = succeed(None)
        self._interruptible: set[Deferred[Any]] = set()

    def startService(self) -> None:
        """Begin to read."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._run())
        self._loop.addErrback(lambda failure: self._log.failure("responses are stuck", failure))

    def stopService(self) -> Deferred[None]:
        """Read no more; what was not told stays pending."""
        super().stopService()
        for deferred in list(self._interruptible):
            deferred.cancel()
        return self._loop

    async def _run(self) -> None:
        while self.running:
            try:
                await self._consume()
            except CancelledError:
                return
            except (Refused, Unavailable) as error:
                self._report(f"responses cannot be read: {error}")
                try:
                    await self._or_stopped(deferLater(self._clock, RETRY))
                except CancelledError:
                    return

    async def _consume(self) -> None:
        await self._or_stopped(self._reading.when_connected())
        await self._or_stopped(self._redis.when_connected())
        await create_group(self._redis, RESPONSES, DIRECTUS_GROUP)
        self._report(None)
        after = {RESPONSES: "0"}
        group = (DIRECTUS_GROUP, self._name)
        while entries := await read_pending(self._redis, *group, after, BATCH):
            await self._tell(entries)
            after = {RESPONSES: entries[-1].id}
        while self.running:
            await self._tell(
                await claim_idle(self._redis, *group, RESPONSES, CLAIM_AFTER_MS, BATCH)
            )
            reading = Deferred.fromCoroutine(
                read_new(self._reading, *group, [RESPONSES], BATCH, BLOCK_MS)
            )
            await self._tell(await self._or_stopped(reading))

    async def _tell(self, entries: Sequence[Delivered]) -> None:
        """Tell Directus of all of these, and then the stream."""
        by_command: defaultdict[str, list[Delivered]] = defaultdict(list)
        done = []
        for entry in entries:
            command_id = entry.fields.get(b"command_id", b"").decode(errors="replace")
            if command_id and entry.content is not None:
                by_command[command_id].append(entry)
            else:  # deleted, or of what was no command
                done.append(entry.id)
        if done:
            await acknowledge(self._redis, DIRECTUS_GROUP, RESPONSES, done)
        told = [self._turns.run(self._tell_of, few) for few in by_command.values()]
        for success, result in await DeferredList(told, consumeErrors=True):
            if not success:
                failure: Any = result
                failure.raiseException()

    async def _tell_of(self, entries: Sequence[Delivered]) -> None:
        """Tell of one command, however long Directus takes."""
        for entry in entries:
            backoff = self._backoff()
            while True:
                if not self.running:
                    raise CancelledError()
                try:
                    await self._write(entry)
                    self._report(None)
                    break
                except (DirectusDown, DirectusDenied) as error:
                    self._report(f"Directus does not take responses: {error}")
                    delay = backoff.failed(getattr(error, "retry_after", None))
                    await self._or_stopped(deferLater(self._clock, delay))
            await acknowledge(self._redis, DIRECTUS_GROUP, RESPONSES, [entry.id])

    async def _write(self, entry: Delivered) -> None:
        try:
            response = Response.from_fields(entry.fields)
        except ValueError as error:
            self._log.warn("response {id} makes no sense: {error}", id=entry.id, error=error)
            return
        fields = fields_of(response.outcome, response.instance_id, response.at)
        try:
            changed = await self._table.change(response.command_id, fields)
        except DirectusRefused as error:
            # An id that is none of Directus', or a field that is gone: no later try would help.
            self._log.warn(
                "command {id}: Directus refuses {status}: {error}",
                id=response.command_id,
                status=fields["status"],
                error=error,
            )
            return
        if not changed:
            self._log.info(
                "command {id}: no row takes {status}: it is gone, or has ended before",
                id=response.command_id,
                status=fields["status"],
            )

    async def _or_stopped(self, deferred: Deferred[Any]) -> Any:
        self._interruptible.add(deferred)
        try:
            return await deferred
        finally:
            self._interruptible.discard(deferred)
