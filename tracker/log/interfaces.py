"""Interfaces of the record log, which do not depend on its engine.

The methods raise :class:`~tracker.errors.Unavailable` if the log is down: the call may have
taken effect, and may be repeated. They raise :class:`~tracker.errors.Refused` if the log
refuses the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from tracker.log.allowance import Allowance
from tracker.log.entries import BEGINNING, StreamEntry
from tracker.position import Entry


class IRecordWriter(Interface):
    """Writer that appends entries to one stream."""

    stream: str = Attribute("The name of the stream.")
    connected: bool = Attribute("True while the log is connected.")
    connections: int = Attribute(
        "Number of connections so far. Until the reply to the first call on a connection, later "
        "calls may overtake that call."
    )

    def when_connected() -> Deferred[None]:
        """Wait until the log is connected.

        :return: fires when it is connected; may be cancelled. Fails with Unavailable if the
            connection is closed for good.
        """

    def append(entries: Iterable[Entry]) -> Deferred[int]:  # noqa: N805
        """Append all entries in their order, or none of them.

        :return: fires with their number when the log has confirmed them. Fails with Refused if
            none was appended, and with Unavailable if this is unknown.
        """


class IRecordReader(Interface):
    """One member of a consumer group, which reads any number of streams.

    The log delivers each entry to one member of the group. The entry is *unfinished* until it is
    acknowledged. It is delivered again to a member with the same name after a restart, or to
    another member that *claims* it. Every entry may therefore be processed twice.

    A member's loop::

        await reader.when_connected()
        await reader.join(stream)
        async for entries in reader.unfinished([stream]):
            ...  # process, then acknowledge them
        while True:
            async for entries in reader.claim_idle(stream, 60.0):
                ...
            entries = await reader.read(reader.allowance([stream]), wait=5.0)
            ...
    """

    def when_connected() -> Deferred[None]:
        """Wait until the log is connected.

        :return: fires when it is connected; may be cancelled. Fails with Unavailable if the
            connection is closed for good.
        """

    async def join(stream: str, after: str = BEGINNING) -> bool:  # noqa: N805
        """Create the group and the stream if they are missing. An existing group stays unchanged.

        :param after: the ID of the entry after which a new group starts. If the stream's last ID
            is smaller, the stream was replaced, and the group starts at the first entry.
        :return: True if the group was created.
        """

    def allowance(streams: Sequence[str]) -> Allowance:  # noqa: N805
        """Return the limits of one batch from these streams.

        Several reads may share them.
        """

    async def read(allowance: Allowance, wait: float = 0.0) -> list[StreamEntry]:  # noqa: N805
        """Read entries that were not yet delivered to the group.

        :param allowance: the streams, and the limits of the read.
        :param wait: seconds to wait if no entry is available. Only one call at a time may wait;
            other calls may be made meanwhile. If a waiting call is cancelled, its entries may have
            been delivered; they are then unfinished.
        """

    def unfinished(streams: Sequence[str]) -> AsyncIterator[list[StreamEntry]]:  # noqa: N805
        """Iterate over the entries that were delivered to this member and are not acknowledged.

        Yields non-empty batches, oldest entries first. Each entry occurs once, even if it is not
        acknowledged meanwhile. Deleted entries have no content.
        """

    def claim_idle(stream: str, idle: float) -> AsyncIterator[list[StreamEntry]]:  # noqa: N805
        """Claim entries that were delivered to any member at least ``idle`` seconds ago.

        Yields non-empty batches, oldest entries first. Deleted entries have no content. This
        member's own entries are claimed too, unless :meth:`keep` has reset their idle time.
        """

    async def keep(stream: str, entry_ids: Sequence[str]) -> None:  # noqa: N805
        """Reset the idle time of entries that this member still processes.

        Entries that another member has claimed meanwhile are claimed back.
        """

    async def acknowledge(stream: str, entry_ids: Sequence[str]) -> None:  # noqa: N805
        """Acknowledge entries, which the group has then finished."""

    async def dead_letter(entry: StreamEntry, reason: str) -> None:  # noqa: N805
        """Copy an entry unchanged to the dead letters of its stream, then acknowledge it.

        If the call fails between both steps, the entry is unfinished and may become a dead letter
        twice.

        :param reason: the reason why it cannot be processed.
        """

    async def oldest_unfinished(stream: str) -> str | None:  # noqa: N805
        """Return the ID of the oldest entry that the group has not acknowledged.

        The entry may not have been delivered yet. None: the group has finished the stream.
        """
