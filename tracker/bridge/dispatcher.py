"""From a row in Directus to an instance that has its command.

A row is pending until an instance has taken its command. Whoever tells of one, a webhook or a
look at all that are pending, only names it: what is sent is what stands in the row. To send one
twice does no harm, since its id is the command's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tracker.bridge.instances import Instances, NoInstance
from tracker.bridge.rest import DirectusClient, DirectusDenied, DirectusDown, DirectusRefused
from tracker.bridge.rows import (
    COMMAND_FIELDS,
    WAITING,
    command_in,
    fields_of,
)
from tracker.bridge.schema import COMMANDS, PENDING, ROUTED
from tracker.bridge.table import CommandTable
from tracker.command import EXPIRED, BadCommand, Command, Outcome, Reason, Status
from tracker.control.commands import BadArgument, ControlError, NotPermitted
from tracker.position import iso_milliseconds

#: Seconds between two looks at what is pending.
INTERVAL: Final = 10.0
#: Rows of a page of those.
PAGE: Final = 100
#: Commands that are being sent at once.
AT_ONCE: Final = 8
#: Commands that may wait to be sent; of the others, a later look tells.
MOST_QUEUED: Final = 2000


class Dispatcher(Service):
    """Sends the commands of pending rows.

    :param report: told None while that goes well, else why not.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        directus: DirectusClient,
        table: CommandTable,
        instances: Instances,
        report: Callable[[str | None], None],
        interval: float = INTERVAL,
    ) -> None:
        self._clock = clock
        self._directus = directus
        self._table = table
        self._instances = instances
        self._report = report
        self._interval = interval
        self._turns = DeferredSemaphore(AT_ONCE)
        self._under_way: dict[str, Deferred[Any]] = {}
        self._again: set[str] = set()
        self._looking = LoopingCall(lambda: Deferred.fromCoroutine(self._look()))
        self._looking.clock = clock
        self._looked: Deferred[Any] | None = None

    def startService(self) -> None:
        """Look at what is pending, now and every so often."""
        super().startService()
        self._looked = self._looking.start(self._interval)

    def stopService(self) -> Deferred[None]:
        """Begin with no more; fires when what is being sent is sent, or could not be."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        if self._looked is not None:
            await self._looked
        for deferred in list(self._under_way.values()):
            await deferred

    def announce(self, key: str) -> bool:
        """A row may be new; whether it will be looked at soon."""
        if not self.running or len(self._under_way) >= MOST_QUEUED:
            return False
        if key in self._under_way:
            self._again.add(key)
        else:
            self._start(key, None)
        return True

    def _start(self, key: str, row: Mapping[str, Any] | None) -> None:
        sent = self._turns.run(self._send, key, row)
        self._under_way[key] = sent

        def done(_: Any) -> None:
            self._under_way.pop(key, None)
            if key in self._again:
                self._again.discard(key)
                self.announce(key)

        sent.addErrback(lambda failure: self._log.failure("a command is not sent", failure))
        sent.addCallback(done)

    async def _look(self) -> None:
        """Have all pending rows sent, the newest first: they are waited for most."""
        before: str | None = None  # what is left was made at this time or before
        seen: set[str] = set()
        try:
            while self.running:
                rows = await self._directus.get_items(
                    COMMANDS,
                    filter=_pending(before, seen),
                    fields=COMMAND_FIELDS,
                    sort=["-date_created", "-id"],
                    limit=PAGE,
                )
                for row in rows:
                    if row["id"] not in self._under_way and len(self._under_way) < MOST_QUEUED:
                        self._start(row["id"], row)
                if before is None and not rows:
                    self._report(None)  # else those that are sent tell
                if len(rows) < PAGE or rows[-1].get("date_created") is None:
                    break
                if before != rows[-1]["date_created"]:
                    before, seen = rows[-1]["date_created"], set()
                seen |= {row["id"] for row in rows if row["date_created"] == before}
        except (DirectusDown, DirectusDenied, DirectusRefused) as error:
            self._report(f"pending commands cannot be read: {error}")
        except Exception:  # noqa: BLE001 - else there would never be another look
            self._log.failure("a look at what is pending has failed")

    async def _send(self, key: str, row: Mapping[str, Any] | None) -> None:
        if not self.running:
            return
        try:
            if row is None:
                found = await self._directus.get_items(
                    COMMANDS,
                    filter={"id": {"_eq": key}, "status": {"_eq": PENDING}},
                    fields=COMMAND_FIELDS,
                    limit=1,
                )
                if not found:
                    return  # it is no longer pending, or never was there
                row = found[0]
            await self._send_row(row)
            self._report(None)
        except (DirectusDown, DirectusDenied) as error:
            self._report(f"Directus: {error}")
        except DirectusRefused as error:
            self._log.warn("row {key} of {collection}: {error}", key=key, collection=COMMANDS,
                           error=error)  # fmt: skip
        except NoInstance as error:
            self._report(f"commands are not sent: {error}")
        except NotPermitted as error:
            self._report(f"commands are not sent: the bridge's role at the control port: {error}")
        except ControlError as error:
            self._report(f"commands are not sent: {error}")

    async def _send_row(self, row: Mapping[str, Any]) -> None:
        try:
            command = command_in(row)
        except BadCommand as error:
            await self._end(row["id"], Outcome.failed(Reason.MALFORMED, str(error)))
            return
        if self._now >= command.expires_at:
            await self._end(row["id"], EXPIRED)
            return
        try:
            answer = await self._instances.send_command(
                command.device_id,
                command.text,
                command_id=command.command_id,
                codec=command.codec,
                expires_at=iso_milliseconds(command.expires_at),
                timeout=command.timeout,
            )
        except BadArgument as error:
            await self._end(row["id"], Outcome.failed(Reason.MALFORMED, str(error)))
            return
        await self._routed(command, answer)

    async def _routed(self, command: Command, answer: Mapping[str, Any]) -> None:
        status = answer["status"]
        at = iso_milliseconds(self._now)
        if status in set(Status) - {Status.DELIVERED}:
            # It was sent before, and has ended: what comes back tells it, too, as a rule.
            outcome = Outcome(Status(status), answer["reason"] or "", answer["response"] or "")
            await self._set(command.command_id, fields_of(outcome, answer["instance_id"] or "", at))
            return
        fields = {
            "status": ROUTED,
            "instance": answer["instance_id"],
            "reason": WAITING if status == WAITING else None,
            "routed_at": at,
        }
        await self._set(command.command_id, fields)

    async def _end(self, key: str, outcome: Outcome) -> None:
        await self._set(key, fields_of(outcome, "", iso_milliseconds(self._now)))

    async def _set(self, key: str, fields: dict[str, Any]) -> None:
        await self._table.change(key, fields)

    @property
    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _pending(before: str | None, seen: set[str]) -> dict[str, Any]:
    """Those that are pending, behind a page whose last ones were made at ``before``.

    Directus compares no ids, so those of that moment are named.
    """
    pending = {"status": {"_eq": PENDING}}
    if before is None:
        return pending
    older = {"date_created": {"_lte": before}}
    return {"_and": [pending, older, {"id": {"_nin": sorted(seen)}}]}
