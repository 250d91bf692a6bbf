"""A vendor whose devices send lines of text, and a conversation with one of them.

==================  ============================================  ==============================
line                meaning                                       reply
==================  ============================================  ==============================
``login ID``        login                                         ``welcome`` or ``no``
``greet ID``        login without a reply                         none
``stay ID``         login of a device that may wait               ``welcome``
``share ID``        login on a connection that others share       ``welcome``
``enter ID``        login of a device that records until then     ``welcome``, once the log confirms
``records A B``     records, repeated until they are acknowledged ``2``, once they are appended
``note A``          detached message                              none
``alarm A``         detached message with an ACK                  ``alarm``, once it is appended
``place A``         detached position                             none
``visit ID A``      detached position that names its device       none
``beat``            heartbeat                                     ``beat``, after all messages
``status A``        heartbeat with a detached message             ``beat``, after all messages
``time``            question                                      ``time``
``answer A``        detached message, may answer a command        none
``odd A``           detached message that causes a notice         none
``.``               sign of life                                  none
``skip``            invalid frame that is skipped                 none
``pardon``          the same, detected when it is handled         none
``wrong``           error that closes the connection              ``bye``
==================  ============================================  ==============================

Every other line closes the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.task import Clock

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.talk import Talk
from tracker.command import Answer, CommandFrame
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.position import Entry
from tracker.vendors.connection import ConnectionFactory
from tracker.vendors.dialect import (
    Append,
    AppendDetached,
    CommandAnswer,
    Dialect,
    LogIn,
    Notice,
    ProtocolError,
    Reply,
    Step,
)

DEVICE: Final = "device-1"
LOGIN: Final = f"login {DEVICE}\n".encode()
#: Seconds after the login in which no command is written.
SETTLE_TIME: Final = 1.0
_DETACHED: Final = ("note", "alarm", "answer", "odd", "status")
_POSITIONS: Final = ("place", "visit")
_LOGINS: Final = ("login", "greet", "enter", "visit", "stay", "share")
_WORDS: Final = (*_DETACHED, *_LOGINS, "place", "records", "beat", "time", ".", "pardon", "wrong")


class LineDialect(Dialect[str]):
    """The dialect of these devices."""

    def __init__(self) -> None:
        self.device_id = ""
        self.awaits = False

    def next_frame(self, buffer: bytearray) -> Decoded[str] | Incomplete | Rejected | Fatal:
        end = buffer.find(b"\n")
        if end < 0:
            return Fatal(0, "a line without end") if len(buffer) > 60 else Incomplete(1)
        line = buffer[:end].decode("latin-1")
        if line == "skip":
            return Rejected(end + 1, 0, "a line to skip", field="crc")
        word = line.partition(" ")[0]
        if word not in _WORDS or (word not in _LOGINS and not self.device_id):
            return Fatal(0, f"not a line: {word}", field="preamble")
        return Decoded(line, end + 1)

    def is_detached(self, frame: str) -> bool:
        return frame.startswith((*_DETACHED, *_POSITIONS))

    def count_messages(self, frame: str) -> int:
        return max(1, len(frame.split()) - 1) if frame.startswith(_DETACHED) else 0

    def is_awaited(self, frame: str) -> bool:
        return self.awaits and frame.startswith("answer")

    def find_awaited(self, buffer: bytearray) -> tuple[int, Decoded[str]] | None:
        start = buffer.find(b"answer")
        end = buffer.find(b"\n", start)
        if not self.awaits or start < 0 or end < 0:
            return None
        return start, Decoded(buffer[start:end].decode(), end + 1 - start)

    def handle(self, frame: str, now: float) -> Sequence[Step]:
        word, _, text = frame.partition(" ")
        made: dict[str, Callable[[], Sequence[Step]]] = {
            "login": lambda: self._log_in(text, b"welcome\n", b"no\n"),
            "greet": lambda: self._log_in(text, b"", b""),
            "stay": lambda: self._log_in(text, b"welcome\n", b"no\n", may_stay=True),
            "share": lambda: self._log_in(text, b"welcome\n", b"no\n", shared=True),
            "enter": lambda: self._log_in(text, b"welcome\n", b"no\n", needs_log=True),
            "records": lambda: [Append(self._entries(text), b"%d\n" % len(text.split()))],
            "note": lambda: [AppendDetached(self._entries(text))],
            "alarm": lambda: [AppendDetached(self._entries(text), b"alarm\n")],
            "beat": lambda: [Reply(b"beat\n", after_durable=True)],
            "place": lambda: [AppendDetached(self._entries(text))],
            "visit": lambda: self._visit(*text.split()),
            "status": lambda: [
                AppendDetached(self._entries(text)),
                Reply(b"beat\n", after_durable=True),
            ],
            "time": lambda: [Reply(b"time\n")],
            "answer": lambda: self._answer(text),
            "odd": lambda: [Notice(text), AppendDetached(self._entries(text))],
            ".": list,
            "pardon": lambda: [ProtocolError("a slip", Rejection.CONTENT, closes=False)],
            "wrong": lambda: [ProtocolError("an error", Rejection.CONTENT, reply=b"bye\n")],
        }
        return made[word]()

    def count_detached(self, data: bytes | bytearray) -> int:
        detached = (*_DETACHED, *_POSITIONS)
        return sum(line.startswith(detached) for line in data.decode("latin-1").split("\n"))

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        return CommandFrame(codec or "lines", content + f" {device_id}\n".encode())

    def command_written(self, data: bytes) -> None:
        self.awaits = True

    def _log_in(
        self, device_id: str, accept: bytes, refuse: bytes, **facts: bool
    ) -> Sequence[Step]:
        self.device_id = device_id
        return [LogIn(device_id, accept, refuse, SETTLE_TIME, **facts)]

    def _visit(self, device_id: str, *texts: str) -> Sequence[Step]:
        login = self._log_in(device_id, b"", b"")
        return [*login, AppendDetached(self._entries(" ".join(texts)))]

    def _answer(self, text: str) -> Sequence[Step]:
        self.awaits = False
        return [AppendDetached(self._entries(text)), CommandAnswer(Answer("lines", text))]

    def _entries(self, text: str) -> list[Entry]:
        return [
            Entry("2026-11-22T10:00:00.000Z", self.device_id, "lines", one) for one in text.split()
        ]


class LineTalk(Talk):
    """A conversation with a device that sends lines of text."""

    def __init__(
        self,
        limits: Limits | None = None,
        gateway: FakeGateway | None = None,
        lingers: bool = False,
    ) -> None:
        def factory(gateway: FakeGateway, limits: Limits, clock: Clock) -> ConnectionFactory:
            return ConnectionFactory(gateway, limits, clock, LineDialect)

        super().__init__(factory, limits, gateway, lingers)


def logged_in(limits: Limits | None = None, **options: Any) -> LineTalk:
    talk = LineTalk(limits, **options)
    talk.send(LOGIN)
    assert talk.received() == b"welcome\n"
    return talk


def published(talk: LineTalk) -> list[str]:
    return [entry.payload for entries, _ in talk.gateway.published for entry in entries]


def request_slot(talk: LineTalk, silence_limit: float = 0) -> list[object]:
    """Wait to write a command; return a list that receives "written" or the type of the error."""
    results: list[object] = []

    def write(_: None) -> None:
        results.append("written")
        talk.protocol.write_command(b"command\n")

    talk.protocol.when_free(silence_limit).addCallbacks(write, lambda no: results.append(no.type))
    return results
