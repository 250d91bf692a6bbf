"""Send the command of a row to an instance, and write its status into the row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from tracker.bridge.instances import Instances
from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.pending import Row
from tracker.bridge.rows import (
    SENDER,
    WAITING,
    command_from_row,
    expired_unsent,
    fields_of,
    malformed,
)
from tracker.bridge.schema import ROUTED
from tracker.bridge.table import CommandTable
from tracker.command import BadCommand, Command, Status, StatusUpdate
from tracker.control.commands import BadArgument
from tracker.position import iso_milliseconds


class Router:
    """A sender of single commands, which also writes their status into the rows."""

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
        """Send the command of a pending row, or write a final status if it cannot be sent.

        :return: True if the row was changed, and is therefore no longer pending.
        :raises NoInstance: if no instance accepts commands now.
        :raises ControlError: if all instances have failed with this command.
        :raises DirectusError: if the row could not be changed.
        """
        try:
            command = command_from_row(row)
        except BadCommand as error:
            return await self._finish(row["id"], malformed(error))
        if self._now >= command.expires_at:
            return await self._expire(command)
        try:
            reply = await self._instances.send_command(
                command.device_id,
                command.raw or command.text,
                command_id=command.command_id,
                codec=command.codec,
                expires_at=iso_milliseconds(command.expires_at),
                timeout=command.timeout,
                sender=SENDER,
            )
        except BadArgument as error:
            return await self._finish(row["id"], malformed(error))
        return await self._write(command, reply)

    async def _expire(self, command: Command) -> bool:
        """Mark a command as expired, unless an earlier attempt has already sent it.

        Without a record in Redis, no instance has started to send the command. None will do so
        later, even if it is queued somewhere, because it has expired.
        """
        record = await self._table.record(command.command_id)
        if record is None:
            return await self._finish(command.command_id, expired_unsent(command))
        if record.response is None:
            reply = {"status": record.phase, "instance_id": record.instance_id}
            return await self._write(command, reply)
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

    async def _write(self, command: Command, reply: Mapping[str, Any]) -> bool:
        """Write the reply of an instance into the row."""
        status = reply["status"]
        at = iso_milliseconds(self._now)
        if status in set(Status) - {Status.DELIVERED}:
            # An earlier attempt has sent the command, and its status is final.
            result = "ended"
            update = StatusUpdate(Status(status), reply["reason"] or "", reply["response"] or "")
            fields = fields_of(update, reply["instance_id"] or "", at)
        else:
            result = "waiting" if status == WAITING else "routed"
            fields = {
                "status": ROUTED,
                "instance": reply["instance_id"],
                "reason": WAITING if status == WAITING else None,
                "routed_at": at,
            }
        self._metrics.commands.labels(result).inc()
        return await self._table.change(command.command_id, fields)

    async def _finish(self, key: str, update: StatusUpdate) -> bool:
        self._metrics.commands.labels("ended").inc()
        return await self._table.change(key, fields_of(update, "", iso_milliseconds(self._now)))

    @property
    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
