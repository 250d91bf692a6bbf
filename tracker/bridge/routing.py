"""Send the command of a row to an instance, and write into the row what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from tracker.bridge.instances import Instances
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.pending import Row
from tracker.bridge.rows import WAITING, command_in, fields_of, malformed, too_late
from tracker.bridge.schema import ROUTED
from tracker.bridge.table import CommandTable
from tracker.command import BadCommand, Command, Status, StatusUpdate
from tracker.control.commands import BadArgument
from tracker.position import iso_milliseconds


class Router:
    """Sends the commands of rows, one at a time."""

    def __init__(
        self,
        clock: IReactorTime,
        table: CommandTable,
        instances: Instances,
        metrics: BridgeMetrics,
    ) -> None:
        self._clock = clock
        self._table = table
        self._instances = instances
        self._metrics = metrics

    async def send(self, row: Row) -> bool:
        """Send the command of a pending row, or end it if it cannot be sent.

        :return: whether the row was changed, and so is no longer pending.
        :raises NoInstance: if no instance takes commands now.
        :raises ControlError: if the instances have failed with this command.
        :raises DirectusError: if the row could not be changed.
        """
        try:
            command = command_in(row)
        except BadCommand as error:
            return await self._end(row["id"], malformed(error))
        if self._now >= command.expires_at:
            return await self._expire(command)
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
            return await self._end(row["id"], malformed(error))
        return await self._write(command, answer)

    async def _expire(self, command: Command) -> bool:
        """End an expired command, unless an earlier attempt sent it without reporting that.

        A command that no instance has begun with by now will not be sent: it is expired, wherever
        it may be queued.
        """
        record = await self._table.record(command.command_id)
        if record is None:
            return await self._end(command.command_id, too_late(command))
        if record.response is None:
            answer = {"status": record.phase, "instance_id": record.instance_id}
            return await self._write(command, answer)
        update = record.response.update
        return await self._write(
            command,
            {
                "status": update.status,
                "reason": update.reason,
                "response": update.response,
                "instance_id": record.response.instance_id,
            },
        )

    async def _write(self, command: Command, answer: Mapping[str, Any]) -> bool:
        """Write an instance's answer into the row."""
        status = answer["status"]
        at = iso_milliseconds(self._now)
        if status in set(Status) - {Status.DELIVERED}:
            # It was sent before, and has ended; as a rule, its response is written by itself, too.
            result = "ended"
            ended = StatusUpdate(Status(status), answer["reason"] or "", answer["response"] or "")
            fields = fields_of(ended, answer["instance_id"] or "", at)
        else:
            result = "waiting" if status == WAITING else "routed"
            fields = {
                "status": ROUTED,
                "instance": answer["instance_id"],
                "reason": WAITING if status == WAITING else None,
                "routed_at": at,
            }
        self._metrics.commands.labels(result).inc()
        return await self._table.change(command.command_id, fields)

    async def _end(self, key: str, update: StatusUpdate) -> bool:
        self._metrics.commands.labels("ended").inc()
        return await self._table.change(key, fields_of(update, "", iso_milliseconds(self._now)))

    @property
    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
