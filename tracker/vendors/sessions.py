"""The devices of a datagram port that take commands, and where they were last heard.

A datagram has no connection, so a device has a *session* instead: from a datagram whose entries
were appended, or that was answered, until the device was silent for the idle timeout. Commands are
sent to the address of its last such datagram, and an answer counts only from where the command was
sent to.

Any sender can forge such a datagram, if it knows the ID of a served device. Commands are then sent
to the forged address, with the password that they contain, until the device itself is heard again;
who receives them can answer them; and a connection of the device is closed, as by a login.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from tracker.command import Answer, CommandFrame
from tracker.interfaces import (
    Admission,
    ConnectionEnded,
    ConnectionFigures,
    IConnection,
    IGateway,
    Observer,
    Traffic,
)
from tracker.position import Entry
from tracker.vendors.budget import Source
from tracker.vendors.commandslot import CommandSlot
from tracker.vendors.dialect import DatagramDialect

#: Maximum number of sessions of a port; the device that was silent for the longest time loses its.
MAX_SESSIONS: Final = 50_000


@implementer(IConnection)
class DatagramSession:
    """The session of a device. Its gateway handles it like a connection.

    :param send: sends a datagram to an address.
    :param ended: called once, when the session ends.
    """

    may_stay = False

    def __init__(
        self,
        device_id: str,
        gateway: IGateway,
        clock: IReactorTime,
        *,
        dialect: DatagramDialect,
        send: Callable[[bytes, Source], None],
        ended: Callable[[DatagramSession], None],
    ) -> None:
        self.device_id: str | None = device_id
        self.device_ids = (device_id,)
        self.peer = self.host = ""
        self.source: Source = ("", 0)
        self.commanded: Source | None = None
        """The address that the last command was sent to."""
        self.observer: Observer | None = None
        self.last_heard = self._since = clock.seconds()
        self._gateway = gateway
        self._clock = clock
        self._dialect = dialect
        self._send = send
        self._ended = ended
        self._slot = CommandSlot(clock)
        self._open = True
        self._codec = ""
        self._records = self._bytes = 0

    def heard(self, source: Source, size: int, entries: Sequence[Entry]) -> None:
        """Note a datagram, and let a command be written."""
        self.source, self.host = source, source[0]
        self.peer = f"udp {source[0]}:{source[1]}"
        self.last_heard = self._clock.seconds()
        self._bytes += size
        self._records += len(entries)
        if entries:
            self._codec = entries[0].codec
        self._slot.offer(self.last_heard)

    def close(self) -> None:
        """See :class:`tracker.interfaces.IConnection`."""
        if self._open:
            self._open = False
            self._ended(self)
            self._slot.end()
            self._gateway.closed(self)

    def is_alive(self) -> bool:
        """See IConnection."""
        return self._open

    def serve(self, device_id: str) -> None:
        """See IConnection; not called, as a device that is not served has no session."""

    def withdraw(self, device_id: str) -> bool:
        """See IConnection."""
        self.close()
        return False

    def log_out(self, device_id: str) -> None:
        """See IConnection."""
        self.close()

    def retire(self) -> None:
        """See IConnection."""
        self.close()

    def figures(self) -> ConnectionFigures:
        """See IConnection."""
        return ConnectionFigures(
            self._since, self.last_heard, self._codec, self._records, self._bytes
        )

    def observe(self, observer: Observer | None) -> None:
        """See IConnection."""
        self.observer = observer

    def command_frame(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """See IConnection."""
        return self._dialect.command(device_id, content, codec)

    def when_free(self, silence_limit: float = 0) -> Deferred[None]:
        """See IConnection; a session is free unless the device may not listen."""
        if not self._open:
            return fail(ConnectionEnded())
        waiter = self._slot.wait(silence_limit, lambda: None)
        self._slot.offer(self.last_heard)
        return waiter

    def write_command(self, data: bytes, shown: bytes | None = None) -> None:
        """See IConnection; one datagram, to the address where the device was last heard."""
        self.notify(Traffic.SENT, data if shown is None else shown)
        self.commanded = self.source
        self._send(data, self.source)

    def notify(self, kind: Traffic, data: bytes) -> None:
        """Notify the observer, if any."""
        if self.observer is not None:
            self.observer(kind, data)


class Sessions:
    """The sessions of one port; none if its dialect takes no commands.

    :param idle_timeout: seconds of silence after which a session ends.
    """

    def __init__(
        self,
        gateway: IGateway,
        clock: IReactorTime,
        dialect: DatagramDialect,
        *,
        idle_timeout: float,
        send: Callable[[bytes, Source], None],
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._dialect = dialect
        self._idle_timeout = idle_timeout
        self._send = send
        self._sessions: OrderedDict[str, DatagramSession] = OrderedDict()
        """Device ID → session; the device that was heard last is the last one."""
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def notify(self, device_id: str, kind: Traffic, data: bytes) -> None:
        """Notify the observer of a device, if it has a session."""
        session = self._sessions.get(device_id)
        if session is not None:
            session.notify(kind, data)

    def heard(self, device_id: str, source: Source, size: int, entries: Sequence[Entry]) -> None:
        """Begin or continue the session of a device.

        :param size: length of a datagram whose entries were appended, or that was answered.
        :param entries: the entries of the datagram.
        """
        if not self._dialect.takes_commands:
            return
        session = self._sessions.get(device_id)
        if session is not None:
            self._sessions.move_to_end(device_id)
            session.heard(source, size, entries)
        else:
            self._begin(device_id, source, size, entries)

    def answered(self, device_id: str, source: Source, answer: Answer) -> bool:
        """Pass on the answer to a command.

        :return: False if the command was sent to another address; the answer is ignored then.
        """
        session = self._sessions.get(device_id)
        if session is None or session.commanded is None:
            return True
        if session.commanded == source:
            self._gateway.command_answered(session, answer)
        return session.commanded == source

    def close(self) -> None:
        """End all sessions."""
        for session in list(self._sessions.values()):
            session.close()

    def _begin(self, device_id: str, source: Source, size: int, entries: Sequence[Entry]) -> None:
        session = DatagramSession(
            device_id,
            self._gateway,
            self._clock,
            dialect=self._dialect,
            send=self._send,
            ended=self._end,
        )
        session.heard(source, size, entries)
        while len(self._sessions) >= MAX_SESSIONS:
            next(iter(self._sessions.values())).close()
        self._sessions[device_id] = session
        self._gateway.session_opened(session)
        if self._gateway.login(session, device_id) is not Admission.SERVED:
            session.close()
        elif self._timer is None:
            self._timer = self._clock.callLater(self._idle_timeout, self._check)

    def _end(self, session: DatagramSession) -> None:
        device_id = session.device_ids[0]
        if self._sessions.get(device_id) is session:
            del self._sessions[device_id]
        if not self._sessions and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            left = oldest.last_heard + self._idle_timeout - self._clock.seconds()
            if left > 0:
                self._timer = self._clock.callLater(left, self._check)
                return
            oldest.close()
