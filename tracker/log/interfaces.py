"""The record log as its users see it, whatever engine keeps it.

The methods raise :class:`~tracker.errors.Unavailable` if the log cannot be asked: then the
outcome of the call is unknown, and it may be repeated. They raise
:class:`~tracker.errors.Refused` if the log refuses the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from tracker.log.allowance import Allowance
from tracker.log.entries import BEGINNING, Delivered
from tracker.position import Entry


class IRecordWriter(Interface):
    """Appends entries to one stream."""

    stream: str = Attribute("The name of the stream.")
    connected: bool = Attribute("True while the log can be asked.")
    connections: int = Attribute(
        "Number of connections so far. Until the first call on a connection is answered, calls "
        "that are made after it may overtake it."
    )

    def when_connected() -> Deferred[None]:
        """Wait until the log can be asked.

        :return: may be cancelled. Fails with Unavailable if the connection is closed for good.
        """

    def append(entries: Iterable[Entry]) -> Deferred[int]:  # noqa: N805
        """Append entries in their order, all of them or none.

        :return: fires with their number once they are as durable as the log makes them. Fails with
            Refused if none was appended, and with Unavailable if that is unknown.
        """


class IRecordReader(Interface):
    """One member of a consumer group, which reads any number of streams.

    The log delivers each entry to one member of the group. The entry is *unfinished* until it is
    acknowledged, and delivered again to a member that has the same name after a restart, or to
    another one that finds it *overdue*. So every entry may be processed twice.

    A member's loop::

        await reader.when_connected()
        await reader.join(stream)
        async for entries in reader.unfinished([stream]):
            ...  # process, then acknowledge them
        while True:
            async for entries in reader.overdue(stream, 60.0):
                ...
            entries = await reader.read(reader.allowance([stream]), wait=5.0)
            ...
    """

    def when_connected() -> Deferred[None]:
        """Wait until the log can be asked.

        :return: may be cancelled. Fails with Unavailable if the connection is closed for good.
        """

    async def join(stream: str, after: str = BEGINNING) -> bool:  # noqa: N805
        """Create the group, and the stream, if missing. A group that exists is left as it is.

        :param after: the ID of the entry after which a new group begins. It begins at the first
            entry if the stream does not reach that far, as then it is another stream.
        :return: True if the group was created.
        """

    def allowance(streams: Sequence[str]) -> Allowance:  # noqa: N805
        """Return the bounds of one batch from these streams.

        It may be passed to several reads, which use it up together.
        """

    async def read(allowance: Allowance, wait: float = 0.0) -> list[Delivered]:  # noqa: N805
        """Read entries that were not delivered to the group before.

        :param allowance: names the streams, with bounds.
        :param wait: seconds to wait for an entry if there is none. One call at a time may wait,
            and others may be made meanwhile. The entries of a call that is cancelled may have
            been delivered: they are unfinished.
        """

    def unfinished(streams: Sequence[str]) -> AsyncIterator[list[Delivered]]:  # noqa: N805
        """Iterate over the entries that were delivered to this member and are not acknowledged.

        Yields batches that are not empty, oldest entries first. Each entry occurs once, whether it
        is acknowledged meanwhile or not. Entries that were deleted have no content.
        """

    def overdue(stream: str, idle: float) -> AsyncIterator[list[Delivered]]:  # noqa: N805
        """Take over entries that any member has had for ``idle`` seconds without finishing them.

        Yields batches that are not empty, oldest entries first. Entries that were deleted have no
        content. Entries of this very member are included: see :meth:`busy`.
        """

    async def busy(stream: str, entry_ids: Sequence[str]) -> None:  # noqa: N805
        """Keep entries from becoming overdue: this member is still at work on them.

        Those that another member has taken over meanwhile are taken back.
        """

    async def acknowledge(stream: str, entry_ids: Sequence[str]) -> None:  # noqa: N805
        """Mark entries as finished by the group."""

    async def dead_letter(entry: Delivered, reason: str) -> None:  # noqa: N805
        """Copy an entry whole to the dead letters of its stream, then acknowledge it.

        If it fails in between, the entry is unfinished and may become a dead letter twice.

        :param reason: why it cannot be processed.
        """

    async def oldest_unfinished(stream: str) -> str | None:  # noqa: N805
        """Return the ID of the oldest entry that no member of the group has acknowledged.

        It may not have been delivered yet. None: the group has finished the stream.
        """
