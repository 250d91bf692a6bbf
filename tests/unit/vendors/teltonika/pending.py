"""Commands that wait to be written on a connection, and ways for the connection to end."""

from __future__ import annotations

from twisted.python.failure import Failure

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation
from tracker.interfaces import Admission, ConnectionEnded, IConnection
from tracker.limits import Limits
from tracker.vendors.teltonika.commands import command_frame

LIMITS = Limits(login_timeout=30, idle_timeout=600)
COMMAND = command_frame(IMEI, b"getver", "12").data
SECOND = command_frame(IMEI, b"getinfo", "14").data
ACK = b"\x00\x00\x00\x01"


class PendingCommand:
    """A command that is written as soon as the connection is free."""

    def __init__(self, talk: Conversation, data: bytes = COMMAND, radio_sleeps: float = 0) -> None:
        self.written = False
        self.failure: Failure | None = None
        self._talk = talk
        self._data = data
        self.when_free = talk.protocol.when_free(radio_sleeps)
        self.when_free.addCallbacks(self._write, self._fail)

    def _write(self, _: None) -> None:
        assert not self.written
        self.written = True
        self._talk.protocol.write_command(self._data)

    def _fail(self, failure: Failure) -> None:
        self.failure = failure

    @property
    def is_waiting(self) -> bool:
        return not self.written and self.failure is None

    @property
    def has_ended(self) -> bool:
        """True if the command has failed because the connection has ended."""
        return self.failure is not None and self.failure.check(ConnectionEnded) is not None


def resume(talk: Conversation) -> None:
    """Let the peer read again, if the connection is open."""
    if talk.transport.producer is not None:
        talk.transport.producer.resumeProducing()


def confirm_if_any(talk: Conversation) -> None:
    """Confirm the last packet if it is not confirmed yet."""
    if talk.gateway.published and not talk.gateway.published[-1][1].called:
        talk.confirm()


def _end_by_silence(talk: Conversation) -> None:
    talk.clock.advance(LIMITS.idle_timeout)


def _end_by_garbage(talk: Conversation) -> None:
    talk.send(b"GET / HTTP/1.1\r\n\r\n" * 3)
    resume(talk)
    confirm_if_any(talk)


def _end_by_another_connection(talk: Conversation) -> None:
    class Superseding(FakeGateway):
        def login(self, connection: IConnection, device_id: str) -> Admission:
            talk.protocol.close()
            return super().login(connection, device_id)

    Conversation(LIMITS, Superseding()).send(LOGIN)


ENDS = {
    "close": lambda talk: talk.protocol.close(),
    "lost": Conversation.lose,
    "silence": _end_by_silence,
    "garbage": _end_by_garbage,
    "superseded": _end_by_another_connection,
}
